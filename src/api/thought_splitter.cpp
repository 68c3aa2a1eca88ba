#include <algorithm>

#include "api/reply_reader.h"
#include "api/token_text.h"

namespace multiverse {
namespace {

// The first `count` code points of a text, or all of it, in bytes.
std::size_t bytes_of_code_points(std::string_view text, std::size_t count) {
  std::size_t at = 0;
  while (at < text.size() && count > 0) {
    ++at;
    while (at < text.size() && (static_cast<unsigned char>(text[at]) & 0xC0U) == 0x80U) ++at;
    --count;
  }
  return at;
}

std::int32_t think_open(const ServedModel& model) {
  return model.dialect ? model.dialect->think_open : -1;
}
std::int32_t think_close(const ServedModel& model) {
  return model.dialect ? model.dialect->think_close : -1;
}

}  // namespace

bool opens_thoughts(const ServedModel& model, const std::vector<TokenId>& prompt) {
  if (think_open(model) < 0) return false;
  const auto& control = model.control_tokens();
  for (std::size_t i = prompt.size(); i-- > 0;) {
    const TokenId token = prompt[i];
    if (token == think_open(model)) return true;
    const bool ends_turn =
        model.tokenizer->is_special(token) && !std::binary_search(control.begin(), control.end(), token);
    if (token == think_close(model) || ends_turn) return false;
  }
  return false;
}

ThoughtSplitter::ThoughtSplitter(const ServedModel& model, bool thinking)
    : open_(think_open(model)),
      close_(think_close(model)),
      open_tag_(open_ < 0 ? "" : model.visible_bytes(open_)),
      close_tag_(close_ < 0 ? "" : model.visible_bytes(close_)),
      kind_(thinking ? Kind::kThought : Kind::kAnswer),
      begun_(thinking) {}

void ThoughtSplitter::note(const CanonicalToken& token) {
  const bool in_thoughts = kind_ == Kind::kThought || !marks_.empty();
  if (!begun_) {
    begun_ = true;
    if (open_ >= 0 && token.token == open_ && token.branch == 0) marks_.push_back({token.text_offset, true});
  } else if (in_thoughts && !closed_ && close_ >= 0 && token.token == close_ && token.branch == 0) {
    closed_ = true;
    marks_.push_back({token.text_offset, false});
  }
}

void ThoughtSplitter::emit(Pieces& pieces, Kind kind, std::size_t bytes) {
  if (bytes == 0) return;
  std::string text = held_.substr(0, bytes);
  position_ += count_code_points(text);
  held_.erase(0, bytes);
  if (!pieces.empty() && pieces.back().first == kind) {
    pieces.back().second += text;
  } else {
    pieces.emplace_back(kind, std::move(text));
  }
}

ThoughtSplitter::Pieces ThoughtSplitter::append(std::string_view text, const std::vector<CanonicalToken>& tokens) {
  for (const CanonicalToken& token : tokens) note(token);
  held_ += text;
  Pieces pieces;
  while (!marks_.empty()) {
    const Mark mark = marks_.front();
    if (position_ < mark.offset) emit(pieces, kind_, bytes_of_code_points(held_, mark.offset - position_));
    if (position_ < mark.offset) return pieces;
    // An unfinished character before the tag becomes U+FFFD and comes with the tag's text.
    const std::string& tag = mark.opens ? open_tag_ : close_tag_;
    const std::size_t at = held_.find(tag);
    if (at == std::string::npos) return pieces;  // a stop string's possible start is still held back
    emit(pieces, kind_, at);
    emit(pieces, Kind::kTag, tag.size());
    kind_ = mark.opens ? Kind::kThought : Kind::kAnswer;
    marks_.pop_front();
  }
  emit(pieces, kind_, held_.size());
  return pieces;
}

ThoughtSplitter::Pieces ThoughtSplitter::finish() {
  Pieces pieces;
  emit(pieces, kind_, held_.size());
  return pieces;
}

}  // namespace multiverse

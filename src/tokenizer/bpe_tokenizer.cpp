#include <algorithm>
#include <fstream>
#include <string>
#include <unordered_map>
#include <utility>

#include "multiverse/tokenizer/tokenizer.h"

#include "tokenizer/failure.h"
#include "tokenizer/nfc.h"
#include "tokenizer/tokenizer_json.h"
#include "tokenizer/trust_map.h"
#include "tokenizer/utf8.h"

namespace multiverse {
namespace tokenizer {
namespace {

// The largest vocabularies in use make files of about 35 MB.
constexpr std::size_t kLargestFile = std::size_t{128} << 20;

// Text with the trust of its bytes.
struct MarkedText {
  std::string bytes;  // UTF-8, valid
  TrustMap trust;
};

MarkedText replace_invalid(const MarkedText& raw) {
  MarkedText valid;
  const std::string_view bytes = raw.bytes;
  std::size_t copied = 0;
  for (std::size_t i = 0; i < bytes.size();) {
    const Utf8Sequence sequence = next_sequence(bytes.substr(i));
    if (sequence.state != SequenceState::kComplete) {
      valid.bytes.append(bytes, copied, i - copied).append(kReplacement);
      valid.trust.append_from(raw.trust, copied, i);
      valid.trust.append(kReplacement.size(), raw.trust.lowest(i, i + sequence.length));
      copied = i + sequence.length;
    }
    i += sequence.length;
  }
  valid.bytes.append(bytes, copied);
  valid.trust.append_from(raw.trust, copied, bytes.size());
  return valid;
}

MarkedText join(const TrustedText& spans) {
  MarkedText text;
  for (const TextSpan& span : spans) {
    text.bytes += span.text;
    text.trust.append(span.text.size(), span.trust);
  }
  return is_valid_utf8(text.bytes) ? text : replace_invalid(text);
}

// [begin, end) of `text` in NFC.
MarkedText normalise(const MarkedText& text, std::size_t begin, std::size_t end) {
  MarkedText normal;
  std::vector<NfcChunk> chunks;
  normal.bytes = to_nfc(std::string_view(text.bytes).substr(begin, end - begin), &chunks);
  for (std::size_t i = 0; i < chunks.size(); ++i) {
    const std::size_t out_end = i + 1 < chunks.size() ? chunks[i + 1].out_begin : normal.bytes.size();
    normal.trust.append(out_end - chunks[i].out_begin,
                        text.trust.lowest(begin + chunks[i].source_begin, begin + chunks[i].source_end));
  }
  return normal;
}

std::pair<std::vector<AddedToken>, std::vector<AddedToken>> by_normalized(const std::vector<AddedToken>& tokens) {
  std::pair<std::vector<AddedToken>, std::vector<AddedToken>> out;
  for (const AddedToken& token : tokens) (token.normalized ? out.second : out.first).push_back(token);
  return out;
}

class BpeTokenizer final : public Tokenizer {
 public:
  explicit BpeTokenizer(TokenizerParts parts)
      : added_(std::move(parts.added_tokens)),
        plain_(by_normalized(added_).first),
        normalized_(by_normalized(added_).second),
        nfc_(parts.nfc),
        pre_tokenizer_(std::move(parts.pre_tokenizer)),
        bpe_(without_special(std::move(parts.model), added_)) {
    for (std::size_t i = 0; i < added_.size(); ++i) added_by_id_.emplace(added_[i].id, i);
    for (const AddedToken& token : added_) added_by_content_.emplace(token.content, token.id);
  }

  std::vector<std::int32_t> encode(const TrustedText& spans,
                                   const std::vector<std::int32_t>& dialect_tokens) const override;

  std::string_view token_bytes(std::int32_t id) const override {
    if (id < 0 || id >= size()) return {};
    const auto added = added_by_id_.find(id);
    return added != added_by_id_.end() ? added_[added->second].content : bpe_.tokens()[static_cast<std::size_t>(id)];
  }

  bool is_special(std::int32_t id) const override {
    const auto added = added_by_id_.find(id);
    return added != added_by_id_.end() && added_[added->second].special;
  }

  std::optional<std::int32_t> token_id(std::string_view content) const override {
    const auto added = added_by_content_.find(content);
    if (added != added_by_content_.end()) return added->second;
    const std::int32_t id = bpe_.find(content);
    return id < 0 ? std::nullopt : std::optional(id);
  }

  std::int32_t size() const override { return static_cast<std::int32_t>(bpe_.tokens().size()); }

 private:
  class Encoding;

  // A piece of plain text that happens to be spelt like a special token must not become one by `ignore_merges`.
  static BpeData without_special(BpeData data, const std::vector<AddedToken>& added) {
    for (const AddedToken& token : added)
      if (token.special) data.in_alphabet[static_cast<std::size_t>(token.id)] = false;
    return data;
  }

  std::vector<AddedToken> added_;
  AddedTokenSet plain_;       // searched for in the text as it came
  AddedTokenSet normalized_;  // searched for in what lies between those, normalised
  bool nfc_;
  PreTokenizer pre_tokenizer_;
  Bpe bpe_;
  std::unordered_map<std::int32_t, std::size_t> added_by_id_;            // index in added_
  std::unordered_map<std::string_view, std::int32_t> added_by_content_;  // views into added_
};

// One call of encode: added tokens, normalisation, added tokens that match normalised text, pieces, merges.
class BpeTokenizer::Encoding {
 public:
  Encoding(const BpeTokenizer& tokenizer, std::vector<std::int32_t> dialect_tokens)
      : tokenizer_(tokenizer), dialect_tokens_(std::move(dialect_tokens)) {
    std::sort(dialect_tokens_.begin(), dialect_tokens_.end());
  }

  std::vector<std::int32_t> run(const MarkedText& text) {
    split(tokenizer_.plain_, text, 0, text.bytes.size(),
          [&](std::size_t begin, std::size_t end) { normalise_and_encode(text, begin, end); });
    return std::move(ids_);
  }

 private:
  void normalise_and_encode(const MarkedText& text, std::size_t begin, std::size_t end) {
    const std::string_view part = std::string_view(text.bytes).substr(begin, end - begin);
    const bool changes = tokenizer_.nfc_ && may_change_in_nfc(part);
    if (tokenizer_.normalized_.empty() || text.trust.highest() == Trust::kNone) {
      changes ? encode_pieces(to_nfc(part)) : encode_pieces(part);
    } else if (changes) {
      const MarkedText normal = normalise(text, begin, end);
      split_normalised(normal, 0, normal.bytes.size());
    } else {
      split_normalised(text, begin, end);
    }
  }

  void split_normalised(const MarkedText& text, std::size_t begin, std::size_t end) {
    split(tokenizer_.normalized_, text, begin, end, [&](std::size_t from, std::size_t to) {
      encode_pieces(std::string_view(text.bytes).substr(from, to - from));
    });
  }

  // The permitted tokens of `set` in [begin, end) of the text become ids; the stretches between are handed to `rest`.
  template <class Rest>
  void split(const AddedTokenSet& set, const MarkedText& text, std::size_t begin, std::size_t end, Rest rest) {
    if (set.empty() || text.trust.highest() == Trust::kNone) {
      if (begin < end) rest(begin, end);
      return;
    }
    const auto permitted = [&](const AddedToken& token, std::size_t from, std::size_t to) {
      const Trust trust = text.trust.lowest(begin + from, begin + to);
      return trust == Trust::kAll ||
             (trust == Trust::kDialect && std::binary_search(dialect_tokens_.begin(), dialect_tokens_.end(), token.id));
    };
    set.split(std::string_view(text.bytes).substr(begin, end - begin), permitted,
              [&](std::int32_t id, std::size_t from, std::size_t to) {
                if (id >= 0) {
                  ids_.push_back(id);
                } else {
                  rest(begin + from, begin + to);
                }
              });
  }

  void encode_pieces(std::string_view text) {
    tokenizer_.pre_tokenizer_.run(text,
                                  [this](std::string_view piece) { tokenizer_.bpe_.encode(piece, ids_, scratch_); });
  }

  const BpeTokenizer& tokenizer_;
  std::vector<std::int32_t> dialect_tokens_;  // sorted
  std::vector<std::int32_t> ids_;
  Bpe::Scratch scratch_;
};

std::vector<std::int32_t> BpeTokenizer::encode(const TrustedText& spans,
                                               const std::vector<std::int32_t>& dialect_tokens) const {
  return Encoding(*this, dialect_tokens).run(join(spans));
}

Result<std::string> read_file(const std::string& path) {
  std::ifstream file(path, std::ios::binary | std::ios::ate);
  const std::streamoff size = file ? static_cast<std::streamoff>(file.tellg()) : -1;
  if (size < 0) return failure(ErrorCode::kNotFound, concat(path, " can't be read"));
  if (static_cast<std::size_t>(size) > kLargestFile) {
    return failure(ErrorCode::kTooLarge, concat(path, " has ", size, " bytes, at most ", kLargestFile, " are read"));
  }
  std::string content(static_cast<std::size_t>(size), '\0');
  file.seekg(0);
  if (!file.read(content.data(), size)) return failure(ErrorCode::kNotFound, concat(path, " can't be read"));
  return content;
}

}  // namespace
}  // namespace tokenizer

Result<std::shared_ptr<const Tokenizer>> Tokenizer::load(const std::string& model_dir) {
  const std::string path = model_dir + "/tokenizer.json";
  const Result<std::string> json = tokenizer::read_file(path);
  if (!json.ok()) return json.error();
  Result<tokenizer::TokenizerParts> parts = tokenizer::parse_tokenizer_json(json.value());
  if (!parts.ok()) {
    Error error = parts.error();
    error.message = concat(path, ": ", error.message);
    return error;
  }
  return std::shared_ptr<const Tokenizer>(std::make_shared<tokenizer::BpeTokenizer>(std::move(parts).value()));
}

}  // namespace multiverse

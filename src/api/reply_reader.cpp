#include "api/reply_reader.h"

namespace multiverse {

ReplyReader::ReplyReader(const Job& job, const ServedModel& model, const std::vector<TokenId>& prompt)
    : job_(job), thoughts_(model, opens_thoughts(model, prompt)), calls_(job.tools) {}

void ReplyReader::append(std::string_view text, const std::vector<CanonicalToken>& tokens, ChoicePart& out) {
  if (!job_.takes_reply_apart()) {
    out.text += text;
    return;
  }
  sort(thoughts_.append(text, tokens), out);
}

void ReplyReader::finish(ChoicePart& out) {
  if (!job_.takes_reply_apart()) return;
  sort(thoughts_.finish(), out);
  calls_.finish(out);
}

void ReplyReader::sort(const ThoughtSplitter::Pieces& pieces, ChoicePart& out) {
  for (const auto& [kind, text] : pieces) {
    if (kind == ThoughtSplitter::Kind::kAnswer) {
      calls_.append(text, out);
    } else if (!job_.split_reasoning) {
      out.text += text;
    } else if (kind == ThoughtSplitter::Kind::kThought) {
      out.reasoning += text;
    }
  }
}

}  // namespace multiverse

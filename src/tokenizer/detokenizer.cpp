#include "multiverse/tokenizer/tokenizer.h"

#include "tokenizer/utf8.h"

namespace multiverse {

std::string Tokenizer::decode(const std::vector<std::int32_t>& ids) const {
  std::string bytes;
  for (const std::int32_t id : ids) bytes += token_bytes(id);
  if (tokenizer::is_valid_utf8(bytes)) return bytes;
  std::string text;
  text.reserve(bytes.size());
  tokenizer::append_replacing_invalid(bytes, text);
  return text;
}

std::string IncrementalDetokenizer::append(std::string_view token_bytes) {
  std::string text;
  std::string unfinished;
  if (pending_.empty()) {
    tokenizer::append_replacing_invalid(token_bytes, text, &unfinished);
  } else {
    tokenizer::append_replacing_invalid(pending_.append(token_bytes), text, &unfinished);
  }
  pending_ = std::move(unfinished);
  return text;
}

std::string IncrementalDetokenizer::finish() {
  std::string text;
  tokenizer::append_replacing_invalid(pending_, text);
  pending_.clear();
  return text;
}

}  // namespace multiverse

#include "api/token_text.h"

namespace multiverse {

std::string token_text(const ServedModel& model, TokenId token) {
  IncrementalDetokenizer detokenizer;
  std::string text = detokenizer.append(model.tokenizer->token_bytes(token));
  return text += detokenizer.finish();
}

std::vector<std::string> tokens_texts(const ServedModel& model, const std::vector<TokenId>& tokens) {
  IncrementalDetokenizer detokenizer;
  std::vector<std::string> pieces;
  pieces.reserve(tokens.size());
  for (const TokenId token : tokens) pieces.push_back(detokenizer.append(model.tokenizer->token_bytes(token)));
  if (!pieces.empty()) pieces.back() += detokenizer.finish();
  return pieces;
}

std::string tokens_text(const ServedModel& model, const std::vector<TokenId>& tokens) {
  std::string text;
  for (const std::string& piece : tokens_texts(model, tokens)) text += piece;
  return text;
}

std::size_t count_code_points(std::string_view text) {
  std::size_t count = 0;
  for (const char c : text) count += (static_cast<unsigned char>(c) & 0xC0U) != 0x80U ? 1 : 0;
  return count;
}

}  // namespace multiverse

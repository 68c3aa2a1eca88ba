// Tokens as text that JSON can hold.
#pragma once

#include <string>
#include <vector>

#include "multiverse/api/served_model.h"

namespace multiverse {

// The token's own text, special tokens included. Bytes that are no UTF-8 by themselves become U+FFFD.
std::string token_text(const ServedModel& model, TokenId token);

// The text of tokens in a row, and that of each: the pieces joined are the text.
std::vector<std::string> tokens_texts(const ServedModel& model, const std::vector<TokenId>& tokens);
std::string tokens_text(const ServedModel& model, const std::vector<TokenId>& tokens);

std::size_t count_code_points(std::string_view text);

}  // namespace multiverse

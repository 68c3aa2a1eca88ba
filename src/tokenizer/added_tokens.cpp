#include "tokenizer/added_tokens.h"

#include <utf8proc.h>

#include <algorithm>

#include "tokenizer/utf8.h"

namespace multiverse::tokenizer {
namespace {

std::uint8_t byte_at(std::string_view text, std::size_t i) {
  return static_cast<std::uint8_t>(text[i]);
}

// \w of Rust's regex: Alphabetic, marks, decimal digits, connectors and joiners. Alphabetic is letters, letter numbers,
// marks and the circled and squared letters.
bool is_word_character(std::int32_t c) {
  switch (utf8proc_category(c)) {
    case UTF8PROC_CATEGORY_LU:
    case UTF8PROC_CATEGORY_LL:
    case UTF8PROC_CATEGORY_LT:
    case UTF8PROC_CATEGORY_LM:
    case UTF8PROC_CATEGORY_LO:
    case UTF8PROC_CATEGORY_MN:
    case UTF8PROC_CATEGORY_MC:
    case UTF8PROC_CATEGORY_ME:
    case UTF8PROC_CATEGORY_ND:
    case UTF8PROC_CATEGORY_NL:
    case UTF8PROC_CATEGORY_PC:
      return true;
    default:
      return c == 0x200C || c == 0x200D || (c >= 0x24B6 && c <= 0x24E9) || (c >= 0x1F130 && c <= 0x1F149) ||
             (c >= 0x1F150 && c <= 0x1F169) || (c >= 0x1F170 && c <= 0x1F189);
  }
}

bool touches_word(std::string_view text, std::size_t begin, std::size_t end) {
  if (begin > 0) {
    std::size_t before = previous_character(text, begin);
    if (is_word_character(decode_valid(text, before))) return true;
  }
  return end < text.size() && is_word_character(decode_valid(text, end));
}

std::size_t skip_space_back(std::string_view text, std::size_t position, std::size_t limit) {
  while (position > limit) {
    const std::size_t before = previous_character(text, position);
    std::size_t at = before;
    if (!is_white_space(decode_valid(text, at))) break;
    position = before;
  }
  return std::max(position, limit);
}

std::size_t skip_space(std::string_view text, std::size_t position) {
  while (position < text.size()) {
    std::size_t next = position;
    if (!is_white_space(decode_valid(text, next))) break;
    position = next;
  }
  return position;
}

}  // namespace

AddedTokenSet::AddedTokenSet(std::vector<AddedToken> tokens) : tokens_(std::move(tokens)) {
  std::sort(tokens_.begin(), tokens_.end(),
            [](const AddedToken& a, const AddedToken& b) { return a.content < b.content; });
  for (const AddedToken& token : tokens_) ++first_byte_[std::size_t{byte_at(token.content, 0)} + 1];
  for (std::size_t b = 1; b < first_byte_.size(); ++b) first_byte_[b] += first_byte_[b - 1];
}

const AddedToken* AddedTokenSet::longest_at(std::string_view text, std::size_t begin,
                                            const Permission& permitted) const {
  // The tokens that agree with the text so far are neighbours; among them the one that ends here comes first.
  const std::size_t first = byte_at(text, begin);
  auto low = tokens_.begin() + static_cast<std::ptrdiff_t>(first_byte_[first]);
  auto high = tokens_.begin() + static_cast<std::ptrdiff_t>(first_byte_[first + 1]);
  const AddedToken* longest = nullptr;
  for (std::size_t length = 1; low != high; ++length) {
    if (low->content.size() == length) {
      if (permitted(*low, begin, begin + length)) longest = &*low;
      ++low;
    }
    if (begin + length == text.size()) break;
    const std::uint8_t byte = byte_at(text, begin + length);
    low = std::lower_bound(low, high, byte, [length](const AddedToken& token, std::uint8_t b) {
      return byte_at(token.content, length) < b;
    });
    high = std::upper_bound(low, high, byte, [length](std::uint8_t b, const AddedToken& token) {
      return b < byte_at(token.content, length);
    });
  }
  return longest;
}

void AddedTokenSet::split(std::string_view text, const Permission& permitted, const Take& take) const {
  std::size_t taken = 0;      // the stretches cover [0, taken)
  std::size_t space_end = 0;  // the end of white space that was already walked through
  for (std::size_t i = 0; i < text.size();) {
    const std::size_t first = byte_at(text, i);
    if (first_byte_[first] == first_byte_[first + 1]) {
      ++i;
      continue;
    }
    const AddedToken* token = longest_at(text, i, permitted);
    if (token == nullptr) {
      ++i;
      continue;
    }
    std::size_t begin = i;
    std::size_t end = i + token->content.size();
    i = end;
    if (token->single_word && touches_word(text, begin, end)) continue;
    if (token->lstrip) begin = std::max(skip_space_back(text, begin, std::min(taken, begin)), taken);
    if (token->rstrip) {
      // Tokens of white space may lie in white space that one before them took: it is walked through once.
      if (end < space_end) {
        end = space_end;
      } else {
        end = space_end = skip_space(text, end);
      }
    }
    if (taken < begin) take(-1, taken, begin);
    take(token->id, begin, end);
    taken = end;
  }
  if (taken < text.size()) take(-1, taken, text.size());
}

}  // namespace multiverse::tokenizer

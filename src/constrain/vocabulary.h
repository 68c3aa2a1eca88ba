// A tokenizer's tokens as a tree of their bytes, laid out so that a subtree can be skipped.
#pragma once

#include <array>
#include <cstdint>
#include <string_view>
#include <utility>
#include <vector>

#include "multiverse/tokenizer/tokenizer.h"

namespace multiverse {

// Characters as ranges of their UTF-8 bytes.
struct PlainCharacters {
  std::size_t length;
  std::array<std::pair<std::uint8_t, std::uint8_t>, 4> bytes;
};
// All but control characters, quotes, backslashes and surrogates.
inline constexpr std::array<PlainCharacters, 11> kPlainCharacters{{
    {1, {{{0x20, 0x21}}}},
    {1, {{{0x23, 0x5B}}}},
    {1, {{{0x5D, 0x7F}}}},
    {2, {{{0xC2, 0xDF}, {0x80, 0xBF}}}},
    {3, {{{0xE0, 0xE0}, {0xA0, 0xBF}, {0x80, 0xBF}}}},
    {3, {{{0xE1, 0xEC}, {0x80, 0xBF}, {0x80, 0xBF}}}},
    {3, {{{0xED, 0xED}, {0x80, 0x9F}, {0x80, 0xBF}}}},
    {3, {{{0xEE, 0xEF}, {0x80, 0xBF}, {0x80, 0xBF}}}},
    {4, {{{0xF0, 0xF0}, {0x90, 0xBF}, {0x80, 0xBF}, {0x80, 0xBF}}}},
    {4, {{{0xF1, 0xF3}, {0x80, 0xBF}, {0x80, 0xBF}, {0x80, 0xBF}}}},
    {4, {{{0xF4, 0xF4}, {0x80, 0x8F}, {0x80, 0xBF}, {0x80, 0xBF}}}},
}};

// Tokens in the order of their bytes, as the tree of these.
struct TokenTree {
  struct Node {
    std::uint8_t byte = 0;
    std::uint16_t depth = 0;       // of the node; the root's children have 1
    std::int32_t skip = 0;         // the next node that is not below this one
    std::int32_t token_begin = 0;  // tokens that end here: tokens[token_begin, token_end)
    std::int32_t token_end = 0;
  };
  std::vector<Node> nodes;  // in depth-first order, the root left out
  std::vector<std::int32_t> tokens;
};

// Immutable.
class Vocabulary {
 public:
  // `hidden` (sorted) are never part of a constrained text, nor are special tokens; `ends` end it. `size`: tokens that
  // a mask has bits for.
  Vocabulary(const Tokenizer& tokenizer, const std::vector<std::int32_t>& hidden, std::vector<std::int32_t> ends,
             std::int32_t size);

  const TokenTree& all() const { return all_; }
  // Most tokens are whole characters that a JSON string holds as they are: no quotes, backslashes, control characters.
  // Where one of these characters may follow, mostly any of them may, and the tokens need not be looked at one by one.
  const std::vector<std::uint64_t>& plain_mask() const { return plain_mask_; }
  const TokenTree& not_plain() const { return not_plain_; }
  const std::vector<std::int32_t>& ends() const { return ends_; }
  std::size_t mask_words() const { return (static_cast<std::size_t>(size_) + 63) / 64; }
  // "" for a token that is no part of constrained texts.
  std::string_view bytes(std::int32_t token) const;

 private:
  TokenTree tree_of(std::vector<std::int32_t> tokens) const;

  std::vector<std::string_view> bytes_;  // the tokenizer's
  std::vector<std::int32_t> ends_;
  std::int32_t size_;
  TokenTree all_, not_plain_;
  std::vector<std::uint64_t> plain_mask_;
};

}  // namespace multiverse

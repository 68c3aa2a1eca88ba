// A tokenizer's tokens as a tree of their bytes, laid out so that a subtree can be skipped.
#pragma once

#include <cstdint>
#include <string_view>
#include <vector>

#include "multiverse/tokenizer/tokenizer.h"

namespace multiverse {

// Immutable.
class Vocabulary {
 public:
  // `hidden` (sorted) are never part of a constrained text, nor are special tokens; `ends` end it. `size`: tokens that
  // a mask has bits for.
  Vocabulary(const Tokenizer& tokenizer, const std::vector<std::int32_t>& hidden, std::vector<std::int32_t> ends,
             std::int32_t size);

  struct Node {
    std::uint8_t byte = 0;
    std::uint16_t depth = 0;       // of the node; the root's children have 1
    std::int32_t skip = 0;         // the next node that is not below this one
    std::int32_t token_begin = 0;  // tokens that end here: tokens()[token_begin, token_end)
    std::int32_t token_end = 0;
  };
  // In depth-first order, the root left out.
  const std::vector<Node>& nodes() const { return nodes_; }
  const std::vector<std::int32_t>& tokens() const { return tokens_; }
  const std::vector<std::int32_t>& ends() const { return ends_; }
  std::size_t mask_words() const { return (static_cast<std::size_t>(size_) + 63) / 64; }
  // "" for a token that is no part of constrained texts.
  std::string_view bytes(std::int32_t token) const;

 private:
  std::vector<std::string_view> bytes_;  // the tokenizer's
  std::vector<std::int32_t> ends_;
  std::int32_t size_;
  std::vector<Node> nodes_;
  std::vector<std::int32_t> tokens_;
};

}  // namespace multiverse

// A tokenizer of given pieces, for masks: all bytes, then the pieces, then an end token.
#pragma once

#include <string>
#include <vector>

#include "multiverse/tokenizer/tokenizer.h"

namespace multiverse::testing {

class PieceTokenizer final : public Tokenizer {
 public:
  explicit PieceTokenizer(std::vector<std::string> pieces) {
    for (int byte = 0; byte < 256; ++byte) tokens_.emplace_back(1, static_cast<char>(byte));
    tokens_.insert(tokens_.end(), pieces.begin(), pieces.end());
    tokens_.emplace_back("<end>");
  }
  std::int32_t end() const { return size() - 1; }

  std::vector<std::int32_t> encode(const TrustedText&, const std::vector<std::int32_t>&) const override { return {}; }
  std::string_view token_bytes(std::int32_t id) const override {
    return id >= 0 && id < size() ? std::string_view(tokens_[static_cast<std::size_t>(id)]) : std::string_view();
  }
  bool is_special(std::int32_t id) const override { return id == end(); }
  std::optional<std::int32_t> token_id(std::string_view) const override { return std::nullopt; }
  std::int32_t size() const override { return static_cast<std::int32_t>(tokens_.size()); }

 private:
  std::vector<std::string> tokens_;
};

}  // namespace multiverse::testing

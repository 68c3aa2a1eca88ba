#include "constrain/vocabulary.h"

#include <algorithm>

namespace multiverse {

// Longer tokens are left out: no text needs them.
constexpr std::size_t kMaxTokenBytes = 1024;

Vocabulary::Vocabulary(const Tokenizer& tokenizer, const std::vector<std::int32_t>& hidden,
                       std::vector<std::int32_t> ends, std::int32_t size)
    : ends_(std::move(ends)), size_(size) {
  bytes_.resize(static_cast<std::size_t>(size));
  for (std::int32_t id = 0; id < std::min(size, tokenizer.size()); ++id) {
    const bool left_out = tokenizer.is_special(id) || std::binary_search(hidden.begin(), hidden.end(), id) ||
                          std::find(ends_.begin(), ends_.end(), id) != ends_.end() ||
                          tokenizer.token_bytes(id).size() > kMaxTokenBytes;
    if (left_out) continue;
    bytes_[static_cast<std::size_t>(id)] = tokenizer.token_bytes(id);
    if (!bytes(id).empty()) tokens_.push_back(id);
  }
  std::sort(tokens_.begin(), tokens_.end(),
            [this](std::int32_t a, std::int32_t b) { return bytes(a) != bytes(b) ? bytes(a) < bytes(b) : a < b; });
  std::vector<std::size_t> path;  // nodes from the root to the token before
  std::string_view before;
  const auto leave = [&](std::size_t depth) {
    for (; path.size() > depth; path.pop_back()) nodes_[path.back()].skip = static_cast<std::int32_t>(nodes_.size());
  };
  for (std::size_t i = 0; i < tokens_.size(); ++i) {
    const std::string_view text = bytes(tokens_[i]);
    std::size_t common = 0;
    while (common < std::min(text.size(), before.size()) && text[common] == before[common]) ++common;
    leave(common);
    for (std::size_t depth = common; depth < text.size(); ++depth) {
      path.push_back(nodes_.size());
      nodes_.push_back({static_cast<std::uint8_t>(text[depth]), static_cast<std::uint16_t>(depth + 1), 0, 0, 0});
    }
    Node& last = nodes_[path.back()];
    if (text != before) last.token_begin = static_cast<std::int32_t>(i);
    last.token_end = static_cast<std::int32_t>(i) + 1;
    before = text;
  }
  leave(0);
}

std::string_view Vocabulary::bytes(std::int32_t token) const {
  const auto index = static_cast<std::size_t>(token);
  return token >= 0 && index < bytes_.size() ? bytes_[index] : std::string_view();
}

}  // namespace multiverse

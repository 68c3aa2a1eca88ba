#include "constrain/vocabulary.h"

#include <algorithm>

namespace multiverse {

// Longer tokens are left out: no text needs them.
constexpr std::size_t kMaxTokenBytes = 1024;

namespace {

bool is_plain(std::string_view text) {
  for (std::size_t at = 0; at < text.size();) {
    const bool found = std::any_of(kPlainCharacters.begin(), kPlainCharacters.end(), [&](const PlainCharacters& some) {
      if (text.size() - at < some.length) return false;
      for (std::size_t i = 0; i < some.length; ++i) {
        const auto byte = static_cast<std::uint8_t>(text[at + i]);
        if (byte < some.bytes[i].first || byte > some.bytes[i].second) return false;
      }
      at += some.length;
      return true;
    });
    if (!found) return false;
  }
  return true;
}

}  // namespace

Vocabulary::Vocabulary(const Tokenizer& tokenizer, const std::vector<std::int32_t>& hidden,
                       std::vector<std::int32_t> ends, std::int32_t size)
    : ends_(std::move(ends)), size_(size) {
  bytes_.resize(static_cast<std::size_t>(size));
  plain_mask_.resize(mask_words());
  std::vector<std::int32_t> tokens, others;
  for (std::int32_t id = 0; id < std::min(size, tokenizer.size()); ++id) {
    const bool left_out = tokenizer.is_special(id) || std::binary_search(hidden.begin(), hidden.end(), id) ||
                          std::find(ends_.begin(), ends_.end(), id) != ends_.end() ||
                          tokenizer.token_bytes(id).size() > kMaxTokenBytes;
    if (left_out || tokenizer.token_bytes(id).empty()) continue;
    bytes_[static_cast<std::size_t>(id)] = tokenizer.token_bytes(id);
    tokens.push_back(id);
    if (is_plain(bytes(id))) {
      plain_mask_[static_cast<std::size_t>(id) / 64] |= std::uint64_t{1} << (static_cast<std::uint32_t>(id) % 64U);
    } else {
      others.push_back(id);
    }
  }
  all_ = tree_of(std::move(tokens));
  not_plain_ = tree_of(std::move(others));
}

TokenTree Vocabulary::tree_of(std::vector<std::int32_t> tokens) const {
  TokenTree tree;
  tree.tokens = std::move(tokens);
  std::sort(tree.tokens.begin(), tree.tokens.end(),
            [this](std::int32_t a, std::int32_t b) { return bytes(a) != bytes(b) ? bytes(a) < bytes(b) : a < b; });
  std::vector<std::size_t> path;  // nodes from the root to the token before
  std::string_view before;
  const auto leave = [&](std::size_t depth) {
    for (; path.size() > depth; path.pop_back()) {
      tree.nodes[path.back()].skip = static_cast<std::int32_t>(tree.nodes.size());
    }
  };
  for (std::size_t i = 0; i < tree.tokens.size(); ++i) {
    const std::string_view text = bytes(tree.tokens[i]);
    std::size_t common = 0;
    while (common < std::min(text.size(), before.size()) && text[common] == before[common]) ++common;
    leave(common);
    for (std::size_t depth = common; depth < text.size(); ++depth) {
      path.push_back(tree.nodes.size());
      tree.nodes.push_back({static_cast<std::uint8_t>(text[depth]), static_cast<std::uint16_t>(depth + 1), 0, 0, 0});
    }
    TokenTree::Node& last = tree.nodes[path.back()];
    if (text != before) last.token_begin = static_cast<std::int32_t>(i);
    last.token_end = static_cast<std::int32_t>(i) + 1;
    before = text;
  }
  leave(0);
  return tree;
}

std::string_view Vocabulary::bytes(std::int32_t token) const {
  const auto index = static_cast<std::size_t>(token);
  return token >= 0 && index < bytes_.size() ? bytes_[index] : std::string_view();
}

}  // namespace multiverse

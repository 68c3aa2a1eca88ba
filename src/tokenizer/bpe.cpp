#include "tokenizer/bpe.h"

#include <algorithm>
#include <cstring>
#include <limits>

#include "tokenizer/merge_queue.h"

namespace multiverse::tokenizer {
namespace {

// Up to here looking through all pairs for each merge beats keeping a queue. Measured on ordinary text.
constexpr std::size_t kShortPiece = 64;
// Positions are 32-bit; a longer piece (which the server's limits on a body never let in) is encoded in parts.
constexpr std::size_t kLongestPiece = std::size_t{1} << 31;
constexpr std::uint32_t kNone = std::numeric_limits<std::uint32_t>::max();

// Whether no merge can make a pair of lower rank than its own possible.
bool is_monotone(const BpeData& data) {
  std::vector<std::size_t> made_last(data.tokens.size(), 0);  // 1 + highest rank of the merges that make the token
  for (std::size_t rank = 0; rank < data.merges.size(); ++rank)
    made_last[static_cast<std::size_t>(data.merges[rank].result)] = rank + 1;
  for (std::size_t rank = 0; rank < data.merges.size(); ++rank) {
    const BpeData::Rule& rule = data.merges[rank];
    for (const std::int32_t part : {rule.left, rule.right})
      if (made_last[static_cast<std::size_t>(part)] > rank) return false;
  }
  return true;
}

}  // namespace

Bpe::Bpe(BpeData data)
    : data_(std::move(data)),
      pairs_(data_.merges.size()),
      by_bytes_(&data_.tokens, data_.tokens.size()),
      monotone_(is_monotone(data_)),
      whole_(data_.tokens.size(), false) {
  for (std::size_t rank = 0; rank < data_.merges.size(); ++rank) {
    const BpeData::Rule& rule = data_.merges[rank];
    pairs_.insert(rule.left, rule.right, {static_cast<std::uint32_t>(rank), rule.result});
  }
  // Tokens that text can become come first, so that none is hidden by one that merely has the same bytes.
  for (const bool reachable : {true, false}) {
    for (std::size_t id = 0; id < data_.tokens.size(); ++id)
      if (data_.in_alphabet[id] == reachable && !data_.tokens[id].empty())
        by_bytes_.insert(static_cast<std::int32_t>(id));
  }
  std::vector<std::int32_t> ids;
  Scratch scratch;
  for (std::size_t id = 0; id < data_.tokens.size(); ++id) {
    if (!data_.in_alphabet[id] || data_.tokens[id].empty()) continue;
    ids.clear();
    encode(data_.tokens[id], ids, scratch);
    whole_[id] = data_.ignore_merges || (ids.size() == 1 && ids[0] == static_cast<std::int32_t>(id));
  }
}

void Bpe::encode(std::string_view piece, std::vector<std::int32_t>& ids, Scratch& scratch) const {
  // Most words are one token: one look-up instead of as many merges as it has letters.
  const std::int32_t token = by_bytes_.find(piece);
  if (token >= 0 && whole_[static_cast<std::size_t>(token)]) {
    ids.push_back(token);
    return;
  }
  for (; !piece.empty(); piece.remove_prefix(std::min(piece.size(), kLongestPiece))) {
    const std::string_view part = piece.substr(0, kLongestPiece);
    if (part.size() <= kShortPiece) {
      encode_short(part, ids, scratch);
    } else if (monotone_) {
      encode_long<MonotoneQueue>(part, ids);
    } else {
      encode_long<HeapQueue>(part, ids);
    }
  }
}

void Bpe::encode_short(std::string_view piece, std::vector<std::int32_t>& ids, Scratch& scratch) const {
  std::vector<Scratch::Symbol>& symbols = scratch.symbols;
  symbols.clear();
  for (const char byte : piece)
    if (token_of(byte) >= 0) symbols.push_back({token_of(byte), {}});
  const auto set_merge = [&](std::size_t i) {
    symbols[i].merge = i + 1 < symbols.size() ? pairs_.find(symbols[i].token, symbols[i + 1].token) : Merge{};
    if (symbols[i].merge.result < 0) symbols[i].merge.rank = kNone;
  };
  for (std::size_t i = 0; i < symbols.size(); ++i) set_merge(i);
  while (!symbols.empty()) {
    const auto best = std::min_element(symbols.begin(), symbols.end(),
                                       [](const auto& a, const auto& b) { return a.merge.rank < b.merge.rank; });
    if (best->merge.result < 0) break;
    best->token = best->merge.result;
    const auto i = static_cast<std::size_t>(best - symbols.begin());
    symbols.erase(best + 1);
    set_merge(i);
    if (i > 0) set_merge(i - 1);
  }
  for (const Scratch::Symbol& symbol : symbols) ids.push_back(symbol.token);
}

template <class Queue>
void Bpe::encode_long(std::string_view piece, std::vector<std::int32_t>& ids) const {
  struct Symbol {
    std::int32_t token;  // -1 once it is part of the symbol before it
    std::uint32_t previous;
    std::uint32_t next;
  };
  std::vector<Symbol> symbols;
  symbols.reserve(piece.size());
  for (const char byte : piece) {
    const auto i = static_cast<std::uint32_t>(symbols.size());
    if (token_of(byte) >= 0) symbols.push_back({token_of(byte), i == 0 ? kNone : i - 1, i + 1});
  }
  if (symbols.empty()) return;
  symbols.back().next = kNone;

  Queue queue;
  const auto merge_at = [&](std::uint32_t i) {
    const Symbol& left = symbols[i];
    return left.token < 0 || left.next == kNone ? Merge{} : pairs_.find(left.token, symbols[left.next].token);
  };
  const auto offer = [&](std::uint32_t i) {
    const Merge merge = merge_at(i);
    if (merge.result >= 0) queue.push(merge_key(merge.rank, i));
  };
  for (std::uint32_t i = 0; i < symbols.size(); ++i) offer(i);
  while (!queue.empty()) {
    const MergeKey key = queue.pop();
    const auto i = static_cast<std::uint32_t>(key);
    const Merge merge = merge_at(i);
    // A pair that was taken apart since leaves its key behind; its rank tells.
    if (merge.result < 0 || merge.rank != key >> 32) continue;
    Symbol& left = symbols[i];
    Symbol& right = symbols[left.next];
    left.token = merge.result;
    left.next = right.next;
    right.token = -1;
    if (left.next != kNone) symbols[left.next].previous = i;
    if (left.previous != kNone) offer(left.previous);
    offer(i);
  }
  for (std::uint32_t i = 0; i != kNone; i = symbols[i].next) ids.push_back(symbols[i].token);
}

}  // namespace multiverse::tokenizer

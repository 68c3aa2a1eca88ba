#include "constrain/automaton.h"

#include <algorithm>

namespace multiverse {
namespace {

std::size_t hash_of(const std::vector<SyntaxPlace>& places, bool is_end) {
  std::size_t hash = is_end ? 1 : 0;
  for (const SyntaxPlace& place : places) {
    hash = hash * 1'000'003U + static_cast<std::size_t>(place.state);
    hash = hash * 1'000'003U + static_cast<std::size_t>(place.stack);
  }
  return hash;
}

std::uint64_t key_of(std::int32_t state, std::int32_t stack) {
  return (static_cast<std::uint64_t>(static_cast<std::uint32_t>(state)) << 32U) | static_cast<std::uint32_t>(stack);
}

}  // namespace

Automaton::Automaton(std::shared_ptr<const Syntax> syntax, std::shared_ptr<const Vocabulary> vocabulary)
    : syntax_(std::move(syntax)), vocabulary_(std::move(vocabulary)) {
  cells_.emplace_back();
  intern({}, false);  // kDead
  start_ = close({{syntax_->rules[static_cast<std::size_t>(syntax_->root)].start, 0}});
}

std::int32_t Automaton::intern(std::vector<SyntaxPlace> places, bool is_end) {
  std::sort(places.begin(), places.end());
  places.erase(std::unique(places.begin(), places.end()), places.end());
  const std::size_t hash = hash_of(places, is_end);
  const auto [begin, end] = by_hash_.equal_range(hash);
  for (auto known = begin; known != end; ++known) {
    const State& state = states_[static_cast<std::size_t>(known->second)];
    if (state.places == places && state.is_end == is_end) return known->second;
  }
  const auto id = static_cast<std::int32_t>(states_.size());
  bytes_ += sizeof(State) + 64 + places.size() * sizeof(SyntaxPlace);
  State& state = states_.emplace_back();
  state.places = std::move(places);
  state.is_end = is_end;
  by_hash_.emplace(hash, id);
  return id;
}

std::int32_t Automaton::push(std::int32_t state, std::int32_t stack) {
  const auto [cell, fresh] = cell_of_.emplace(key_of(state, stack), static_cast<std::int32_t>(cells_.size()));
  if (fresh) {
    cells_.push_back({state, stack, cells_[static_cast<std::size_t>(stack)].depth + 1});
    bytes_ += sizeof(Cell) + 48;
  }
  return cell->second;
}

// The state of these places and of all that they reach without reading a byte.
std::int32_t Automaton::close(const std::vector<SyntaxPlace>& open) {
  std::vector<SyntaxPlace> seen = open, reading;
  std::unordered_map<std::uint64_t, bool> known;
  for (const SyntaxPlace& place : open) known.emplace(key_of(place.state, place.stack), true);
  bool is_end = false;
  const auto reach = [&](std::int32_t state, std::int32_t stack) {
    if (known.emplace(key_of(state, stack), true).second) seen.push_back({state, stack});
  };
  for (std::size_t i = 0; i < seen.size(); ++i) {
    if (seen.size() > kMaxPlaces) return kDead;
    const SyntaxPlace place = seen[i];
    const Syntax::State& state = syntax_->states[static_cast<std::size_t>(place.state)];
    if (!state.edges.empty()) reading.push_back(place);
    for (const std::int32_t next : state.empty) reach(next, place.stack);
    if (state.call >= 0) {
      // A call that is the last thing in its rule leaves nothing to go on with, so lists don't grow the stack.
      const Syntax::State& after = syntax_->states[static_cast<std::size_t>(state.after)];
      const bool last = after.edges.empty() && after.call < 0 && after.empty.size() == 1 &&
                        syntax_->states[static_cast<std::size_t>(after.empty.front())].is_rule_end;
      const std::int32_t stack = last ? place.stack : push(state.after, place.stack);
      if (cells_[static_cast<std::size_t>(stack)].depth > kMaxStackDepth) continue;
      reach(syntax_->rules[static_cast<std::size_t>(state.call)].start, stack);
    }
    if (!state.is_rule_end) continue;
    if (place.stack == 0) {
      is_end = true;
    } else {
      const Cell cell = cells_[static_cast<std::size_t>(place.stack)];
      reach(cell.state, cell.below);
    }
  }
  work_ += static_cast<std::int64_t>(seen.size());
  return intern(std::move(reading), is_end);
}

std::int32_t Automaton::step(std::int32_t state, std::uint8_t byte) {
  State& from = states_[static_cast<std::size_t>(state)];
  if (from.places.empty()) return kDead;
  if (from.next == nullptr) {
    from.next = std::make_unique<std::array<std::int32_t, 256>>();
    from.next->fill(-1);
    bytes_ += sizeof(*from.next);
  }
  std::int32_t& next = (*from.next)[byte];
  if (next >= 0) return next;
  std::vector<SyntaxPlace> reached;
  for (const SyntaxPlace& place : from.places) {
    for (const Syntax::Edge& edge : syntax_->states[static_cast<std::size_t>(place.state)].edges) {
      if (edge.low <= byte && byte <= edge.high) reached.push_back({edge.target, place.stack});
    }
  }
  work_ += static_cast<std::int64_t>(from.places.size());
  const std::int32_t found = reached.empty() ? kDead : close(reached);
  (*states_[static_cast<std::size_t>(state)].next)[byte] = found;  // the states may have moved
  return found;
}

std::int32_t Automaton::step(std::int32_t state, std::string_view bytes) {
  for (const char c : bytes) state = step(state, static_cast<std::uint8_t>(c));
  return state;
}

std::span<const std::uint64_t> Automaton::mask(std::int32_t state) {
  if (states_[static_cast<std::size_t>(state)].mask.empty()) fill_mask(state);
  return states_[static_cast<std::size_t>(state)].mask;
}

std::int32_t Automaton::step_range(std::int32_t state, std::uint8_t low, std::uint8_t high) {
  const std::int32_t target = step(state, low);
  for (unsigned byte = low; byte <= high && target != kDead; ++byte) {
    if (step(state, static_cast<std::uint8_t>(byte)) != target) return kDead;
  }
  return target;
}

std::int32_t Automaton::step_plain(std::int32_t state) {
  // So many steps from a state of many places would be much of a mask's work.
  constexpr std::size_t kMostPlaces = 64;
  if (states_[static_cast<std::size_t>(state)].places.size() > kMostPlaces) return kDead;
  std::int32_t target = -1;
  for (const PlainCharacters& some : kPlainCharacters) {
    std::int32_t next = state;
    for (std::size_t i = 0; i < some.length && next != kDead; ++i) {
      next = step_range(next, some.bytes[i].first, some.bytes[i].second);
    }
    if (next == kDead || (target >= 0 && next != target)) return kDead;
    target = next;
  }
  return target;
}

void Automaton::fill_mask(std::int32_t state) {
  const std::int32_t plain = step_plain(state);
  const bool any_plain = plain != kDead && step_plain(plain) == plain;
  std::vector<std::uint64_t> mask(vocabulary_->mask_words(), 0);
  if (any_plain) mask = vocabulary_->plain_mask();
  const auto allow = [&mask](std::int32_t token) {
    mask[static_cast<std::size_t>(token) / 64] |= std::uint64_t{1} << (static_cast<std::uint32_t>(token) % 64U);
  };
  if (is_end(state)) {
    for (const std::int32_t token : vocabulary_->ends()) allow(token);
  }
  const std::int64_t most = work_ + kMaxMaskWork;
  const TokenTree& tree = any_plain ? vocabulary_->not_plain() : vocabulary_->all();
  const std::vector<TokenTree::Node>& nodes = tree.nodes;
  std::vector<std::int32_t> path{state};  // after the bytes of the node's ancestors
  for (std::size_t i = 0; i < nodes.size();) {
    const TokenTree::Node& node = nodes[i];
    path.resize(node.depth);
    const std::int32_t next = step(path.back(), node.byte);
    if (next == kDead) {
      i = static_cast<std::size_t>(node.skip);
      continue;
    }
    for (std::int32_t token = node.token_begin; token < node.token_end; ++token) {
      allow(tree.tokens[static_cast<std::size_t>(token)]);
    }
    path.push_back(next);
    ++i;
    if (work_ > most) {
      mask.assign(mask.size(), 0);
      break;
    }
  }
  bytes_ += mask.size() * sizeof(std::uint64_t);
  states_[static_cast<std::size_t>(state)].mask = std::move(mask);
}

std::int32_t Automaton::copy_stack(const Automaton& from, std::int32_t stack) {
  std::vector<std::int32_t> cells;  // top first
  for (; stack != 0; stack = from.cells_[static_cast<std::size_t>(stack)].below) {
    cells.push_back(from.cells_[static_cast<std::size_t>(stack)].state);
  }
  std::int32_t copied = 0;
  for (std::size_t i = cells.size(); i-- > 0;) copied = push(cells[i], copied);
  return copied;
}

std::int32_t Automaton::copy_state(const Automaton& from, std::int32_t state) {
  const State& source = from.states_[static_cast<std::size_t>(state)];
  std::vector<SyntaxPlace> places;
  for (const SyntaxPlace& place : source.places) places.push_back({place.state, copy_stack(from, place.stack)});
  return intern(std::move(places), source.is_end);
}

}  // namespace multiverse

#include "multiverse/constrain/syntax.h"

#include <algorithm>
#include <array>

namespace multiverse {
namespace {

// A run of code points whose UTF-8 is one byte range after another.
using ByteRanges = std::vector<std::pair<std::uint8_t, std::uint8_t>>;

std::array<std::uint8_t, 4> utf8(std::uint32_t code, std::size_t length) {
  constexpr std::array<std::uint8_t, 5> kLead{0, 0, 0xC0, 0xE0, 0xF0};
  std::array<std::uint8_t, 4> bytes{};
  for (std::size_t i = length; i-- > 1; code >>= 6U) bytes[i] = static_cast<std::uint8_t>(0x80U | (code & 0x3FU));
  bytes[0] = static_cast<std::uint8_t>(kLead[length] | code);
  return bytes;
}

// Splits a range at the places where the length, or the range of a byte that is not the last, changes.
void split(std::uint32_t low, std::uint32_t high, std::vector<ByteRanges>& out) {
  constexpr std::array<std::uint32_t, 4> kLast{0x7F, 0x7FF, 0xFFFF, 0x10FFFF};
  std::size_t length = 1;
  while (low > kLast[length - 1]) ++length;
  if (high > kLast[length - 1]) {
    split(kLast[length - 1] + 1, high, out);
    high = kLast[length - 1];
  }
  for (std::uint32_t shift = 6; shift < 6 * length; shift += 6) {
    const std::uint32_t mask = (1U << shift) - 1;
    if ((low & ~mask) == (high & ~mask)) break;
    if ((low & mask) != 0) {
      split(low, low | mask, out);
      split((low | mask) + 1, high, out);
      return;
    }
    if ((high & mask) != mask) {
      split(low, (high & ~mask) - 1, out);
      split(high & ~mask, high, out);
      return;
    }
  }
  const auto first = utf8(low, length), last = utf8(high, length);
  ByteRanges ranges;
  for (std::size_t i = 0; i < length; ++i) ranges.emplace_back(first[i], last[i]);
  out.push_back(std::move(ranges));
}

}  // namespace

std::int32_t SyntaxBuilder::add_state() {
  if (syntax_.states.size() >= kMaxStates) {
    overflow_ = true;
    return 0;
  }
  syntax_.states.emplace_back();
  return static_cast<std::int32_t>(syntax_.states.size()) - 1;
}

void SyntaxBuilder::connect(std::int32_t from, std::int32_t to) {
  if (!overflow_) syntax_.states[static_cast<std::size_t>(from)].empty.push_back(to);
}

SyntaxBuilder::Piece SyntaxBuilder::empty() {
  const std::int32_t state = add_state();
  return {state, state};
}

SyntaxBuilder::Piece SyntaxBuilder::nothing() {
  const std::int32_t start = add_state();
  return {start, add_state()};
}

SyntaxBuilder::Piece SyntaxBuilder::byte(std::uint8_t low, std::uint8_t high) {
  const std::int32_t start = add_state(), end = add_state();
  if (!overflow_) syntax_.states[static_cast<std::size_t>(start)].edges.push_back({low, high, end});
  return {start, end};
}

SyntaxBuilder::Piece SyntaxBuilder::text(std::string_view bytes) {
  const std::int32_t start = add_state();
  std::int32_t end = start;
  for (const char c : bytes) {
    const std::int32_t next = add_state();
    const auto value = static_cast<std::uint8_t>(c);
    if (!overflow_) syntax_.states[static_cast<std::size_t>(end)].edges.push_back({value, value, next});
    end = next;
  }
  return {start, end};
}

SyntaxBuilder::Piece SyntaxBuilder::code_points(const std::vector<CodePoints>& ranges) {
  std::vector<ByteRanges> runs;
  for (const auto& [low, high] : ranges) {
    if (low <= std::min(high, 0xD7FFU)) split(low, std::min(high, 0xD7FFU), runs);
    if (std::max(low, 0xE000U) <= high) split(std::max(low, 0xE000U), high, runs);
  }
  const std::int32_t start = add_state(), end = add_state();
  for (const ByteRanges& run : runs) {
    std::int32_t from = start;
    for (std::size_t i = 0; i < run.size() && !overflow_; ++i) {
      const std::int32_t to = i + 1 == run.size() ? end : add_state();
      if (overflow_) break;
      syntax_.states[static_cast<std::size_t>(from)].edges.push_back({run[i].first, run[i].second, to});
      from = to;
    }
  }
  return {start, end};
}

SyntaxBuilder::Piece SyntaxBuilder::call(std::int32_t rule) {
  const std::int32_t start = add_state(), end = add_state();
  if (!overflow_) {
    syntax_.states[static_cast<std::size_t>(start)].call = rule;
    syntax_.states[static_cast<std::size_t>(start)].after = end;
  }
  return {start, end};
}

SyntaxBuilder::Piece SyntaxBuilder::sequence(const std::vector<Piece>& pieces) {
  if (pieces.empty()) return empty();
  for (std::size_t i = 1; i < pieces.size(); ++i) connect(pieces[i - 1].end, pieces[i].start);
  return {pieces.front().start, pieces.back().end};
}

SyntaxBuilder::Piece SyntaxBuilder::any_of(const std::vector<Piece>& pieces) {
  if (pieces.size() == 1) return pieces.front();
  const Piece all = nothing();
  for (const Piece& piece : pieces) {
    connect(all.start, piece.start);
    connect(piece.end, all.end);
  }
  return all;
}

SyntaxBuilder::Piece SyntaxBuilder::optional(Piece piece) {
  return any_of({piece, empty()});
}

SyntaxBuilder::Piece SyntaxBuilder::any_number(Piece piece) {
  const std::int32_t start = add_state(), end = add_state();
  connect(start, piece.start);
  connect(piece.end, start);
  connect(start, end);
  return {start, end};
}

SyntaxBuilder::Piece SyntaxBuilder::times(std::int32_t rule, std::int32_t low, std::int32_t high) {
  std::vector<Piece> pieces;
  for (std::int32_t i = 0; i < low && !overflow_; ++i) pieces.push_back(call(rule));
  if (high < 0) pieces.push_back(any_number(call(rule)));
  const std::int32_t end = add_state();
  for (std::int32_t i = low; i < high && !overflow_; ++i) {
    pieces.push_back(call(rule));
    connect(pieces.back().start, end);
  }
  pieces.push_back({end, end});
  return sequence(pieces);
}

std::int32_t SyntaxBuilder::add_rule() {
  syntax_.rules.emplace_back();
  return static_cast<std::int32_t>(syntax_.rules.size()) - 1;
}

// An end of its own has no edges, whatever the piece's end gets later.
void SyntaxBuilder::define(std::int32_t rule, Piece piece) {
  const std::int32_t end = add_state();
  connect(piece.end, end);
  if (!overflow_) syntax_.states[static_cast<std::size_t>(end)].is_rule_end = true;
  syntax_.rules[static_cast<std::size_t>(rule)] = {piece.start, end};
}

std::int32_t SyntaxBuilder::add_rule(Piece piece) {
  const std::int32_t rule = add_rule();
  define(rule, piece);
  return rule;
}

// From which states an end can be reached, found backwards from the ends of rules.
Syntax SyntaxBuilder::take(std::int32_t root) {
  std::vector<Syntax::State>& states = syntax_.states;
  std::vector<std::vector<std::int32_t>> before(states.size());  // states with an edge to this one
  std::vector<std::vector<std::int32_t>> callers(syntax_.rules.size());
  for (std::size_t i = 0; i < states.size(); ++i) {
    const auto id = static_cast<std::int32_t>(i);
    for (const Syntax::Edge& edge : states[i].edges) before[static_cast<std::size_t>(edge.target)].push_back(id);
    for (const std::int32_t next : states[i].empty) before[static_cast<std::size_t>(next)].push_back(id);
    if (states[i].call < 0) continue;
    before[static_cast<std::size_t>(states[i].after)].push_back(id);
    callers[static_cast<std::size_t>(states[i].call)].push_back(id);
  }
  std::vector<std::vector<std::int32_t>> rules_from(states.size());
  for (std::size_t i = 0; i < syntax_.rules.size(); ++i) {
    rules_from[static_cast<std::size_t>(syntax_.rules[i].start)].push_back(static_cast<std::int32_t>(i));
  }
  std::vector<bool> good(states.size(), false), rule_good(syntax_.rules.size(), false);
  std::vector<std::int32_t> found;
  const auto mark = [&](std::int32_t id) {
    if (good[static_cast<std::size_t>(id)]) return;
    good[static_cast<std::size_t>(id)] = true;
    found.push_back(id);
  };
  // A call counts once both the rule and what comes after it can end; edges need their target alone.
  const auto can_end = [&](const Syntax::State& state) {
    const auto is_good = [&](std::int32_t id) { return bool{good[static_cast<std::size_t>(id)]}; };
    return std::any_of(state.empty.begin(), state.empty.end(), is_good) ||
           std::any_of(state.edges.begin(), state.edges.end(),
                       [&](const auto& edge) { return is_good(edge.target); }) ||
           (state.call >= 0 && rule_good[static_cast<std::size_t>(state.call)] && is_good(state.after));
  };
  for (std::size_t i = 0; i < states.size(); ++i) {
    if (states[i].is_rule_end) mark(static_cast<std::int32_t>(i));
  }
  while (!found.empty()) {
    const std::int32_t id = found.back();
    found.pop_back();
    std::vector<std::int32_t> again = before[static_cast<std::size_t>(id)];
    for (const std::int32_t rule : rules_from[static_cast<std::size_t>(id)]) {
      rule_good[static_cast<std::size_t>(rule)] = true;
      const auto& sites = callers[static_cast<std::size_t>(rule)];
      again.insert(again.end(), sites.begin(), sites.end());
    }
    for (const std::int32_t other : again) {
      if (!good[static_cast<std::size_t>(other)] && can_end(states[static_cast<std::size_t>(other)])) mark(other);
    }
  }
  for (Syntax::State& state : states) {
    const auto is_bad = [&](std::int32_t id) { return !good[static_cast<std::size_t>(id)]; };
    std::erase_if(state.empty, is_bad);
    std::erase_if(state.edges, [&](const auto& edge) { return is_bad(edge.target); });
    if (state.call >= 0 && (!rule_good[static_cast<std::size_t>(state.call)] || is_bad(state.after))) state.call = -1;
  }
  syntax_.root = root;
  syntax_.matches_nothing = !rule_good[static_cast<std::size_t>(root)];
  return std::move(syntax_);
}

}  // namespace multiverse

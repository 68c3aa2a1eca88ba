// A language over bytes: automata that call each other. What regular expressions and JSON schemas are compiled to.
#pragma once

#include <cstdint>
#include <string_view>
#include <utility>
#include <vector>

namespace multiverse {

// Rules are non-deterministic automata. A state has byte edges and empty edges, and may call a rule: it goes on at
// `after` when that rule has come to its end. A rule ends at its `end` state, which has no edges.
struct Syntax {
  struct Edge {
    std::uint8_t low = 0, high = 0;  // both included
    std::int32_t target = 0;
  };
  struct State {
    std::vector<Edge> edges;
    std::vector<std::int32_t> empty;
    std::int32_t call = -1;  // a rule
    std::int32_t after = -1;
    bool is_rule_end = false;
  };
  struct Rule {
    std::int32_t start = -1, end = -1;
  };
  std::vector<State> states;
  std::vector<Rule> rules;
  std::int32_t root = -1;  // a rule
  bool matches_nothing = false;
};

// Code points from `first` to `second`, both included.
using CodePoints = std::pair<std::uint32_t, std::uint32_t>;

// Builds a Syntax piece by piece. Once kMaxStates would be exceeded, overflow() is true and what is built is of no use;
// calls stay harmless.
class SyntaxBuilder {
 public:
  static constexpr std::size_t kMaxStates = 60'000;

  struct Piece {
    std::int32_t start = 0, end = 0;
  };

  Piece empty();
  Piece nothing();  // matches no text at all
  Piece text(std::string_view bytes);
  Piece byte(std::uint8_t low, std::uint8_t high);
  Piece code_points(const std::vector<CodePoints>& ranges);  // as UTF-8; surrogates are left out
  Piece call(std::int32_t rule);
  Piece sequence(const std::vector<Piece>& pieces);
  Piece any_of(const std::vector<Piece>& pieces);
  Piece optional(Piece piece);
  Piece any_number(Piece piece);  // zero or more
  // `rule` from `low` to `high` times; `high` < 0: no limit.
  Piece times(std::int32_t rule, std::int32_t low, std::int32_t high);

  std::int32_t add_rule();  // to be defined later
  void define(std::int32_t rule, Piece piece);
  std::int32_t add_rule(Piece piece);

  std::int32_t add_state();
  void connect(std::int32_t from, std::int32_t to);
  bool overflow() const { return overflow_; }
  // What was built, without the ways that lead to no end.
  Syntax take(std::int32_t root);

 private:
  Syntax syntax_;
  bool overflow_ = false;
};

}  // namespace multiverse

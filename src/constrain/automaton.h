// Runs a Syntax over bytes, and asks which tokens of a vocabulary may follow. What was once worked out is kept: states
// of the deterministic automaton, their transitions, their masks.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "multiverse/constrain/syntax.h"

#include "constrain/vocabulary.h"

namespace multiverse {

// A place in the syntax: a state, and where the rules that called go on, outermost last.
struct SyntaxPlace {
  std::int32_t state = 0;
  std::int32_t stack = 0;  // index of a stack cell; 0 is the empty stack
  bool operator<(const SyntaxPlace& other) const {
    return state != other.state ? state < other.state : stack < other.stack;
  }
  bool operator==(const SyntaxPlace&) const = default;
};

// One thread. States are small integers; kDead takes nothing more.
class Automaton {
 public:
  static constexpr std::int32_t kDead = 0;
  // Bounds: a text that would need more is refused (nesting), or ends its reply (the others).
  static constexpr std::int32_t kMaxStackDepth = 192;
  static constexpr std::size_t kMaxPlaces = 2048;        // of one state
  static constexpr std::size_t kMaxBytes = 24U << 20U;   // of all that is kept; then it starts anew
  static constexpr std::int64_t kMaxMaskWork = 200'000;  // places looked at for one mask

  Automaton(std::shared_ptr<const Syntax> syntax, std::shared_ptr<const Vocabulary> vocabulary);

  std::int32_t start() const { return start_; }
  std::int32_t step(std::int32_t state, std::uint8_t byte);
  std::int32_t step(std::int32_t state, std::string_view bytes);
  bool is_end(std::int32_t state) const { return states_[static_cast<std::size_t>(state)].is_end; }
  // Tokens whose bytes may follow; end tokens where the text may end. All zero where the work is too much.
  std::span<const std::uint64_t> mask(std::int32_t state);

  // Everything kept so far takes too much: copy_state() the states in use into a fresh one.
  bool full() const { return bytes_ > kMaxBytes; }
  // Places looked at so far; none for what is kept.
  std::int64_t work() const { return work_; }
  // The same place in the same syntax's text, in another automaton.
  std::int32_t copy_state(const Automaton& from, std::int32_t state);

 private:
  struct Cell {  // of a stack
    std::int32_t state = -1, below = 0, depth = 0;
  };
  struct State {
    std::vector<SyntaxPlace> places;  // sorted; those with byte edges
    bool is_end = false;
    std::unique_ptr<std::array<std::int32_t, 256>> next;  // -1: not worked out
    std::vector<std::uint64_t> mask;                      // empty: not worked out
  };

  std::int32_t intern(std::vector<SyntaxPlace> places, bool is_end);
  std::int32_t push(std::int32_t state, std::int32_t stack);  // the stack with this on top
  std::int32_t close(const std::vector<SyntaxPlace>& open);
  std::int32_t copy_stack(const Automaton& from, std::int32_t stack);
  // Where all bytes of the range lead; kDead where they lead to different places.
  std::int32_t step_range(std::int32_t state, std::uint8_t low, std::uint8_t high);
  // The same of all plain characters.
  std::int32_t step_plain(std::int32_t state);
  void fill_mask(std::int32_t state);

  const std::shared_ptr<const Syntax> syntax_;
  const std::shared_ptr<const Vocabulary> vocabulary_;
  std::vector<State> states_;
  std::unordered_multimap<std::size_t, std::int32_t> by_hash_;
  std::vector<Cell> cells_;
  std::unordered_map<std::uint64_t, std::int32_t> cell_of_;
  std::int32_t start_ = kDead;
  std::size_t bytes_ = 0;
  std::int64_t work_ = 0;  // places looked at
};

class TriggerTokens;

// Places that one reply may have looked at in the engine's thread: a fraction of a second. JSON takes some thousands.
inline constexpr std::int64_t kMaxReplyWork = 4'000'000;

// Of one specification: what requests share. The engine's thread, once a first constraint has been handed out.
struct SharedAutomaton {
  std::shared_ptr<const Syntax> syntax;
  std::shared_ptr<const Vocabulary> vocabulary;
  std::shared_ptr<Automaton> automaton;
  std::shared_ptr<const TriggerTokens> triggers;  // of free text with calls; null otherwise

  // With room for more.
  const std::shared_ptr<Automaton>& current() {
    if (automaton->full()) automaton = std::make_shared<Automaton>(syntax, vocabulary);
    return automaton;
  }
};

}  // namespace multiverse

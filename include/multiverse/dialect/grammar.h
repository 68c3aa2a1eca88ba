// The grammar of one branch: what each token means there. Pure: no engine, no positions.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "multiverse/dialect/dialect.h"

namespace multiverse {

// Bounds on a fork that happens now.
struct ForkLimits {
  std::int32_t max_paths = 0;  // of this fork: the lesser of the fork's bound and of what the request has left
  bool depth_allowed = true;   // may a path of this branch's children exist?
};

// State of one branch: the blocks that it opened and has not closed. Total: every token list has a meaning. Bounded:
// a block keeps at most max_paths + 1 labels of at most Dialect::kMaxLabelBytes.
class Grammar {
 public:
  enum class Effect {
    kNone,
    kFork,       // the open block's labels() are the paths
    kEndPath,    // the path ends; what it had opened is abandoned
    kStartPath,  // reading only: a <Path> that the engine once wrote
    kConclude,   // reading only: a <Conclusion> that the engine once wrote
  };
  struct Outcome {
    Effect effect = Effect::kNone;
    bool malformed = false;  // a control token kept as an ordinary one
  };

  explicit Grammar(bool is_path) : is_path_(is_path) {}

  // A token that the model drew.
  Outcome advance(const Dialect& dialect, std::int32_t token, const ForkLimits& limits);

  // A token that is read from a text. `fork_follows`: the text goes on as after a fork (separator <Path>, or its end).
  Outcome read(const Dialect& dialect, std::int32_t token, const ForkLimits& limits, bool fork_follows);

  // The open block forked, its paths have all ended and the conclusion begins. Precondition: awaits_join().
  void conclude();

  // The fork that advance() just reported does not happen after all: no room for its paths.
  void refuse_fork();

  bool is_path() const { return is_path_; }
  // The path has got its path_close: only the separator after it is still its own.
  bool ended() const { return ended_; }
  // The innermost open block has forked and is not concluded.
  bool awaits_join() const { return !blocks_.empty() && blocks_.back().forked && !blocks_.back().concluded; }
  // Labels of the innermost open block's outlines, in order.
  const std::vector<std::string>& labels() const { return blocks_.back().labels; }
  bool in_block() const { return !blocks_.empty(); }
  std::size_t depth() const { return blocks_.size(); }  // blocks open in this branch

  // How many path_close tokens end this path now: those before the last close <Path>s that were kept as ordinary
  // tokens.
  std::int32_t closers() const;

  // Control tokens for which the grammar has no place now ("strict"): what may not be drawn. End-of-text is banned by
  // the caller where in_block() or is_path().
  void append_banned(const Dialect& dialect, const ForkLimits& limits, std::vector<std::int32_t>& banned) const;

 private:
  struct Block {
    bool in_goal = false;
    bool forked = false;
    bool concluded = false;
    std::int32_t read_paths = 0;   // paths of the fork seen while reading
    std::int32_t plain_paths = 0;  // <Path> kept as ordinary tokens in a block that did not fork
    std::vector<std::string> labels;
    std::string label;           // of the outline being read
    bool reading_label = false;  // after <Outline>, until the label ends or proves unreadable
  };

  Outcome step(const Dialect& dialect, std::int32_t token, const ForkLimits& limits, bool reading, bool fork_follows);
  Outcome end_goal(const ForkLimits& limits, bool fork_follows);
  Outcome open_path(bool reading);
  Outcome end_path();
  void read_label(const Dialect& dialect, std::int32_t token, const ForkLimits& limits);

  bool is_path_;
  bool ended_ = false;
  std::vector<Block> blocks_;
};

}  // namespace multiverse

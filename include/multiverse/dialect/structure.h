// Reading structured text: the tree, the positions and the visibility of any list of tokens, as generating it would
// have left them. The rules are those of generation (grammar.h); `scripts/multiverse` judges both.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "multiverse/dialect/dialect.h"
#include "multiverse/dialect/grammar.h"

namespace multiverse {

struct StructureLimits {
  std::int32_t max_running_paths = 0;  // 0 = the server's rows
  std::int32_t max_paths = 128;        // a fork
  // A sample, those read in its prompt included. A fork of n paths takes n of what its branch has left, and each path
  // gets an equal part of the rest for its own forks; what a path leaves is its parent's again after the join. So what
  // may fork never depends on which of several branches came first.
  std::int32_t max_total_paths = 1024;
  std::int32_t max_depth = 6;
  std::int32_t max_path_tokens = 0;  // own tokens of a path, 0 = the context
};

// (block in its branch, path in the block) from the root down, counted from 1. The root's is empty.
using BranchAddress = std::vector<std::int32_t>;

// "1.2/1.1" for {1, 2, 1, 1}; "" for the root.
std::string to_string(const BranchAddress& address);

// What grows along the chain of a branch. All values are of the next token that the branch gets; depth and steps count
// the tokens after the prompt only.
struct ChainState {
  std::int32_t position = 0;
  std::int64_t token_depth = 0;  // tokens before it on its longest chain
  std::int64_t step = 0;         // forward passes before it that sampled on its chain
};

// A fork whose join is still to come.
struct OpenFork {
  std::size_t block_depth = 0;     // Grammar::depth() of its block
  std::int32_t number = 0;         // of the fork in its branch, from 1
  std::int32_t fork_position = 0;  // P, of the fork token
  std::vector<std::string> labels;
  std::int32_t path_budget = 0;                      // of each path: see StructureLimits::max_total_paths
  std::vector<std::int32_t> path_view;               // segments that every path sees, the parent's own included
  std::int32_t started = 0;                          // paths begun in the text
  bool counted = false;                              // in the statistics, as a block
  std::int32_t last_position = 0;                    // greatest position of a </Path> so far (P where none)
  ChainState path_chain;                             // of the first token of every path
  std::int64_t join_token_depth = 0, join_step = 0;  // of the longest path so far
};

// Where a segment comes from; with its tokens it says all that its content depends on. Names segments.
struct Lineage {
  std::int32_t previous =
      -1;  // the branch's last segment, or its parent's where the branch begins; -1: the text's first
  bool begins_path = false;
  std::vector<std::int32_t> joined;  // the last segments of the paths that ended since `previous`
};

// A run of tokens of one branch with consecutive positions. `context`: the segments (indices) that it sees wholly, in
// text order; it sees itself causally.
struct TextSegment {
  std::int32_t begin = 0, end = 0;  // half-open range of the text
  std::int32_t first_position = 0;
  std::vector<std::int32_t> context;
  Lineage lineage;
  std::int32_t path = -1;       // whose it is: index into Structure::paths; -1: the root's
  std::int64_t first_step = 0;  // of its first token, as in ChainState
};

// A branch that the text leaves open.
struct OpenBranch {
  Grammar grammar{false};
  BranchAddress address;
  std::string label;
  std::vector<std::int32_t> context;  // closed segments that its next token sees, its own and joined ones included
  Lineage lineage;                    // of its next segment
  ChainState chain;
  std::int32_t num_tokens = 0;       // tokens that it has written, in all its segments
  std::int32_t forks = 0;            // so far: numbers its blocks
  std::int32_t paths_left = 0;       // that it may still begin, its descendants included
  std::vector<OpenFork> open_forks;  // outermost first. More than one only where a text forks between two paths
};

// Takes a fork of so many paths from what its branch has left, `left`; what each of them may begin in turn.
std::int32_t split_path_budget(std::int32_t& left, std::size_t paths);

struct TreeStatistics {
  std::int64_t blocks = 0, paths = 0;  // those that fork
  std::int64_t max_width = 0, max_depth = 0;
  std::int64_t critical_path_tokens = 0, steps = 0, malformed = 0;
};

// A path as it stands in the text: from its <Path> to the token after its end, its descendants' text included.
struct TextPath {
  BranchAddress address;
  std::string label;
  std::int32_t begin = 0, end = 0;
  std::int32_t own_tokens = 0;  // its descendants' left out
  bool ended = false;           // by a path_close; otherwise the text ends inside it
};

struct Structure {
  std::vector<TextSegment> segments;    // in text order; they partition the text
  std::vector<bool> forced;             // of each token: written by the engine, not drawn
  std::vector<TextPath> paths;          // in text order
  std::vector<std::int32_t> malformed;  // control tokens kept as ordinary ones
  std::vector<OpenBranch> open;         // root first, each a path of the one before
  bool path_ended = false;              // the innermost open branch has read its </Path>
  std::vector<std::int32_t> owed;       // what the engine still has to write to it: a separator, the rest of a header
  TreeStatistics statistics;            // of the text from `prompt_tokens` on
};

// Total and linear in the text but for the contexts of segments. `prompt_tokens` leading tokens are left out of the
// statistics.
Structure read_structure(std::span<const std::int32_t> tokens, const Dialect& dialect, const StructureLimits& limits,
                         std::int32_t prompt_tokens = 0);

// Plain causal text: one segment, nothing forced.
Structure plain_structure(std::int32_t num_tokens);

}  // namespace multiverse

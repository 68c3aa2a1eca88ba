// An answer that was written before, branch by branch, so that the engine can be made to write it again as if the model
// had drawn it.
#pragma once

#include <cstdint>
#include <map>
#include <span>
#include <vector>

#include "multiverse/base/status.h"
#include "multiverse/dialect/structure.h"
#include "multiverse/exec/step.h"

namespace multiverse {

// Immutable; any thread. A place is (address of a branch, index of a token among those that the branch itself wrote,
// the prompt's part included).
class Recording {
 public:
  // `text`: prompt and answer; its structure is read under `limits` (`dialect` null: it has none). Error where no
  // generation can have left it: the prompt ends inside a block's paths, or something stands between two paths.
  static Result<Recording> read(std::span<const TokenId> text, std::int32_t prompt_tokens, const Dialect* dialect,
                                const StructureLimits& limits);

  // The token at a place, -1 where the branch wrote no more.
  TokenId token(const BranchAddress& branch, std::int32_t index) const;
  // Where that token stands in the text; -1 likewise.
  std::int32_t text_index(const BranchAddress& branch, std::int32_t index) const;
  // Whether it was written by the engine.
  bool forced(const BranchAddress& branch, std::int32_t index) const;
  // Paths that the text has of the fork at this place; -1 where nothing forks.
  std::int32_t paths(const BranchAddress& branch, std::int32_t index) const;

  const std::vector<TokenId>& text() const { return text_; }
  std::int32_t prompt_tokens() const { return prompt_tokens_; }
  // Of the answer, as the reading of the text counts them.
  const TreeStatistics& statistics() const { return statistics_; }
  // Of the answer: the steps that one path at a time takes.
  std::int64_t drawn_tokens() const;

 private:
  struct Written {
    std::vector<std::int32_t> tokens;            // indices into the text
    std::map<std::int32_t, std::int32_t> forks;  // index of the fork's token among `tokens` → paths
  };

  std::vector<TokenId> text_;
  std::int32_t prompt_tokens_ = 0;
  std::vector<bool> forced_;
  TreeStatistics statistics_;
  std::map<BranchAddress, Written> branches_;
};

}  // namespace multiverse

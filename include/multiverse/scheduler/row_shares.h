// Who gets a step's rows where they don't suffice for all.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "multiverse/scheduler/planner.h"

namespace multiverse {

// Rows that one request could fill in a step.
struct RowDemand {
  std::int32_t decode = 0;   // rows of branches that decode, forced tokens included
  std::int32_t prefill = 0;  // tokens of prompts and of what is recomputed
  std::int64_t served = 0;   // tokens that it has had so far (kLeastServed)
};

enum class RowSharing {
  kEqual,        // each request the same, however many branches it has; what one leaves goes to the others
  kOldestFirst,  // in the order of the requests
  kByBranches,   // in proportion to what they could fill
  kLeastServed,  // those first that have had the fewest tokens
};

// Splits `most` so that no share exceeds its demand and none that is short of its demand is smaller than another (but
// for the remainder of the division, one each, which starts at the request `turn` and so goes round).
std::vector<std::int32_t> equal_shares(std::span<const std::int32_t> demands, std::int32_t most, std::int64_t turn);

// A budget for each request, in the order of `demands`: shares of most.prefill_rows for prefill (kEqual: half of them
// for the first request that has any, the other half divided among the others), then shares of most.rows for decode and
// prefill together.
void share_rows(std::span<const RowDemand> demands, const StepBudget& most, RowSharing sharing, std::int64_t turn,
                std::vector<StepBudget>& budgets);

}  // namespace multiverse

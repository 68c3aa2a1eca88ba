// A step's attention cut into what blocks of GPU threads do.
#pragma once

#include <cstdint>
#include <vector>

#include "multiverse/exec/step.h"
#include "multiverse/kernels/cuda/attention.h"

namespace multiverse {

struct AttentionCutting {
  std::int32_t group = 1;  // query heads for each KV head, at most kernels::cuda::kMaxTileRows
  std::int32_t num_kv_heads = 1;
  std::int32_t blocks = 1;     // of threads that share the work
  std::int64_t max_parts = 1;  // memory for so many (row, chunk) results; at least those of one row
  // Every run is cut at each kSplitTokens from its start and each row is computed alike, so that its bits depend on
  // its own context alone. Otherwise chunks are an even share of the
  // work.
  bool deterministic = false;
};

// The rows [row_begin, row_end) of a step; see kernels::cuda::AttentionPlan.
struct AttentionPass {
  std::vector<kernels::cuda::AttentionChunk> chunks;
  std::vector<std::int32_t> row_first, row_parts;
  std::int32_t row_begin = 0, row_end = 0;
};

// Rows from row_begin on, as many as max_parts allows.
AttentionPass plan_attention(const StepPlan& plan, const AttentionCutting& cutting, std::int32_t row_begin);

}  // namespace multiverse

// Segment attention on the GPU: a first kernel computes chunks of tokens against ranges of rows, a second merges each
// row's parts in context order.
#pragma once

#include "multiverse/kernels/cuda/cache.h"

namespace multiverse::kernels::cuda {

// (row, query head) pairs of a chunk, times query heads that share a KV head: the matrix instructions' rows.
inline constexpr int kMaxTileRows = 64;

// A run of tokens, for a few neighbouring rows: what one block of threads does, once for each KV head.
struct AttentionChunk {
  std::int32_t first_page = 0;  // index into AttentionPlan::pages
  std::int32_t num_tokens = 0;  // of those pages, from the first slot on
  std::int32_t num_old = 0;     // of those, from the first on: written before this step, so that they may be read early
  std::int32_t row_begin = 0;
  std::int32_t num_rows = 0;       // times the group ≤ kMaxTileRows
  std::int32_t first_limit = 0;    // tokens that row_begin sees: min(num_tokens, max(0, first_limit))
  std::int32_t causal = 0;         // 1: each next row sees one more; 0: all see as many
  std::int32_t part = 0;           // where row_begin's part goes; the other rows' parts follow
  std::int32_t warps_by_rows = 4;  // 1, 2, 4: 16 tile rows for each; the other warps share the tokens
};

// Sizes and places live in device memory, so that a captured graph serves every step.
struct AttentionPlan {
  const AttentionChunk* chunks = nullptr;
  const std::int32_t* pages = nullptr;
  const std::int32_t* row_first = nullptr;  // (rows + 1): row r's parts are row_parts[row_first[r] … row_first[r + 1])
  const std::int32_t* row_parts = nullptr;  // in context order
  std::int32_t num_chunks = 0;
  // Rows [row_begin, row_end) get their results, others stay: a step whose parts don't fit the memory for them goes
  // through its rows in several passes.
  std::int32_t row_begin = 0;
  std::int32_t row_end = 0;
};

struct AttentionShape {
  std::int32_t num_heads = 0;  // a multiple of num_kv_heads, at most kMaxTileRows times as many
  std::int32_t num_kv_heads = 0;
  std::int32_t head_dim = 0;  // 64 or 128
  CacheType cache = CacheType::kBf16;

  constexpr CacheLayout layout() const { return {num_kv_heads, head_dim, cache}; }
};

struct AttentionArgs {
  const Bf16* queries = nullptr;      // (rows, num_heads, head_dim)
  Bf16* out = nullptr;                // (rows, num_heads, head_dim)
  const unsigned char* kv = nullptr;  // one layer's, as CacheLayout says
  const AttentionPlan* plan = nullptr;
  float* part_values = nullptr;  // (parts, num_heads, head_dim): Σ 2^(score - largest) · value
  float* part_sums = nullptr;    // (parts, num_heads, 2): largest score (in base 2), Σ 2^(score - largest)
  std::int32_t max_rows = 0;     // ≥ the plan's row_end
  AttentionShape shape;
};

// softmax(q·k / sqrt(head_dim))·v. `blocks`: of the first kernel, which share the chunks; multiprocessors times 2. The
// plan and the old tokens' keys and values are read before what runs ahead in the stream has ended: only earlier steps
// may write them.
void segment_attention(const AttentionArgs& args, int blocks, Stream stream);

}  // namespace multiverse::kernels::cuda

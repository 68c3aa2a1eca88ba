// Segment attention on CPU: every row of a step against the runs of pages that it sees.
#pragma once

#include <cstddef>
#include <cstdint>

#include "multiverse/kernels/isa.h"
#include "multiverse/kernels/thread_pool.h"

namespace multiverse::kernels {

inline constexpr int kPageTokens = 16;  // as in exec/step.h

// (row, query head) pairs of a task: their state (74 KiB at head_dim 128) stays in a core's second-level cache. A group
// of query heads may not be larger.
inline constexpr int kMaxPairs = 128;

// One layer's keys and values. For each KV head a page holds the keys transposed (head_dim, 16) and then the values
// (16, padded_dim): so the scores of a page's 16 tokens are one vector, and so is a slice of the output. padded_dim is
// head_dim rounded up to 16; the padding is zero. A head's pages stand side by side, so that a run of neighbouring
// pages is one stream to the hardware's prefetcher. Slots that no span names are never read into a result.
struct PagedKv {
  float* base = nullptr;  // (num_kv_heads, num_pages, page_floats)
  std::int32_t num_pages = 0;
  std::int32_t num_kv_heads = 0;
  std::int32_t head_dim = 0;  // a multiple of 8

  std::int32_t padded_dim() const { return (head_dim + 15) / 16 * 16; }
  std::size_t page_floats() const {  // of one KV head
    return static_cast<std::size_t>(kPageTokens) * static_cast<std::size_t>(head_dim + padded_dim());
  }
  float* page(std::int32_t page_id, std::int32_t kv_head) const {
    return base + (static_cast<std::size_t>(kv_head) * static_cast<std::size_t>(num_pages) +
                   static_cast<std::size_t>(page_id)) *
                      page_floats();
  }
  // key, value: (num_kv_heads, head_dim)
  void write(std::int32_t page_id, std::int32_t offset, const float* key, const float* value) const;
};

// As AttentionItem of exec/step.h: tokens [0, num_tokens) of the pages from `first_page` on, for rows
// [row_begin, row_end); causal: row r sees the first num_tokens - (row_end - 1 - r).
struct AttentionSpan {
  std::int32_t first_page = 0;
  std::int32_t num_tokens = 0;
  std::int32_t row_begin = 0;
  std::int32_t row_end = 0;
  bool causal = false;
};

struct AttentionArgs {
  const float* queries = nullptr;  // (num_rows, num_heads, head_dim), rows `query_stride` floats apart
  float* out = nullptr;            // (num_rows, num_heads, head_dim), rows `out_stride` floats apart
  std::int64_t query_stride = 0;
  std::int64_t out_stride = 0;
  std::int32_t num_rows = 0;
  std::int32_t num_heads = 0;  // a multiple of num_kv_heads
  PagedKv kv;
  const std::int32_t* pages = nullptr;
  const AttentionSpan* spans = nullptr;
  std::int32_t num_spans = 0;
};

// Floats of scratch that one thread needs.
std::size_t attention_scratch_floats(std::int32_t head_dim);

// softmax(q·k / sqrt(head_dim))·v over all that each row's spans show, in float32. Each row sees at least one token.
// scratch: pool.size() times attention_scratch_floats().
//
// A row's result is a left fold over the pages that it sees, in context order, whatever else is in the step: the same
// bits alone or in a batch, in one step or chunked over many, and however a run is cut into spans, as long as the cuts
// are at page borders. A page is loaded once for all query heads and for the rows of a block
// (kMaxPairs / group rows, fewer where threads would stand idle).
void segment_attention(const AttentionArgs& args, float* scratch, Isa isa, ThreadPool& pool);

}  // namespace multiverse::kernels

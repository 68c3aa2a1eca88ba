#include "multiverse/kernels/attention.h"

#include <algorithm>
#include <cstring>

#include "kernel_table.h"

namespace multiverse::kernels {
namespace {

// Rows of a task: as many as share a page's load within kMaxPairs, but few enough that every thread has one.
std::int32_t block_rows(const AttentionArgs& args, int threads) {
  const std::int32_t group = args.num_heads / args.kv.num_kv_heads;
  const std::int32_t most = std::max(1, kMaxPairs / group);
  const std::int32_t blocks = std::max(1, (threads + args.kv.num_kv_heads - 1) / args.kv.num_kv_heads);
  return std::clamp((args.num_rows + blocks - 1) / blocks, 1, most);
}

}  // namespace

void PagedKv::write(std::int32_t page_id, std::int32_t offset, const float* key, const float* value) const {
  for (std::int32_t head = 0; head < num_kv_heads; ++head, key += head_dim, value += head_dim) {
    float* keys = page(page_id, head);
    for (std::int32_t d = 0; d < head_dim; ++d) keys[d * kPageTokens + offset] = key[d];
    float* values = keys + head_dim * kPageTokens + offset * padded_dim();
    std::memcpy(values, value, static_cast<std::size_t>(head_dim) * sizeof(float));
  }
}

std::size_t attention_scratch_floats(std::int32_t head_dim) {
  const PagedKv kv{nullptr, 0, 1, head_dim};
  return static_cast<std::size_t>(kMaxPairs) * static_cast<std::size_t>(17 + kv.padded_dim());
}

void segment_attention(const AttentionArgs& args, float* scratch, Isa isa, ThreadPool& pool) {
  const KernelTable& kernels = kernel_table(isa);
  const std::int32_t rows = block_rows(args, pool.size());
  const std::int32_t blocks = (args.num_rows + rows - 1) / rows;
  const std::size_t stride = attention_scratch_floats(args.kv.head_dim);
  pool.for_each(std::int64_t{blocks} * args.kv.num_kv_heads, [&](std::int64_t task, int thread) {
    // Last rows first: in a prefill they see most, and the longest task should not start last.
    const auto block = blocks - 1 - static_cast<std::int32_t>(task / args.kv.num_kv_heads);
    const auto kv_head = static_cast<std::int32_t>(task % args.kv.num_kv_heads);
    kernels.attention_block(args, kv_head, block * rows, std::min(args.num_rows, (block + 1) * rows),
                            scratch + static_cast<std::size_t>(thread) * stride);
  });
}

}  // namespace multiverse::kernels

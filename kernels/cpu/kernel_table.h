// What each instruction set's translation unit provides.
#pragma once

#include <cstdint>

#include "multiverse/kernels/attention.h"
#include "multiverse/kernels/elementwise.h"
#include "multiverse/kernels/linear.h"

namespace multiverse::kernels {

// Rows of a linear task: its inputs (at 1,024 a row, 384 KiB) stay in a core's second-level cache for a panel's blocks.
inline constexpr int kLinearBlockRows = 96;

struct KernelTable {
  // One panel of outputs for `rows` ≤ kLinearBlockRows rows from `row` on.
  void (*linear_panel)(const PackedMatrix& weights, const LinearArgs& args, std::int64_t panel, std::int64_t row,
                       std::int64_t rows);
  // One KV head for rows [row_begin, row_end), of at most kMaxPairs pairs. scratch: see attention_scratch_floats.
  void (*attention_block)(const AttentionArgs& args, std::int32_t kv_head, std::int32_t row_begin, std::int32_t row_end,
                          float* scratch);
  void (*rms_norm)(const float* x, const float* weight, float eps, std::int64_t size, float* out);
  SoftmaxSum (*softmax_sum)(const float* x, std::int64_t size);
  float (*multiply_add_rounds)(std::int64_t rounds);
};

extern const KernelTable kPortableKernels;
#if defined(__x86_64__)
extern const KernelTable kAvx2Kernels;
extern const KernelTable kAvx512Kernels;
#endif

const KernelTable& kernel_table(Isa isa);

}  // namespace multiverse::kernels

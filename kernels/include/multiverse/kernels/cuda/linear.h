// Linear layers for few rows on the GPU: y = x·Wᵀ, bound by reading W once.
#pragma once

#include "multiverse/kernels/cuda/stream.h"

namespace multiverse::kernels::cuda {

// Rows that one pass over W serves.
inline constexpr int kLinearRows = 16;

enum class LinearOutput {
  kBf16,     // y = x·Wᵀ
  kFloat,    // the same in float32
  kAdd,      // y (float32) += x·Wᵀ: the residual
  kSiluMul,  // W's rows come in blocks of 8 gates and 8 ups: y (rows, outputs / 2) = silu(gate)·up, bfloat16
};

struct LinearArgs {
  const Bf16* x = nullptr;        // (rows, inputs), 16-byte aligned
  const Bf16* weights = nullptr;  // (outputs, inputs), 16-byte aligned
  void* y = nullptr;              // (rows, outputs)
  std::int32_t rows = 0;
  std::int32_t outputs = 0;
  std::int32_t inputs = 0;  // a multiple of 8
  LinearOutput output = LinearOutput::kBf16;
};

// Any number of rows, kLinearRows in a pass. A row's result does not depend on the other rows: the order of its sum is
// fixed by `inputs` and `outputs`.
void linear(const LinearArgs& args, Stream stream);

}  // namespace multiverse::kernels::cuda

// Linear layers for few rows on the GPU: y = x·Wᵀ, bound by reading W once.
#pragma once

#include "multiverse/kernels/cuda/layers.h"
#include "multiverse/kernels/cuda/stream.h"

namespace multiverse::kernels::cuda {

enum class LinearOutput {
  kBf16,     // y = x·Wᵀ
  kFloat,    // the same in float32
  kAdd,      // y (float32) += x·Wᵀ: the residual
  kSiluMul,  // W's rows come in blocks of 8 gates and 8 ups: y (rows, outputs / 2) = silu(gate)·up, bfloat16
  kHeads,    // the fused projection to queries, keys and values, in the order of QkvArgs::qkv: what split_qkv() does
};

// How a layer is divided among blocks of threads.
enum class LinearMethod {
  kTiles,   // each 16 outputs by a block of their own: best for small layers; 16 rows in a pass over W
  kShares,  // even shares of the weights, whatever outputs they belong to: best for large ones; 64 rows
};

// Where blocks that share a tile of outputs leave their sums.
struct LinearScratch {
  float* partials = nullptr;         // linear_partials(blocks)
  std::int32_t* arrivals = nullptr;  // linear_arrivals(the most outputs), zero before the first call and after each
  std::int32_t blocks = 0;           // among which a layer is divided: multiprocessors
};
std::int64_t linear_partials(std::int32_t blocks);
std::int64_t linear_arrivals(std::int32_t max_outputs);

struct LinearArgs {
  const Bf16* x = nullptr;        // (rows, inputs), 16-byte aligned
  const Bf16* weights = nullptr;  // (outputs, inputs), 16-byte aligned
  void* y = nullptr;              // (rows, outputs)
  std::int32_t rows = 0;
  std::int32_t outputs = 0;
  std::int32_t inputs = 0;  // a multiple of 8
  LinearOutput output = LinearOutput::kBf16;
  LinearMethod method = LinearMethod::kShares;
  LinearScratch scratch;  // of kShares
  QkvArgs heads;          // of kHeads, without `qkv` and norms
};

// Any number of rows. A row's result does not depend on the other rows: the order of its sum is fixed by method,
// `inputs`, `outputs` and `scratch.blocks`.
void linear(const LinearArgs& args, Stream stream);

}  // namespace multiverse::kernels::cuda

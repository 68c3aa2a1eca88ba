// Linear layers on CPU: y = x·Wᵀ + b in float32, over weights packed in panels of 32 outputs.
#pragma once

#include <cstddef>
#include <cstdint>

#include "multiverse/kernels/isa.h"
#include "multiverse/kernels/thread_pool.h"

namespace multiverse::kernels {

inline constexpr int kPanelOutputs = 32;

enum class WeightType { kFloat32, kBFloat16 };

// W (outputs, inputs), packed: panel p holds outputs [32p, 32p+32), input by input; outputs beyond the last are zero.
// float32: 32 floats an input. bfloat16: 16 words an input, word j with output j in its low half and output j + 16 in
// its high half, so that widening takes one shift and one mask.
struct PackedMatrix {
  const void* data = nullptr;  // 64-byte aligned
  WeightType type = WeightType::kFloat32;
  std::int64_t outputs = 0;
  std::int64_t inputs = 0;

  std::int64_t panels() const { return (outputs + kPanelOutputs - 1) / kPanelOutputs; }
  std::size_t bytes() const {
    return static_cast<std::size_t>(panels() * kPanelOutputs * inputs) * (type == WeightType::kFloat32 ? 4U : 2U);
  }
};

std::uint16_t to_bfloat16(float value);  // round to nearest even; NaN stays NaN
float from_bfloat16(std::uint16_t bits);

// Writes one row of W (its `inputs` values) to its place in `data`, which has PackedMatrix::bytes() bytes, zeroed.
void pack_row(const PackedMatrix& shape, void* data, std::int64_t output, const float* values);
// Reads it back: the embedding of a token where the output layer shares its weights.
void unpack_row(const PackedMatrix& matrix, std::int64_t output, float* values);

enum class Epilogue {
  kStore,    // y = x·Wᵀ + b
  kAdd,      // y += x·Wᵀ + b: the residual
  kSiluMul,  // outputs come in blocks of 16 gates, 16 ups: y (rows, outputs / 2) = silu(gate)·up
};

struct LinearArgs {
  const float* x = nullptr;     // (rows, inputs), rows x_stride floats apart
  const float* bias = nullptr;  // (panels() · 32), or none
  float* y = nullptr;           // (rows, outputs; kSiluMul: y_columns), rows y_stride floats apart
  std::int64_t rows = 0;
  std::int64_t x_stride = 0;
  std::int64_t y_stride = 0;
  std::int64_t y_columns = 0;  // columns of y to write; what a padded last panel holds beyond them is dropped
  Epilogue epilogue = Epilogue::kStore;
};

// Each element of y is one chain of fused multiply-adds over the inputs in order, so a row's result never depends on
// the other rows, nor on the number of threads; AVX2 and AVX-512 give the same bits.
void linear(const PackedMatrix& weights, const LinearArgs& args, Isa isa, ThreadPool& pool);

}  // namespace multiverse::kernels

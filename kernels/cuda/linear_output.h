// Where a linear layer's results go.
#pragma once

#include <type_traits>

#include "multiverse/kernels/cuda/linear.h"

#include "elements.h"

namespace multiverse::kernels::cuda {
namespace {

// A pair of outputs of `row`, eight apart: elements i and i + head_dim / 2 of a head. The cache is of 16 bits.
__device__ __forceinline__ void store_head_pair(const QkvArgs& args, int row, int output, float low, float high) {
  const int head = output / args.head_dim, i = output % args.head_dim / 16 * 8 + output % 8;
  std::uint16_t* place = head_place(args, row, head);
  if (place == nullptr) return;
  add_head_bias(args, head, i, low, high);
  rotate(args, row, head, i, low, high);
  store_pair(args, place, head, i, low, high);
}

// The results of `row` for `output` and output + 8; output % 16 < 8.
template <LinearOutput kOutput>
__device__ __forceinline__ void store_outputs(const LinearArgs& args, int row, int output, float low, float high) {
  if (output >= args.outputs) return;
  if constexpr (kOutput == LinearOutput::kSiluMul) {
    const std::int64_t place = std::int64_t{row} * (args.outputs / 2) + output / 16 * 8 + output % 8;
    static_cast<Bf16*>(args.y)[place] = to_bf16(silu(low) * high);
  } else if constexpr (kOutput == LinearOutput::kHeads) {
    store_head_pair(args.heads, row, output, low, high);
  } else {
    const std::int64_t place = std::int64_t{row} * args.outputs + output;
    const auto put = [&](std::int64_t at, float value) {
      if constexpr (kOutput == LinearOutput::kBf16) {
        static_cast<Bf16*>(args.y)[at] = to_bf16(value);
      } else if constexpr (kOutput == LinearOutput::kFloat) {
        static_cast<float*>(args.y)[at] = value;
      } else {
        static_cast<float*>(args.y)[at] += value;
      }
    };
    put(place, low);
    if (output + 8 < args.outputs) put(place + 8, high);
  }
}

// Calls run(constant of type std::integral_constant<LinearOutput, output>).
template <class Run>
void with_output(LinearOutput output, const Run& run) {
  switch (output) {
    case LinearOutput::kBf16:
      return run(std::integral_constant<LinearOutput, LinearOutput::kBf16>());
    case LinearOutput::kFloat:
      return run(std::integral_constant<LinearOutput, LinearOutput::kFloat>());
    case LinearOutput::kAdd:
      return run(std::integral_constant<LinearOutput, LinearOutput::kAdd>());
    case LinearOutput::kSiluMul:
      return run(std::integral_constant<LinearOutput, LinearOutput::kSiluMul>());
    case LinearOutput::kHeads:
      return run(std::integral_constant<LinearOutput, LinearOutput::kHeads>());
  }
}

}  // namespace

// The two ways; see LinearMethod. args.rows at most what one pass serves.
inline constexpr std::int32_t kTileRows = 16, kShareRows = 64;
void linear_by_tiles(const LinearArgs& args, Stream stream);
void linear_by_shares(const LinearArgs& args, Stream stream);

}  // namespace multiverse::kernels::cuda

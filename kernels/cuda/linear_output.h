// Where a linear layer's results go.
#pragma once

#include "multiverse/kernels/cuda/linear.h"

#include "device.h"

namespace multiverse::kernels::cuda {
namespace {

__device__ __forceinline__ float silu(float x) {
  return x / (1.0F + exp2_fast(-1.44269504088896341F * x));
}
__device__ __forceinline__ Bf16 to_bf16(float x) {
  return static_cast<Bf16>(pack_bf16(x, 0.0F));
}

// A pair of outputs of `row`, eight apart: elements i and i + head_dim / 2 of a head.
__device__ __forceinline__ void store_rotated(const QkvArgs& args, int row, int output, float low, float high) {
  const int head = output / args.head_dim, half = args.head_dim / 2;
  const int i = output % args.head_dim / 16 * 8 + output % 8;
  const bool is_query = head < args.num_heads, is_value = head >= args.num_heads + args.num_kv_heads;
  if (args.bias != nullptr) {
    low += args.bias[head * args.head_dim + i];
    high += args.bias[head * args.head_dim + half + i];
  }
  Bf16* to = args.queries + (std::int64_t{row} * args.num_heads + head) * args.head_dim;
  if (!is_query) {
    const int slot = args.slots[row];
    if (slot < 0) return;
    to = args.kv + cache_place(slot, head - args.num_heads, args.num_kv_heads, args.head_dim);
  }
  const float cosine = is_value ? 1.0F : args.angles[std::int64_t{row} * args.head_dim + i];
  const float sine = is_value ? 0.0F : args.angles[std::int64_t{row} * args.head_dim + half + i];
  to[i] = to_bf16(low * cosine - high * sine);
  to[i + half] = to_bf16(high * cosine + low * sine);
}

// The results of `row` for `output` and output + 8; output % 16 < 8.
template <LinearOutput kOutput>
__device__ __forceinline__ void store_outputs(const LinearArgs& args, int row, int output, float low, float high) {
  if (output >= args.outputs) return;
  if constexpr (kOutput == LinearOutput::kSiluMul) {
    const std::int64_t place = std::int64_t{row} * (args.outputs / 2) + output / 16 * 8 + output % 8;
    static_cast<Bf16*>(args.y)[place] = to_bf16(silu(low) * high);
  } else if constexpr (kOutput == LinearOutput::kHeads) {
    store_rotated(args.heads, row, output, low, high);
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

}  // namespace

// The two ways; see LinearMethod. args.rows at most what one pass serves.
inline constexpr std::int32_t kTileRows = 16, kShareRows = 64;
void linear_by_tiles(const LinearArgs& args, Stream stream);
void linear_by_shares(const LinearArgs& args, Stream stream);

}  // namespace multiverse::kernels::cuda

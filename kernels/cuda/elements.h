// What several kernels do with single elements.
#pragma once

#include "multiverse/kernels/cuda/layers.h"

#include "device.h"

namespace multiverse::kernels::cuda {
namespace {

__device__ __forceinline__ Bf16 to_bf16(float x) {
  return static_cast<Bf16>(pack_bf16(x, 0.0F));
}
__device__ __forceinline__ float silu(float x) {
  return x / (1.0F + exp2_fast(-1.44269504088896341F * x));
}

// To elements i and i + head_dim / 2 of a head.
__device__ __forceinline__ void add_head_bias(const QkvArgs& args, int head, int i, float& low, float& high) {
  if (args.bias == nullptr) return;
  low += args.bias[head * args.head_dim + i];
  high += args.bias[head * args.head_dim + args.head_dim / 2 + i];
}

// Elements i and i + head_dim / 2 of a head, turned by the row's angle; a value's stay as they are.
__device__ __forceinline__ void rotate(const QkvArgs& args, int row, int head, int i, float& low, float& high) {
  if (head >= args.num_heads + args.num_kv_heads) return;
  const float cosine = args.angles[std::int64_t{row} * args.head_dim + i];
  const float sine = args.angles[std::int64_t{row} * args.head_dim + args.head_dim / 2 + i];
  const float turned = low * cosine - high * sine;
  high = high * cosine + low * sine;
  low = turned;
}

// Where a head of `row` in 16-bit numbers goes: among the queries or into the cache; nowhere: a row of padding's key or
// value.
__device__ __forceinline__ std::uint16_t* head_place(const QkvArgs& args, int row, int head) {
  if (head < args.num_heads) return args.queries + (std::int64_t{row} * args.num_heads + head) * args.head_dim;
  const int slot = args.slots[row];
  if (slot < 0) return nullptr;
  return reinterpret_cast<std::uint16_t*>(args.kv + args.layout().place(slot, head - args.num_heads));
}

// Elements i and i + head_dim / 2 to a `head_place`.
__device__ __forceinline__ void store_pair(const QkvArgs& args, std::uint16_t* place, int head, int i, float low,
                                           float high) {
  const bool fp16 = args.cache == CacheType::kFp16 && head >= args.num_heads;
  const unsigned both = fp16 ? pack_fp16(low, high) : pack_bf16(low, high);
  place[i] = static_cast<std::uint16_t>(both);
  place[i + args.head_dim / 2] = static_cast<std::uint16_t>(both >> 16);
}

}  // namespace
}  // namespace multiverse::kernels::cuda

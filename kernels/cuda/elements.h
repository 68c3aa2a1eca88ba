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

// Where a head of `row` goes: among the queries or into the cache; nowhere: a row of padding's key or value.
__device__ __forceinline__ Bf16* head_place(const QkvArgs& args, int row, int head) {
  if (head < args.num_heads) return args.queries + (std::int64_t{row} * args.num_heads + head) * args.head_dim;
  const int slot = args.slots[row];
  if (slot < 0) return nullptr;
  return args.kv + cache_place(slot, head - args.num_heads, args.num_kv_heads, args.head_dim);
}

// Elements i and i + head_dim / 2 of a head, turned by the row's angle (a value's stay as they are), to `head_place`.
__device__ __forceinline__ void store_rotated(const QkvArgs& args, Bf16* place, int row, int head, int i, float low,
                                              float high) {
  const int half = args.head_dim / 2;
  const bool is_value = head >= args.num_heads + args.num_kv_heads;
  const float cosine = is_value ? 1.0F : args.angles[std::int64_t{row} * args.head_dim + i];
  const float sine = is_value ? 0.0F : args.angles[std::int64_t{row} * args.head_dim + half + i];
  place[i] = to_bf16(low * cosine - high * sine);
  place[i + half] = to_bf16(high * cosine + low * sine);
}

}  // namespace
}  // namespace multiverse::kernels::cuda

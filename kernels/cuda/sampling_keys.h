// What sampling's kernels share: the order of tokens, sums over a block, and one token's chance in a draw.
#pragma once

#include <cfloat>
#include <cmath>

#include "multiverse/kernels/cuda/sampling.h"
#include "multiverse/kernels/philox.h"

#include "device.h"

namespace multiverse::kernels::cuda {
namespace {

constexpr int kThreads = 1024;
constexpr int kWarps = kThreads / 32;
constexpr int kSliceThreads = kSampleBins;
constexpr int kBins = kSampleBins;               // also of a digit of 8 bits
constexpr double kWeightOne = 17592186044416.0;  // 2⁴⁴: a vocabulary's sum stays below 2⁶⁴

// The greatest and the least -log(-log u) over the uniforms of philox_uniform, 2⁻³³ and 1 - 2⁻³³.
constexpr double kMaxGumbel = 22.88;
constexpr double kMinGumbel = -3.14;

using Key = unsigned long long;

__device__ Key order_of(float logit) {                                // rises with the logit
  const unsigned bits = float_as_uint(logit == 0.0F ? 0.0F : logit);  // -0 equals 0
  return (bits & 0x80000000U) != 0 ? ~bits : bits | 0x80000000U;
}
__device__ Key key_of(float logit, int token) {  // greatest first, the lowest id first among equals
  return order_of(logit) << 32 | (0xFFFFFFFFU - static_cast<unsigned>(token));
}
__device__ int token_of(Key key) {
  return static_cast<int>(0xFFFFFFFFU - static_cast<unsigned>(key & 0xFFFFFFFFU));
}

// Over the warps of the block, through `shared`, one entry for each.
__device__ Key max_block(Key value, Key* shared) {
  for (int mask = 16; mask > 0; mask /= 2) {
    const Key other = exchange(value, mask);
    if (other > value) value = other;
  }
  sync_block();  // readers of the last result are done
  if (threadIdx.x % 32 == 0) shared[threadIdx.x / 32] = value;
  sync_block();
  for (int warp = 0; warp < static_cast<int>(blockDim.x) / 32; ++warp) {
    if (shared[warp] > value) value = shared[warp];
  }
  return value;
}

__device__ double sum_block(double value, double* shared) {
  for (int mask = 16; mask > 0; mask /= 2) value += exchange(value, mask);
  sync_block();
  if (threadIdx.x % 32 == 0) shared[threadIdx.x / 32] = value;
  sync_block();
  double total = 0.0;
  for (int warp = 0; warp < static_cast<int>(blockDim.x) / 32; ++warp) total += shared[warp];
  return total;
}

// Logits by their distance from the greatest, in eighths of the temperature; what lies further than 32 is one bin.
struct Distance {
  float top, temperature;

  __device__ int bin(float logit) const {
    const float distance = (top - logit) / temperature * 8.0F;
    return distance < kBins - 1 ? static_cast<int>(distance) : kBins - 1;
  }
};

__device__ __forceinline__ bool has_top_k(const SampleTask& task, int size) {
  return task.top_k > 0 && task.top_k < size;
}
__device__ __forceinline__ bool is_drawn(const SampleTask& task) {
  return task.given < 0 && task.temperature > 0.0F;
}
__device__ __forceinline__ bool is_filtered(const SampleTask& task, int size) {
  return is_drawn(task) && (has_top_k(task, size) || task.top_p < 1.0F);
}

// Of all slices of a draw; what filters and draws compare with.
__device__ __forceinline__ Key greatest_adjusted(const SampleSlice* slices) {
  Key greatest = 0;
  for (int i = 0; i < kSampleSlices; ++i) {
    if (slices[i].greatest_adjusted > greatest) greatest = slices[i].greatest_adjusted;
  }
  return greatest;
}

// The likeliest token's is kWeightOne. Below -31 the weight is less than one: no need to compute it.
__device__ __forceinline__ Key weight_of(float logit, float top, float temperature) {
  const double scaled = (static_cast<double>(logit) - static_cast<double>(top)) / static_cast<double>(temperature);
  return scaled < -31.0 ? Key{0} : static_cast<Key>(exp(scaled) * kWeightOne);
}

// The weight that a nucleus of `top_p` must reach.
__device__ __forceinline__ Key wanted_of(float top_p, Key total) {
  const Key wanted = static_cast<Key>(ceil(static_cast<double>(top_p) * static_cast<double>(total)));
  return wanted < 1 ? 1 : wanted > total ? total : wanted;
}

// The best of the tokens that were offered to it, by logit / temperature - log(-log u), as exec/step.h defines a draw.
struct Drawing {
  const SampleTask& task;
  float top;
  double floor;  // of (logit - top) / temperature
  double best = -INFINITY;
  int token = 0x7FFFFFFF;

  __device__ Drawing(const SampleTask& of, float top_logit) : task(of), top(top_logit) {
    // Tokens so far below the greatest that even the luckiest draw loses to its unluckiest are not tried.
    floor = kMinGumbel - kMaxGumbel;
    if (task.min_p > 0.0F) floor = fmax(floor, log(static_cast<double>(task.min_p)));
  }

  __device__ void take(double value, int of) {
    if (value > best || (value == best && of < token)) {
      best = value;
      token = of;
    }
  }

  __device__ void offer(float logit, int of) {
    constexpr float kMargin = 1e-2F;  // what the estimates in float32 may err by, with room
    if (!((logit - top) / task.temperature >= static_cast<float>(floor) - kMargin)) return;
    const double scaled =
        (static_cast<double>(logit) - static_cast<double>(top)) / static_cast<double>(task.temperature);
    if (!(scaled >= floor)) return;
    const double uniform = philox_uniform(task.seed, task.branch, task.index, static_cast<std::uint32_t>(of));
    const float rest = static_cast<float>(1.0 - uniform);
    const float negative_log = rest < 0.5F ? -log1pf(-rest) : -logf(static_cast<float>(uniform));
    if (static_cast<double>(static_cast<float>(scaled) - logf(negative_log) + kMargin) < best) return;
    take(scaled - log(-log(uniform)), of);
  }

  // The best of all threads, in all of them. The arrays have an entry for each warp.
  __device__ void join_block(double* values, int* tokens) {
    for (int mask = 16; mask > 0; mask /= 2) {
      const double value = exchange(best, mask);
      const int other = exchange(token, mask);
      take(value, other);
    }
    sync_block();
    if (threadIdx.x % 32 == 0) {
      values[threadIdx.x / 32] = best;
      tokens[threadIdx.x / 32] = token;
    }
    sync_block();
    for (int warp = 0; warp < static_cast<int>(blockDim.x) / 32; ++warp) take(values[warp], tokens[warp]);
  }
};

}  // namespace
}  // namespace multiverse::kernels::cuda

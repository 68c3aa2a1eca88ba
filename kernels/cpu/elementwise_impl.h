// Row operations for one instruction set; see math_impl.h for the rules of inclusion.
#pragma once

#include "kernel_table.h"
#include "math_impl.h"

// Offsets within a page, a block or a panel: far below 2³¹.
// NOLINTBEGIN(bugprone-implicit-widening-of-multiplication-result)
namespace {

inline void rms_norm_row(const float* x, const float* weight, float eps, std::int64_t size, float* out) {
  V16 squares = zero();
  std::int64_t i = 0;
  for (; i + 16 <= size; i += 16) squares = fma(load(x + i), load(x + i), squares);
  float sum = reduce_add(squares);
  for (std::int64_t j = i; j < size; ++j) sum += x[j] * x[j];
  const float scale = 1.0F / __builtin_sqrtf(sum / static_cast<float>(size) + eps);
  i = 0;
  for (; i + 16 <= size; i += 16) store(out + i, mul(mul(load(x + i), set1(scale)), load(weight + i)));
  for (; i < size; ++i) out[i] = x[i] * scale * weight[i];
}

inline multiverse::kernels::SoftmaxSum softmax_sum_row(const float* x, std::int64_t size) {
  V16 largest = set1(x[0]);
  std::int64_t i = 0;
  for (; i + 16 <= size; i += 16) largest = max(load(x + i), largest);
  float limit = reduce_max(largest);
  for (std::int64_t j = i; j < size; ++j) limit = larger(limit, x[j]);

  double sum = 0.0;
  std::int64_t tail = 0;
  alignas(64) float rest[16];
  // Lanes are summed in float over at most 32 vectors, then in double: the error stays that of the exponentials.
  while (tail < size) {
    V16 partial = zero();
    for (int n = 0; n < 32 && tail < size; ++n, tail += 16) {
      V16 value;
      if (tail + 16 <= size) {
        value = load(x + tail);
      } else {
        for (int j = 0; j < 16; ++j) rest[j] = tail + j < size ? x[tail + j] : -__builtin_inff();
        value = load(rest);
      }
      partial = add(partial, exp2(mul(sub(value, set1(limit)), set1(kLog2E))));
    }
    alignas(64) float lanes[16];
    store(lanes, partial);
    for (float lane : lanes) sum += static_cast<double>(lane);
  }
  return {limit, sum};
}

inline float multiply_add_chains(std::int64_t rounds) {
  Vectors<6> sum;
  for (int i = 0; i < 6; ++i) sum[i] = set1(static_cast<float>(i));
  for (std::int64_t round = 0; round < rounds; ++round) {
    for (int i = 0; i < 6; ++i) sum[i] = fma(sum[i], set1(0.999F), set1(0.001F));
  }
  for (int i = 1; i < 6; ++i) sum[0] = add(sum[0], sum[i]);
  return reduce_add(sum[0]);
}

}  // namespace
// NOLINTEND(bugprone-implicit-widening-of-multiplication-result)

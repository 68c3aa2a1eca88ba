// The small operations between the linear layers, on CPU, one row at a time.
#pragma once

#include <cstdint>

#include "multiverse/kernels/isa.h"

namespace multiverse::kernels {

// out = x / sqrt(mean(x²) + eps) · weight. out may be x. (Zhang and Sennrich 2019)
void rms_norm(const float* x, const float* weight, float eps, std::int64_t size, float* out, Isa isa);

// Rotates `heads` heads of (head_dim) in place: elements i and i + head_dim/2 form a pair, turned by the angle whose
// cosine and sine are at [i]. (Su et al. 2021, in Hugging Face's order of elements)
void rotate_heads(float* heads, std::int64_t num_heads, std::int64_t head_dim, const float* cosine, const float* sine);

// max(x) and Σ exp(x - max(x)). NaN anywhere gives a sum that is NaN.
struct SoftmaxSum {
  float max = 0.0F;
  double sum = 0.0;
};
SoftmaxSum softmax_sum(const float* x, std::int64_t size, Isa isa);

// `rounds` times six independent multiply-adds of sixteen floats: what benchmarks measure the arithmetic ceiling with.
inline constexpr int kMultiplyAddFlops = 6 * 16 * 2;  // a round
float multiply_add_rounds(std::int64_t rounds, Isa isa);

}  // namespace multiverse::kernels

// Sixteen floats in two AVX2 registers. Included by *_avx2.cpp only; see kernels_impl.h.
#pragma once

#include <immintrin.h>

#include <cstdint>

namespace {

struct V16 {
  __m256 lo, hi;
};

// As in vec_avx512.h, for 16 registers of 8 floats.
constexpr int kLinearRows = 6, kLinearVectors = 1, kScorePairs = 2, kOutputPairs = 2, kOutputVectors = 2;

inline V16 zero() {
  return {_mm256_setzero_ps(), _mm256_setzero_ps()};
}
inline V16 set1(float x) {
  return {_mm256_set1_ps(x), _mm256_set1_ps(x)};
}
inline V16 load(const float* p) {
  return {_mm256_loadu_ps(p), _mm256_loadu_ps(p + 8)};
}
inline void store(float* p, V16 a) {
  _mm256_storeu_ps(p, a.lo);
  _mm256_storeu_ps(p + 8, a.hi);
}
inline V16 add(V16 a, V16 b) {
  return {_mm256_add_ps(a.lo, b.lo), _mm256_add_ps(a.hi, b.hi)};
}
inline V16 sub(V16 a, V16 b) {
  return {_mm256_sub_ps(a.lo, b.lo), _mm256_sub_ps(a.hi, b.hi)};
}
inline V16 mul(V16 a, V16 b) {
  return {_mm256_mul_ps(a.lo, b.lo), _mm256_mul_ps(a.hi, b.hi)};
}
inline V16 div(V16 a, V16 b) {
  return {_mm256_div_ps(a.lo, b.lo), _mm256_div_ps(a.hi, b.hi)};
}
inline V16 max(V16 a, V16 b) {
  return {_mm256_max_ps(a.lo, b.lo), _mm256_max_ps(a.hi, b.hi)};
}
inline V16 min(V16 a, V16 b) {
  return {_mm256_min_ps(a.lo, b.lo), _mm256_min_ps(a.hi, b.hi)};
}
inline V16 fma(V16 a, V16 b, V16 c) {
  return {_mm256_fmadd_ps(a.lo, b.lo, c.lo), _mm256_fmadd_ps(a.hi, b.hi, c.hi)};
}
inline V16 round(V16 a) {
  constexpr int mode = _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC;
  return {_mm256_round_ps(a.lo, mode), _mm256_round_ps(a.hi, mode)};
}
// a · 2ⁿ for whole n in [-126, 127]
inline V16 scale_by_power(V16 a, V16 n) {
  const __m256i bias = _mm256_set1_epi32(127);
  const __m256i lo = _mm256_slli_epi32(_mm256_add_epi32(_mm256_cvtps_epi32(n.lo), bias), 23);
  const __m256i hi = _mm256_slli_epi32(_mm256_add_epi32(_mm256_cvtps_epi32(n.hi), bias), 23);
  return {_mm256_mul_ps(a.lo, _mm256_castsi256_ps(lo)), _mm256_mul_ps(a.hi, _mm256_castsi256_ps(hi))};
}
// 0 where x < limit, else a; max and min give their second operand where either is NaN
inline V16 zero_below(V16 a, V16 x, float limit) {
  const __m256 bound = _mm256_set1_ps(limit);
  return {_mm256_and_ps(a.lo, _mm256_cmp_ps(x.lo, bound, _CMP_NLT_UQ)),
          _mm256_and_ps(a.hi, _mm256_cmp_ps(x.hi, bound, _CMP_NLT_UQ))};
}
// The first n lanes of a, `fill` in the others
inline V16 first(V16 a, int n, float fill) {
  const __m256 lane = _mm256_setr_ps(0, 1, 2, 3, 4, 5, 6, 7);
  const __m256 lo_mask = _mm256_cmp_ps(lane, _mm256_set1_ps(static_cast<float>(n)), _CMP_LT_OQ);
  const __m256 hi_mask = _mm256_cmp_ps(lane, _mm256_set1_ps(static_cast<float>(n - 8)), _CMP_LT_OQ);
  const __m256 filler = _mm256_set1_ps(fill);
  return {_mm256_blendv_ps(filler, a.lo, lo_mask), _mm256_blendv_ps(filler, a.hi, hi_mask)};
}
inline bool any_greater(V16 a, float x) {
  const __m256 bound = _mm256_set1_ps(x);
  return _mm256_movemask_ps(
             _mm256_or_ps(_mm256_cmp_ps(a.lo, bound, _CMP_GT_OQ), _mm256_cmp_ps(a.hi, bound, _CMP_GT_OQ))) != 0;
}
inline float reduce_max(V16 a) {
  alignas(32) float x[8];
  _mm256_store_ps(x, _mm256_max_ps(a.lo, a.hi));
  float result = x[0];
  for (int i = 1; i < 8; ++i) result = x[i] > result ? x[i] : result;
  return result;
}
inline float reduce_add(V16 a) {
  alignas(32) float x[16];
  store(x, a);
  for (int width = 8; width > 0; width /= 2) {
    for (int i = 0; i < width; ++i) x[i] += x[i + width];
  }
  return x[0];
}
// Half `half` of one input's 32 packed bfloat16 weights.
inline V16 load_bf16(const std::uint32_t* p, int half) {
  const __m256i lo = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p));
  const __m256i hi = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p + 8));
  if (half == 0)
    return {_mm256_castsi256_ps(_mm256_slli_epi32(lo, 16)), _mm256_castsi256_ps(_mm256_slli_epi32(hi, 16))};
  const __m256i mask = _mm256_set1_epi32(static_cast<int>(0xFFFF0000U));
  return {_mm256_castsi256_ps(_mm256_and_si256(lo, mask)), _mm256_castsi256_ps(_mm256_and_si256(hi, mask))};
}
inline void keep_in_register(V16& a) {
  __asm__("" : "+x"(a.lo), "+x"(a.hi));
}

}  // namespace

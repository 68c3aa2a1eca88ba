// Sixteen floats in one AVX-512 register. Included by *_avx512.cpp only; see kernels_impl.h.
#pragma once

#include <immintrin.h>

#include <cstdint>

namespace {

struct V16 {
  __m512 v;
};

// Register tiles: rows of a linear tile and vectors of its panel; (query, head) pairs of a score tile; pairs and
// vectors of an output tile. 32 registers of 16 floats.
constexpr int kLinearRows = 12, kLinearVectors = 2, kScorePairs = 8, kOutputPairs = 4, kOutputVectors = 4;

inline V16 zero() {
  return {_mm512_setzero_ps()};
}
inline V16 set1(float x) {
  return {_mm512_set1_ps(x)};
}
inline V16 load(const float* p) {
  return {_mm512_loadu_ps(p)};
}
inline void store(float* p, V16 a) {
  _mm512_storeu_ps(p, a.v);
}
inline V16 add(V16 a, V16 b) {
  return {_mm512_add_ps(a.v, b.v)};
}
inline V16 sub(V16 a, V16 b) {
  return {_mm512_sub_ps(a.v, b.v)};
}
inline V16 mul(V16 a, V16 b) {
  return {_mm512_mul_ps(a.v, b.v)};
}
inline V16 div(V16 a, V16 b) {
  return {_mm512_div_ps(a.v, b.v)};
}
inline V16 max(V16 a, V16 b) {
  return {_mm512_max_ps(a.v, b.v)};
}
inline V16 min(V16 a, V16 b) {
  return {_mm512_min_ps(a.v, b.v)};
}
inline V16 fma(V16 a, V16 b, V16 c) {
  return {_mm512_fmadd_ps(a.v, b.v, c.v)};
}
inline V16 round(V16 a) {
  return {_mm512_roundscale_ps(a.v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC)};
}
// a · 2ⁿ for whole n in [-126, 127]
inline V16 scale_by_power(V16 a, V16 n) {
  return {_mm512_scalef_ps(a.v, n.v)};
}
// 0 where x < limit, else a; max and min give their second operand where either is NaN
inline V16 zero_below(V16 a, V16 x, float limit) {
  return {_mm512_maskz_mov_ps(_mm512_cmp_ps_mask(x.v, _mm512_set1_ps(limit), _CMP_NLT_UQ), a.v)};
}
// The first n lanes of a, `fill` in the others
inline V16 first(V16 a, int n, float fill) {
  return {_mm512_mask_mov_ps(_mm512_set1_ps(fill), static_cast<__mmask16>((1U << n) - 1U), a.v)};
}
inline bool any_greater(V16 a, float x) {
  return _mm512_cmp_ps_mask(a.v, _mm512_set1_ps(x), _CMP_GT_OQ) != 0;
}
inline float reduce_max(V16 a) {
  return _mm512_reduce_max_ps(a.v);
}
inline float reduce_add(V16 a) {
  alignas(64) float x[16];
  _mm512_store_ps(x, a.v);
  for (int width = 8; width > 0; width /= 2) {
    for (int i = 0; i < width; ++i) x[i] += x[i + width];
  }
  return x[0];
}
// Half `half` of one input's 32 packed bfloat16 weights.
inline V16 load_bf16(const std::uint32_t* p, int half) {
  const __m512i words = _mm512_loadu_si512(p);
  return {_mm512_castsi512_ps(half == 0 ? _mm512_slli_epi32(words, 16)
                                        : _mm512_and_si512(words, _mm512_set1_epi32(static_cast<int>(0xFFFF0000U))))};
}
// Else the compiler reads a value that several multiply-adds use from memory for each of them.
inline void keep_in_register(V16& a) {
  __asm__("" : "+v"(a.v));
}

}  // namespace

// Sixteen floats in plain C++, for machines without AVX2. Included by *_portable.cpp only; see kernels_impl.h.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>

namespace {

struct V16 {
  float x[16];
};

constexpr int kLinearRows = 2, kLinearVectors = 1, kScorePairs = 1, kOutputPairs = 1, kOutputVectors = 1;

template <class Function>
inline V16 map(Function function) {
  V16 out;
  for (int i = 0; i < 16; ++i) out.x[i] = function(i);
  return out;
}

inline V16 set1(float x) {
  return map([=](int) { return x; });
}
inline V16 zero() {
  return set1(0.0F);
}
inline V16 load(const float* p) {
  V16 out;
  std::memcpy(out.x, p, sizeof(out.x));
  return out;
}
inline void store(float* p, const V16& a) {
  std::memcpy(p, a.x, sizeof(a.x));
}
inline V16 add(const V16& a, const V16& b) {
  return map([&](int i) { return a.x[i] + b.x[i]; });
}
inline V16 sub(const V16& a, const V16& b) {
  return map([&](int i) { return a.x[i] - b.x[i]; });
}
inline V16 mul(const V16& a, const V16& b) {
  return map([&](int i) { return a.x[i] * b.x[i]; });
}
inline V16 div(const V16& a, const V16& b) {
  return map([&](int i) { return a.x[i] / b.x[i]; });
}
inline V16 max(const V16& a, const V16& b) {
  return map([&](int i) { return a.x[i] > b.x[i] ? a.x[i] : b.x[i]; });
}
inline V16 min(const V16& a, const V16& b) {
  return map([&](int i) { return a.x[i] < b.x[i] ? a.x[i] : b.x[i]; });
}
// Not fused: without the instruction, std::fma is a library call of some hundred cycles.
inline V16 fma(const V16& a, const V16& b, const V16& c) {
  return map([&](int i) { return a.x[i] * b.x[i] + c.x[i]; });
}
inline V16 round(const V16& a) {
  constexpr float kShift = 12582912.0F;  // 1.5·2²³: adding it leaves no fraction bits; |a| is below 2²² here
  return map([&](int i) {
    const volatile float shifted = a.x[i] + kShift;
    return shifted - kShift;
  });
}
// a · 2ⁿ for whole n in [-126, 127]
inline V16 scale_by_power(const V16& a, const V16& n) {
  return map([&](int i) {
    const auto bits = static_cast<std::uint32_t>(static_cast<int>(n.x[i] == n.x[i] ? n.x[i] : 0.0F) + 127) << 23;
    float power;
    std::memcpy(&power, &bits, sizeof(power));
    return a.x[i] * power;
  });
}
// 0 where x < limit, else a; max and min give their second operand where either is NaN
inline V16 zero_below(const V16& a, const V16& x, float limit) {
  return map([&](int i) { return x.x[i] < limit ? 0.0F : a.x[i]; });
}
// The first n lanes of a, `fill` in the others
inline V16 first(const V16& a, int n, float fill) {
  return map([&](int i) { return i < n ? a.x[i] : fill; });
}
inline bool any_greater(const V16& a, float x) {
  int greater = 0;
  for (int i = 0; i < 16; ++i) greater += a.x[i] > x ? 1 : 0;
  return greater > 0;
}
inline float reduce_max(const V16& a) {
  float result = a.x[0];
  for (int i = 1; i < 16; ++i) result = a.x[i] > result ? a.x[i] : result;
  return result;
}
inline float reduce_add(V16 a) {
  for (int width = 8; width > 0; width /= 2) {
    for (int i = 0; i < width; ++i) a.x[i] += a.x[i + width];
  }
  return a.x[0];
}
// Half `half` of one input's 32 packed bfloat16 weights.
inline V16 load_bf16(const std::uint32_t* p, int half) {
  return map([=](int i) {
    const std::uint32_t bits = half == 0 ? p[i] << 16 : p[i] & 0xFFFF0000U;
    float value;
    std::memcpy(&value, &bits, sizeof(value));
    return value;
  });
}
inline void keep_in_register(V16&) {}

}  // namespace

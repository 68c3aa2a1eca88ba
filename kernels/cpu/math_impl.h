// Included once by each kernels_ISA.cpp after its vec_ISA.h, which defines V16. Everything is in an anonymous namespace
// and nothing inline of the standard library is called: else the linker might keep one instruction set's copy for all.
#pragma once

#include <cstdint>

namespace {

template <int n>
struct Int {
  static constexpr int value = n;
};

// function(Int<n>) for n in [1, Max].
template <int Max, class Function>
inline void dispatch(int n, const Function& function) {
  if constexpr (Max > 1) {
    if (n < Max) return dispatch<Max - 1>(n, function);
  }
  function(Int<Max>{});
}

template <int n>
using Vectors = V16[static_cast<unsigned>(n)];

template <class T>
constexpr T smaller(T a, T b) {
  return a < b ? a : b;
}
template <class T>
constexpr T larger(T a, T b) {
  return a > b ? a : b;
}

// 2ˣ for x ≤ 127, 0 below 2⁻¹²⁶ (and for -∞), NaN for NaN; exact at 0. The polynomial is the least-maximum-error fit of
// degree 6 to 2ˣ on [-½, ½] with constant term 1.
inline V16 exp2(V16 x) {
  const V16 clamped = max(set1(-126.0F), x);  // NaN stays: max gives its second operand then
  const V16 whole = round(clamped);
  const V16 f = sub(clamped, whole);
  V16 p = set1(0.00015353361959569156F);
  p = fma(p, f, set1(0.0013398875016719103F));
  p = fma(p, f, set1(0.00961843691766262F));
  p = fma(p, f, set1(0.055503323674201965F));
  p = fma(p, f, set1(0.24022647738456726F));
  p = fma(p, f, set1(0.6931471824645996F));
  p = fma(p, f, set1(1.0F));
  return zero_below(scale_by_power(p, whole), x, -126.0F);
}

inline constexpr float kLog2E = 1.4426950408889634F;

}  // namespace

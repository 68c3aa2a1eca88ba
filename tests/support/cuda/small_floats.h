// Numbers of few bits, as NVIDIA's GPUs round them: to nearest even.
#pragma once

#include <cmath>
#include <cstdint>

namespace multiverse::kernels::cuda {

// Sign, kExponentBits, kMantissaBits. kTop: the bits of the largest number, at which larger ones are cut if kSaturates;
// else they become the bits after it, infinity.
template <unsigned kExponentBits, unsigned kMantissaBits, unsigned kTop, bool kSaturates>
struct SmallFloat {
  static constexpr int kBias = (1 << (kExponentBits - 1)) - 1;
  static constexpr unsigned kSign = 1U << (kExponentBits + kMantissaBits);
  static constexpr unsigned kNan = kSign - 1;

  static float decode(unsigned bits) {
    const unsigned magnitude = bits & (kSign - 1), exponent = magnitude >> kMantissaBits;
    const unsigned mantissa = magnitude & ((1U << kMantissaBits) - 1);
    float out = NAN;
    if (magnitude <= kTop) {
      const unsigned whole = exponent == 0 ? mantissa : mantissa | 1U << kMantissaBits;
      const int power = (exponent == 0 ? 1 : static_cast<int>(exponent)) - kBias - static_cast<int>(kMantissaBits);
      out = std::ldexp(static_cast<float>(whole), power);
    } else if (!kSaturates && magnitude == kTop + 1) {
      out = INFINITY;
    }
    return (bits & kSign) != 0 ? -out : out;
  }

  static unsigned encode(float x) {
    const unsigned sign = std::signbit(x) ? kSign : 0;
    if (std::isnan(x)) return sign | kNan;
    const unsigned past = kSaturates ? kTop : kTop + 1;
    if (std::isinf(x)) return sign | past;
    const float magnitude = std::fabs(x);
    int power = magnitude == 0.0F ? 1 - kBias : std::ilogb(magnitude);
    if (power < 1 - kBias) power = 1 - kBias;
    const auto whole = static_cast<unsigned>(
        std::nearbyint(std::ldexp(static_cast<double>(magnitude), static_cast<int>(kMantissaBits) - power)));
    // A mantissa that was rounded up to the next power of two carries into the exponent, as it should.
    const unsigned bits = (static_cast<unsigned>(power + kBias - 1) << kMantissaBits) + whole;
    return sign | (bits > kTop ? past : bits);
  }
};

using Fp16 = SmallFloat<5, 10, 0x7BFF, false>;
using E4m3 = SmallFloat<4, 3, 0x7E, true>;

}  // namespace multiverse::kernels::cuda

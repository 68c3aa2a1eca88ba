// Philox4x32-10, the counter-based random numbers of sampling (Salmon et al. 2011). The same on every device.
#pragma once

#include <array>
#include <cstdint>

namespace multiverse::kernels {

using PhiloxCounter = std::array<std::uint32_t, 4>;
using PhiloxKey = std::array<std::uint32_t, 2>;

constexpr PhiloxCounter philox4x32(PhiloxCounter counter, PhiloxKey key) {
  for (int round = 0; round < 10; ++round) {
    const std::uint64_t product0 = std::uint64_t{0xD2511F53U} * counter[0];
    const std::uint64_t product1 = std::uint64_t{0xCD9E8D57U} * counter[2];
    counter = {static_cast<std::uint32_t>(product1 >> 32) ^ counter[1] ^ key[0], static_cast<std::uint32_t>(product1),
               static_cast<std::uint32_t>(product0 >> 32) ^ counter[3] ^ key[1], static_cast<std::uint32_t>(product0)};
    key[0] += 0x9E3779B9U;
    key[1] += 0xBB67AE85U;
  }
  return counter;
}

// The uniform of a token in one draw, in (0, 1): the first word for the counter (branch low, branch high, index, token)
// under the key (seed low, seed high), put in the middle of its 2⁻³² wide cell.
constexpr double philox_uniform(std::uint64_t seed, std::uint64_t branch, std::uint32_t index, std::uint32_t token) {
  const PhiloxCounter words =
      philox4x32({static_cast<std::uint32_t>(branch), static_cast<std::uint32_t>(branch >> 32), index, token},
                 {static_cast<std::uint32_t>(seed), static_cast<std::uint32_t>(seed >> 32)});
  return (static_cast<double>(words[0]) + 0.5) * 0x1p-32;
}

}  // namespace multiverse::kernels

#include "multiverse/base/entropy.h"

#include <sys/random.h>

#include <array>
#include <cerrno>
#include <cstring>

#include "multiverse/base/check.h"

namespace multiverse {

std::uint64_t random_bits() {
  std::uint64_t bits = 0;
  ssize_t count = -1;
  do {
    count = getrandom(&bits, sizeof bits, 0);
  } while (count < 0 && errno == EINTR);  // only while the system starts
  CHECK(count == sizeof bits, "getrandom: ", std::strerror(errno));
  return bits;
}

std::string random_id() {
  static constexpr char kHex[] = "0123456789abcdef";
  std::string id;
  for (const std::uint64_t word : std::array{random_bits(), random_bits()}) {
    for (unsigned shift = 64; shift > 0; shift -= 4) id += kHex[word >> (shift - 4) & 15U];
  }
  return id;
}

}  // namespace multiverse

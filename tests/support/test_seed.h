// The seed of a random test: new every run, printed by the test, and repeated by MULTIVERSE_TEST_SEED.
#pragma once

#include <cstdint>
#include <cstdlib>
#include <random>

namespace multiverse::testing {

inline std::uint64_t test_seed() {
  const char* text = std::getenv("MULTIVERSE_TEST_SEED");
  return text != nullptr ? std::strtoull(text, nullptr, 10) : std::random_device{}();
}

}  // namespace multiverse::testing

// A fuzzer's bytes as a dialect, limits, and token ids of the tests' small vocabulary.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "multiverse/dialect/structure.h"

#include "tests/support/fake_dialect.h"

namespace multiverse::testing {

struct FuzzInput {
  Dialect dialect;
  StructureLimits limits;
  std::int32_t first_number = 0;  // for the target's own use
  std::vector<std::int32_t> tokens;
};

inline FuzzInput read_fuzz_input(const std::uint8_t* data, std::size_t size) {
  static const Dialect kNested = fake_dialect(), kFlat = flat_dialect();
  const auto byte = [data, size](std::size_t i) { return i < size ? static_cast<std::int32_t>(data[i]) : 0; };
  FuzzInput input;
  input.dialect = byte(0) % 2 == 0 ? kNested : kFlat;
  input.limits.max_paths = 1 + byte(1) % 16;
  input.limits.max_total_paths = 1 + byte(2);
  input.limits.max_depth = byte(3) % 7;
  input.limits.max_path_tokens = byte(4) % 64;
  input.first_number = byte(5);
  constexpr std::size_t kMostTokens = 600;
  for (std::size_t i = 6; i < std::min(size, 6 + kMostTokens); ++i) input.tokens.push_back(byte(i) % kVocabulary);
  return input;
}

}  // namespace multiverse::testing

// A dialect like Multiverse's that needs no tokenizer: for benchmarks of the scheduler, and for tests.
#pragma once

#include <cstdint>
#include <string>

#include "multiverse/dialect/dialect.h"

namespace multiverse {

// Where its tokens stand. Control tokens are twelve ids in a row, in the order of Dialect's members from block_open on;
// digits are ten.
struct MadeUpIds {
  std::int32_t block_open = 0;
  std::int32_t separator = 0;
  std::int32_t digit = 0;
  std::int32_t dot = 0;
  std::int32_t colon = 0;
};

Dialect made_up_dialect(std::string name, MadeUpIds ids);

}  // namespace multiverse

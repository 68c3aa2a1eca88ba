// What a token of a finished text sees, as the reading of its structure has it.
#pragma once

#include <vector>

#include "multiverse/dialect/structure.h"

#include "tests/support/fake_executor.h"

namespace multiverse::testing {

// The tokens that text[token] sees, itself last. `structure` is of `text`.
inline std::vector<SeenToken> seen_by(const Structure& structure, const std::vector<TokenId>& text, std::size_t token) {
  std::vector<SeenToken> seen;
  const auto add = [&](const TextSegment& segment, std::int32_t end) {
    for (std::int32_t i = segment.begin; i < end; ++i) {
      seen.push_back({text[static_cast<std::size_t>(i)], segment.first_position + i - segment.begin});
    }
  };
  for (const TextSegment& segment : structure.segments) {
    if (static_cast<std::int32_t>(token) >= segment.end || static_cast<std::int32_t>(token) < segment.begin) continue;
    for (const std::int32_t id : segment.context)
      add(structure.segments[static_cast<std::size_t>(id)], structure.segments[static_cast<std::size_t>(id)].end);
    add(segment, static_cast<std::int32_t>(token) + 1);
  }
  return seen;
}

}  // namespace multiverse::testing

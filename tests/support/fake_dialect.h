// A small dialect and vocabulary for tests that need no tokenizer.
#pragma once

#include <functional>
#include <map>
#include <string>
#include <string_view>

#include "multiverse/dialect/made_up.h"

namespace multiverse::testing {

// Ids: 0 end of text, 1 … 12 control tokens, 13 newline, 20 … 29 digits, 30 ".", 31 ":", 32 … 63 words.
inline constexpr std::int32_t kVocabulary = 64;
inline constexpr std::int32_t kEndOfText = 0;
inline constexpr std::int32_t kNewline = 13;
inline constexpr std::int32_t kDigit = 20;
inline constexpr std::int32_t kDot = 30;
inline constexpr std::int32_t kColon = 31;
inline constexpr std::int32_t kWord = 32;

enum ControlToken : std::int32_t {
  kParallel = 1,
  kEndParallel,
  kGoal,
  kEndGoal,
  kOutline,
  kEndOutline,
  kPath,
  kEndPath,
  kConclusion,
  kEndConclusion,
  kThink,
  kEndThink,
};

inline Dialect fake_dialect() {
  return made_up_dialect("fake", {kParallel, kNewline, kDigit, kDot, kColon});
}

// One as NPR's: its goal opens the block, the end of its conclusion closes it, and blocks don't nest. The ids of
// <Parallel> and </Parallel> are ordinary tokens in it.
inline Dialect flat_dialect() {
  Dialect dialect = fake_dialect();
  dialect.name = "flat";
  dialect.block_open = dialect.block_close = -1;
  dialect.max_depth = 1;
  std::erase_if(dialect.control_tokens, [](std::int32_t id) { return id == kParallel || id == kEndParallel; });
  return dialect;
}

// What Dialect::load needs of a tokenizer over the same ids; `named`: the control tokens' names, by id.
TokenSource fake_token_source(std::map<std::string, std::int32_t, std::less<>> named);

// A third kind, loaded from tests/dialect/third.json alone: the goal opens its block, a token of its own closes it, and
// blocks nest twice.
const Dialect& third_dialect();

}  // namespace multiverse::testing

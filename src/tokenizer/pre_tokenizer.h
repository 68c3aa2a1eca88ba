// Cuts normalised text into the pieces that the model encodes one by one.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string_view>
#include <vector>

#include "tokenizer/split_pattern.h"

namespace multiverse::tokenizer {

// What becomes of a pattern's matches, named as in tokenizer.json.
enum class SplitBehavior : std::uint8_t { kRemoved, kIsolated, kMergedWithPrevious, kMergedWithNext, kContiguous };

struct SplitStep {
  std::shared_ptr<const SplitPattern> pattern;
  SplitBehavior behavior = SplitBehavior::kIsolated;
  bool invert = false;  // what lies between the matches counts as a match, and the other way round
};

// The steps in order. The mapping of bytes to characters that ByteLevel ends with is the model's affair: pieces are
// plain text.
struct PreTokenizer {
  std::vector<SplitStep> splits;
  bool add_prefix_space = false;  // each piece of `splits` gets a space in front unless it has one
  std::shared_ptr<const SplitPattern> byte_level_pattern;  // cuts those pieces further; null where use_regex is false

  // Calls `take` with each piece of `text` (valid UTF-8), in order. None is empty.
  void run(std::string_view text, const std::function<void(std::string_view)>& take) const;
};

// The pattern of ByteLevel with use_regex.
inline constexpr std::string_view kByteLevelPattern =
    "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+";

}  // namespace multiverse::tokenizer

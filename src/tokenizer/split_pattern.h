// A compiled split pattern. The only file pair that sees PCRE2.
#pragma once

#include <cstddef>
#include <memory>
#include <string_view>
#include <vector>

#include "multiverse/base/status.h"

namespace multiverse::tokenizer {

// [begin, end) in bytes of some text.
struct TextRange {
  std::size_t begin = 0;
  std::size_t end = 0;
};

// Immutable after compile; any thread.
// It knows the characters of Unicode 14; newer_characters.h says what becomes of later ones.
class SplitPattern {
 public:
  // `pattern` in Oniguruma's syntax. Refused: what isn't translated, doesn't compile, or can match nothing at all.
  static Result<std::shared_ptr<const SplitPattern>> compile(std::string_view pattern);
  virtual ~SplitPattern() = default;

  // Successive leftmost matches in `text` (valid UTF-8), appended to `matches`. No text and no pattern takes it more
  // than a bounded number of steps per byte: where the bound is met, what is left of the text is not searched.
  virtual void find_all(std::string_view text, std::vector<TextRange>& matches) const = 0;
};

}  // namespace multiverse::tokenizer

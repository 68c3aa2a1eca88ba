// Text that remembers who wrote it, so that control tokens typed by a user stay text.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace multiverse {

// Which added tokens a span of text may become when it is encoded.
enum class Trust : std::uint8_t {
  kNone,     // user, system and tool content: no added token, whatever the text spells
  kDialect,  // assistant content: the dialect's control tokens only
  kAll,      // the template's own text: every added token
};

struct TextSpan {
  std::string text;  // UTF-8
  Trust trust = Trust::kNone;
};

// Neighbours with equal trust are joined; empty spans are dropped.
using TrustedText = std::vector<TextSpan>;

}  // namespace multiverse

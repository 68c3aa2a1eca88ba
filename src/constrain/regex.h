// Regular expressions: the part that is linear in the text.
#pragma once

#include <string_view>

#include "multiverse/base/status.h"
#include "multiverse/constrain/syntax.h"

namespace multiverse {

enum class RegexUse {
  kWholeText,   // the text is what matches, from its first to its last character
  kInsideJson,  // the text is a JSON string's inside: what the JSON escapes is written as an escape; a match anywhere
                // in the string is enough, as JSON Schema's `pattern` has it, unless `^` and `$` say otherwise
};

// Literals, `.`, classes, \d \w \s and their opposites (ASCII), groups, `|`, `* + ? {m,n}` (lazy ones mean the same
// here), `^` at the start and `$` at the end. Anything else (look-around, back references, \b, flags) is an error. At
// most 4,096 bytes, groups 32 deep, counts up to 1,000.
Result<SyntaxBuilder::Piece> add_regex(SyntaxBuilder& builder, std::string_view pattern, RegexUse use);

}  // namespace multiverse

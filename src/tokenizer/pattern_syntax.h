// Split patterns are written for Oniguruma (Ruby syntax), which the `tokenizers` library uses; ours run in PCRE2.
#pragma once

#include <string>
#include <string_view>

#include "multiverse/base/status.h"

namespace multiverse::tokenizer {

// A PCRE2 pattern (for PCRE2_UTF | PCRE2_UCP) that matches what `pattern` (valid UTF-8) matches in Oniguruma. What
// would mean something else and isn't translated is refused by name.
Result<std::string> to_pcre2_syntax(std::string_view pattern);

// `text` with every character that means something in a pattern escaped.
std::string escape_pattern(std::string_view text);

}  // namespace multiverse::tokenizer

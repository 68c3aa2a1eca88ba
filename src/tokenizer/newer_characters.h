// Split patterns see text as the judge sees it, though PCRE2 knows fewer characters.
//
// PCRE2 10.42 has the tables of Unicode 14, Oniguruma in `tokenizers` 0.23 those of Unicode 17. Over the characters of
// Unicode 14 the two agree in every property that patterns may use. The 10,294 later ones (most of them CJK extensions
// H to J) are shown to PCRE2 as an older character of the same category and of as many bytes.
// The judge's Digits step has Unicode 16: it doesn't know 13 numbers (U+11DE0 to 11DE9, U+16FF4 to 16FF6); ours does.
#pragma once

#include <string>
#include <string_view>

namespace multiverse::tokenizer {

// Quick: false only where no newer character is in the text.
bool may_have_newer_characters(std::string_view text);

// `text` (valid UTF-8) with each newer character replaced; byte positions stay.
std::string with_older_characters(std::string_view text);

}  // namespace multiverse::tokenizer

// Python's string methods on marked text. Positions are byte offsets; what counts characters says so.
#pragma once

#include <cstdint>
#include <functional>
#include <vector>

#include "tokenizer/jinja_text.h"
#include "tokenizer/jinja_value.h"

namespace multiverse::jinja {

enum class Side { kLeft, kRight, kBoth };
// Removes the characters of `chars`, or white space where that is null.
Text strip(const Text& text, const Text* chars, Side side);

// All occurrences, or the first `count` where that is not negative.
Text replace(Budget& budget, const Text& text, const Text& old_text, const Text& new_text, std::int64_t count);

// Python's split and rsplit; null separator: runs of white space. At most `limit` cuts where that is not negative.
std::vector<Text> split(Budget& budget, const Text& text, const Text* separator, std::int64_t limit);
std::vector<Text> split_from_right(Budget& budget, const Text& text, const Text* separator, std::int64_t limit);
std::vector<Text> split_lines(Budget& budget, const Text& text, bool keep_ends);

// Every character in the case that `wanted` names for it.
Text with_case(const Text& text, const std::function<Case(std::size_t at, char32_t code)>& wanted);
Text upper(const Text& text);
Text lower(const Text& text);
Text capitalize(const Text& text);
// str.title(): a letter after a non-letter is a capital. Jinja's filter of that name differs: words begin after white
// space and -({[<.
Text title_method(const Text& text);
Text title_filter(const Text& text);

Text join(Budget& budget, const Text& separator, const std::vector<TextPtr>& parts);
// Occurrences that do not overlap.
std::int64_t count_occurrences(const Text& text, const Text& part);

}  // namespace multiverse::jinja

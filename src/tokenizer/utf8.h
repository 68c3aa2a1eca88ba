// UTF-8, taken apart as Unicode's "substitution of maximal subparts" has it (Python's errors="replace", Rust's lossy).
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

namespace multiverse::tokenizer {

enum class SequenceState : std::uint8_t {
  kComplete,    // one character
  kInvalid,     // no character begins so: the bytes become one U+FFFD
  kUnfinished,  // the end of the text cut it: more bytes may complete it
};

struct Utf8Sequence {
  std::size_t length = 0;  // bytes, at least 1
  SequenceState state = SequenceState::kInvalid;
  std::int32_t code_point = -1;  // where complete
};

// The sequence at the start of `text`, which isn't empty.
Utf8Sequence next_sequence(std::string_view text);

inline constexpr std::string_view kReplacement = "\xEF\xBF\xBD";  // U+FFFD

bool is_valid_utf8(std::string_view text);

// The bytes of `text` as valid UTF-8, appended to `out`. Where `pending` is given, an unfinished sequence at the end is
// left there instead of becoming U+FFFD.
void append_replacing_invalid(std::string_view text, std::string& out, std::string* pending = nullptr);

// The code point at `position` of valid UTF-8, which moves behind it.
std::int32_t decode_valid(std::string_view text, std::size_t& position);

// Where the character that ends before `position` (> 0) of valid UTF-8 begins.
std::size_t previous_character(std::string_view text, std::size_t position);

void append_code_point(std::int32_t code_point, std::string& out);

// White_Space of Unicode, which has not changed since 6.3.
bool is_white_space(std::int32_t code_point);

}  // namespace multiverse::tokenizer

// A string that knows, byte by byte, who wrote it.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "multiverse/tokenizer/span.h"

namespace multiverse::jinja {

// UTF-8 with a Trust for every byte. Positions are byte offsets; characters are what char_end() steps over. Comparison
// is of bytes() and so ignores the marks.
class Text {
 public:
  Text() = default;
  Text(std::string_view bytes, Trust trust) { append(bytes, trust); }

  const std::string& bytes() const { return bytes_; }
  std::size_t size() const { return bytes_.size(); }
  bool empty() const { return bytes_.empty(); }
  std::size_t num_runs() const { return runs_.size(); }
  // `position` < size().
  Trust trust_at(std::size_t position) const;

  void append(std::string_view bytes, Trust trust);
  // Bytes [begin, end) of `other`, which is not *this.
  void append(const Text& other, std::size_t begin, std::size_t end);
  void append(const Text& other) { append(other, 0, other.size()); }
  Text slice(std::size_t begin, std::size_t end) const;

  TrustedText spans() const;

 private:
  struct Run {
    std::size_t end;  // one past its last byte; ascending, the last is size()
    Trust trust;
  };
  std::string bytes_;
  std::vector<Run> runs_;
};

// One character at `position` < text.size(). A byte that is no UTF-8 counts as a character of its own: U+FFFD.
struct Character {
  char32_t code = 0;
  std::size_t end = 0;  // position of the next
};
Character char_at(std::string_view text, std::size_t position);
// Start of the character that ends at `end` > 0.
std::size_t char_start_before(std::string_view text, std::size_t end);
std::size_t count_chars(std::string_view text);
// Byte offset of every character, and text.size() at the end.
std::vector<std::size_t> char_offsets(std::string_view text);
void append_utf8(std::string& out, char32_t code);

// Python's str.isspace() of one character.
bool is_space(char32_t code);
// Python's repr() prints it as it is.
bool is_printable(char32_t code);

// First place of `needle` in `text` at or after `from`; npos where there is none. Linear in any case, which
// std::string's find isn't.
std::size_t find_bytes(std::string_view text, std::string_view needle, std::size_t from = 0);
std::size_t rfind_bytes(std::string_view text, std::string_view needle);

enum class Case { kUpper, kLower, kTitle };
// Appends the simple Unicode mapping of `code` ("ß" upper is "SS", as Python's; other characters whose upper case is
// several are left alone).
void append_cased(std::string& out, char32_t code, Case wanted);
bool is_cased(char32_t code);

}  // namespace multiverse::jinja

#include "multiverse/chat/terminal_text.h"

#include <utf8proc.h>

#include <cstdint>
#include <cstdio>
#include <vector>

namespace multiverse {
namespace {

// One character, or one byte that begins none (then `code` is negative).
struct Character {
  std::string_view bytes;
  utf8proc_int32_t code = -1;
};

Character first_character(std::string_view text) {
  utf8proc_int32_t code = -1;
  const auto length = utf8proc_iterate(reinterpret_cast<const utf8proc_uint8_t*>(text.data()),
                                       static_cast<utf8proc_ssize_t>(text.size()), &code);
  if (length <= 0) return {text.substr(0, 1), -1};
  return {text.substr(0, static_cast<std::size_t>(length)), code};
}

bool turns_direction(utf8proc_int32_t code) {
  return code == 0x61C || code == 0x200E || code == 0x200F || (code >= 0x202A && code <= 0x202E) ||
         (code >= 0x2066 && code <= 0x2069);
}

bool must_be_escaped(utf8proc_int32_t code) {
  switch (utf8proc_category(code)) {
    case UTF8PROC_CATEGORY_CC:
    case UTF8PROC_CATEGORY_ZL:
    case UTF8PROC_CATEGORY_ZP:
      return true;
    default:
      return turns_direction(code);
  }
}

}  // namespace

std::string for_terminal(std::string_view text, bool one_line) {
  std::string out;
  while (!text.empty()) {
    const Character character = first_character(text);
    text.remove_prefix(character.bytes.size());
    if (character.code == '\n' || character.code == '\t') {
      out += one_line ? ' ' : static_cast<char>(character.code);
    } else if (character.code >= 0 && !must_be_escaped(character.code)) {
      out += character.bytes;
    } else {
      char escape[16];
      const unsigned value = character.code < 0 ? static_cast<unsigned char>(character.bytes.front())
                                                : static_cast<unsigned>(character.code);
      std::snprintf(escape, sizeof escape, character.code < 0 || value < 0x80 ? "\\x%02x" : "\\u%04x", value);
      out += escape;
    }
  }
  return out;
}

int columns(std::string_view text) {
  int width = 0;
  while (!text.empty()) {
    const Character character = first_character(text);
    text.remove_prefix(character.bytes.size());
    width += character.code < 0 ? 1 : utf8proc_charwidth(character.code);
  }
  return width;
}

std::string last_columns(std::string_view text, int width) {
  if (width <= 0) return "";
  std::vector<Character> characters;
  int total = 0;
  for (std::string_view rest = text; !rest.empty(); rest.remove_prefix(characters.back().bytes.size())) {
    characters.push_back(first_character(rest));
    total += columns(characters.back().bytes);
  }
  if (total <= width) return std::string(text);
  std::size_t from = 0;
  // A mark that combines stays with what it stands on.
  while (from < characters.size() && (total > width - 1 || columns(characters[from].bytes) == 0)) {
    total -= columns(characters[from].bytes);
    text.remove_prefix(characters[from].bytes.size());
    ++from;
  }
  return "…" + std::string(text);
}

}  // namespace multiverse

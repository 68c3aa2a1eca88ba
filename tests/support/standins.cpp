// Stand-ins for functions that other modules will bring. Weak: where the real one is linked, it is used.
// To be deleted once `tokenizer` and `engine` are on main.
#include <string>

#include "multiverse/engine/request.h"
#include "multiverse/tokenizer/tokenizer.h"

namespace multiverse {

__attribute__((weak)) std::string to_string(const BranchAddress& address) {
  std::string text;
  for (std::size_t i = 0; i < address.size(); ++i) {
    if (i > 0) text += i % 2 == 0 ? "/" : ".";
    text += std::to_string(address[i]);
  }
  return text;
}

namespace {

// How many bytes at the start of `text` are one character (0: none yet, but more bytes could make one), and whether
// they are valid.
struct Character {
  std::size_t size = 0;
  bool valid = false;
};

Character first_character(std::string_view text) {
  const auto byte = [&](std::size_t i) { return static_cast<unsigned char>(text[i]); };
  const unsigned char lead = byte(0);
  if (lead < 0x80) return {1, true};
  const std::size_t size = lead >= 0xC2 && lead < 0xE0   ? 2
                           : lead >= 0xE0 && lead < 0xF0 ? 3
                           : lead >= 0xF0 && lead < 0xF5 ? 4
                                                         : 0;
  if (size == 0) return {1, false};
  for (std::size_t i = 1; i < size; ++i) {
    if (i >= text.size()) return {0, false};
    unsigned char low = 0x80, high = 0xBF;
    if (i == 1) {
      if (lead == 0xE0) low = 0xA0;
      if (lead == 0xED) high = 0x9F;
      if (lead == 0xF0) low = 0x90;
      if (lead == 0xF4) high = 0x8F;
    }
    if (byte(i) < low || byte(i) > high) return {i, false};
  }
  return {size, true};
}

}  // namespace

__attribute__((weak)) std::string IncrementalDetokenizer::append(std::string_view token_bytes) {
  pending_ += token_bytes;
  std::string out;
  std::size_t at = 0;
  while (at < pending_.size()) {
    const Character next = first_character(std::string_view(pending_).substr(at));
    if (next.size == 0) break;
    out += next.valid ? pending_.substr(at, next.size) : "\xEF\xBF\xBD";
    at += next.size;
  }
  pending_.erase(0, at);
  return out;
}

__attribute__((weak)) std::string IncrementalDetokenizer::finish() {
  const std::string out = pending_.empty() ? "" : "\xEF\xBF\xBD";
  pending_.clear();
  return out;
}

}  // namespace multiverse

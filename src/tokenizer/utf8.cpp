#include "tokenizer/utf8.h"

#include <cstring>

namespace multiverse::tokenizer {
namespace {

std::uint8_t byte_at(std::string_view text, std::size_t i) {
  return static_cast<std::uint8_t>(text[i]);
}

// How many bytes from `begin` are ASCII.
std::size_t ascii_run(std::string_view text, std::size_t begin) {
  std::size_t i = begin;
  for (; i + 8 <= text.size(); i += 8) {
    std::uint64_t word = 0;
    std::memcpy(&word, text.data() + i, 8);
    if ((word & 0x8080808080808080u) != 0) break;
  }
  while (i < text.size() && byte_at(text, i) < 0x80) ++i;
  return i - begin;
}

}  // namespace

Utf8Sequence next_sequence(std::string_view text) {
  const std::uint8_t lead = byte_at(text, 0);
  if (lead < 0x80) return {1, SequenceState::kComplete, lead};
  if (lead < 0xC2 || lead > 0xF4) return {1, SequenceState::kInvalid};
  const std::size_t length = lead < 0xE0 ? 2 : lead < 0xF0 ? 3 : 4;
  // The second byte's range excludes overlong forms, surrogates and values above U+10FFFF (Unicode, table 3-7).
  const std::uint8_t low = lead == 0xE0 ? 0xA0 : lead == 0xF0 ? 0x90 : 0x80;
  const std::uint8_t high = lead == 0xED ? 0x9F : lead == 0xF4 ? 0x8F : 0xBF;
  std::int32_t code_point = lead & (0x7F >> length);
  for (std::size_t i = 1; i < length; ++i) {
    if (i == text.size()) return {i, SequenceState::kUnfinished};
    const std::uint8_t byte = byte_at(text, i);
    if (byte < (i == 1 ? low : 0x80) || byte > (i == 1 ? high : 0xBF)) return {i, SequenceState::kInvalid};
    code_point = code_point << 6 | (byte & 0x3F);
  }
  return {length, SequenceState::kComplete, code_point};
}

bool is_valid_utf8(std::string_view text) {
  for (std::size_t i = ascii_run(text, 0); i < text.size();) {
    const Utf8Sequence sequence = next_sequence(text.substr(i));
    if (sequence.state != SequenceState::kComplete) return false;
    i += sequence.length;
    if (i < text.size() && byte_at(text, i) < 0x80) i += ascii_run(text, i);
  }
  return true;
}

void append_replacing_invalid(std::string_view text, std::string& out, std::string* pending) {
  std::size_t copied = 0;
  for (std::size_t i = ascii_run(text, 0); i < text.size();) {
    const Utf8Sequence sequence = next_sequence(text.substr(i));
    if (sequence.state == SequenceState::kComplete) {
      i += sequence.length;
      continue;
    }
    out.append(text, copied, i - copied);
    if (sequence.state == SequenceState::kUnfinished && pending != nullptr) {
      pending->assign(text.substr(i));
    } else {
      out += kReplacement;
    }
    i += sequence.length;
    copied = i;
  }
  out.append(text, copied);
}

std::int32_t decode_valid(std::string_view text, std::size_t& position) {
  const Utf8Sequence sequence = next_sequence(text.substr(position));
  position += sequence.length;
  return sequence.code_point;
}

std::size_t previous_character(std::string_view text, std::size_t position) {
  do {
    --position;
  } while (position > 0 && (byte_at(text, position) & 0xC0) == 0x80);
  return position;
}

void append_code_point(std::int32_t code_point, std::string& out) {
  const auto c = static_cast<std::uint32_t>(code_point);
  const auto put = [&out](std::uint32_t byte) { out += static_cast<char>(byte); };
  if (c < 0x80) {
    put(c);
    return;
  }
  if (c < 0x800) {
    put(0xC0 | c >> 6);
  } else {
    if (c < 0x10000) {
      put(0xE0 | c >> 12);
    } else {
      put(0xF0 | c >> 18);
      put(0x80 | (c >> 12 & 0x3F));
    }
    put(0x80 | (c >> 6 & 0x3F));
  }
  put(0x80 | (c & 0x3F));
}

bool is_white_space(std::int32_t c) {
  return (c >= 0x09 && c <= 0x0D) || c == 0x20 || c == 0x85 || c == 0xA0 || c == 0x1680 ||
         (c >= 0x2000 && c <= 0x200A) || c == 0x2028 || c == 0x2029 || c == 0x202F || c == 0x205F || c == 0x3000;
}

}  // namespace multiverse::tokenizer

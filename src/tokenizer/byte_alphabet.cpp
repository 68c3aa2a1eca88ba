#include "tokenizer/byte_alphabet.h"

#include <array>
#include <cstdint>

#include "tokenizer/utf8.h"

namespace multiverse::tokenizer {
namespace {

constexpr std::int32_t kAlphabetEnd = 0x144;  // one past the alphabet's highest code point

struct Alphabet {
  std::array<std::int32_t, 256> code_point{};
  std::array<int, kAlphabetEnd> byte{};  // by code point; -1 where none
};

constexpr bool stands_for_itself(int byte) {
  return (byte >= '!' && byte <= '~') || (byte >= 0xA1 && byte <= 0xAC) || byte >= 0xAE;
}

// https://github.com/openai/gpt-2/blob/master/src/encoder.py (bytes_to_unicode): the bytes that print stand for
// themselves, the others are numbered from U+0100.
constexpr Alphabet make_alphabet() {
  Alphabet alphabet;
  alphabet.byte.fill(-1);
  std::int32_t next = 0x100;
  for (int byte = 0; byte < 256; ++byte) {
    const std::int32_t code_point = stands_for_itself(byte) ? byte : next++;
    alphabet.code_point[static_cast<std::size_t>(byte)] = code_point;
    alphabet.byte[static_cast<std::size_t>(code_point)] = byte;
  }
  return alphabet;
}

constexpr Alphabet kAlphabet = make_alphabet();

}  // namespace

std::optional<std::string> bytes_of_alphabet(std::string_view token) {
  std::string bytes;
  bytes.reserve(token.size());
  for (std::size_t i = 0; i < token.size();) {
    const std::int32_t code_point = decode_valid(token, i);
    const int byte = code_point < kAlphabetEnd ? kAlphabet.byte[static_cast<std::size_t>(code_point)] : -1;
    if (byte < 0) return std::nullopt;
    bytes += static_cast<char>(byte);
  }
  return bytes;
}

std::string alphabet_character(unsigned char byte) {
  std::string out;
  append_code_point(kAlphabet.code_point[byte], out);
  return out;
}

}  // namespace multiverse::tokenizer

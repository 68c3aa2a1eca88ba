// GPT-2's byte-level alphabet: each byte is one printable character, so that a vocabulary of bytes fits in JSON.
#pragma once

#include <optional>
#include <string>
#include <string_view>

namespace multiverse::tokenizer {

// The bytes that `token` (UTF-8, valid) spells in the alphabet; nullopt where a character isn't of it.
std::optional<std::string> bytes_of_alphabet(std::string_view token);

// The character of a byte, as UTF-8: " " is "Ġ".
std::string alphabet_character(unsigned char byte);

}  // namespace multiverse::tokenizer

// Unicode's canonical composition (NFC), in linear time.
//
// It follows the judge, the `tokenizers` library, whose tables are Unicode 9's: characters that got a combining class
// or a composition later are inert there, and so they are here (nfc.cpp lists them). utf8proc 2.8 knows Unicode 15;
// what Unicode 16 and later added is inert in both.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>
#include <vector>

namespace multiverse::tokenizer {

// [source_begin, source_end) of the source became the output from out_begin to the next chunk's out_begin.
struct NfcChunk {
  std::size_t source_begin = 0;
  std::size_t source_end = 0;
  std::size_t out_begin = 0;
};

// Quick: false only where NFC surely leaves `text` as it is.
bool may_change_in_nfc(std::string_view text);

// NFC of valid UTF-8. `chunks`, where given, gets the smallest parts that could be told apart, in order.
std::string to_nfc(std::string_view text, std::vector<NfcChunk>* chunks = nullptr);

}  // namespace multiverse::tokenizer

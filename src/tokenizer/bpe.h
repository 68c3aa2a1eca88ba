// Byte-pair encoding of single pieces.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "tokenizer/hash_tables.h"

namespace multiverse::tokenizer {

// A vocabulary as read and checked. Ids are below tokens.size(); an id without token has empty bytes.
struct BpeData {
  std::vector<std::string> tokens;             // raw bytes by id
  std::vector<bool> in_alphabet;               // by id: spelt in the byte-level alphabet, so reachable from text
  std::array<std::int32_t, 256> byte_token{};  // -1 for a byte that no UTF-8 text has
  struct Rule {
    std::int32_t left = -1;
    std::int32_t right = -1;
    std::int32_t result = -1;
  };
  std::vector<Rule> merges;    // in order of rank
  bool ignore_merges = false;  // a piece that is a token becomes it, whatever the merges say
};

// Immutable after construction; any thread.
class Bpe {
 public:
  explicit Bpe(BpeData data);
  Bpe(const Bpe&) = delete;  // the tables point into data_
  Bpe& operator=(const Bpe&) = delete;

  // Memory that calls may share, one per thread.
  struct Scratch {
    struct Symbol {
      std::int32_t token;
      Merge merge;  // with the symbol after it
    };
    std::vector<Symbol> symbols;
  };

  // Appends the ids of `piece`, as `tokenizers` merges it: always the pair of lowest rank, leftmost first. O(n log n).
  void encode(std::string_view piece, std::vector<std::int32_t>& ids, Scratch& scratch) const;

  const std::vector<std::string>& tokens() const { return data_.tokens; }
  // The token with these bytes, -1 where there is none.
  std::int32_t find(std::string_view bytes) const { return by_bytes_.find(bytes); }

 private:
  void encode_short(std::string_view piece, std::vector<std::int32_t>& ids, Scratch& scratch) const;
  template <class Queue>
  void encode_long(std::string_view piece, std::vector<std::int32_t>& ids) const;
  std::int32_t token_of(char byte) const { return data_.byte_token[static_cast<unsigned char>(byte)]; }

  BpeData data_;
  PairTable pairs_;
  BytesTable by_bytes_;
  bool monotone_ = true;     // a token takes part only in merges of higher rank than those that make it
  std::vector<bool> whole_;  // by id: the token's own bytes encode to the token itself
};

}  // namespace multiverse::tokenizer

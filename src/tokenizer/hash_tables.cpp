#include "tokenizer/hash_tables.h"

#include <bit>
#include <cstring>

#include "multiverse/base/entropy.h"

namespace multiverse::tokenizer {
namespace {

// At most half full.
std::size_t slots_for(std::size_t capacity) {
  return std::bit_ceil(2 * capacity + 2);
}

std::uint64_t mix(std::uint64_t hash) {
  hash *= 0x9E3779B97F4A7C15u;
  return hash ^ (hash >> 29);
}

}  // namespace

PairTable::PairTable(std::size_t capacity)
    : slots_(slots_for(capacity)), mask_(slots_.size() - 1), seed_(random_bits()) {}

void PairTable::insert(std::int32_t left, std::int32_t right, Merge merge) {
  const std::uint64_t key = key_of(left, right);
  std::size_t i = slot_of(key);
  while (slots_[i].key != key && slots_[i].key != kFree) i = (i + 1) & mask_;
  slots_[i] = {key, merge};
}

BytesTable::BytesTable(const std::vector<std::string>* tokens, std::size_t capacity)
    : tokens_(tokens), slots_(slots_for(capacity), -1), mask_(slots_.size() - 1), seed_(random_bits()) {}

bool BytesTable::insert(std::int32_t id) {
  const std::string& bytes = (*tokens_)[static_cast<std::size_t>(id)];
  std::size_t i = slot_of(bytes);
  for (; slots_[i] >= 0; i = (i + 1) & mask_)
    if ((*tokens_)[static_cast<std::size_t>(slots_[i])] == bytes) return false;
  slots_[i] = id;
  return true;
}

std::int32_t BytesTable::find(std::string_view bytes) const {
  for (std::size_t i = slot_of(bytes); slots_[i] >= 0; i = (i + 1) & mask_)
    if ((*tokens_)[static_cast<std::size_t>(slots_[i])] == bytes) return slots_[i];
  return -1;
}

std::size_t BytesTable::slot_of(std::string_view bytes) const {
  std::uint64_t hash = seed_ ^ bytes.size();
  std::size_t i = 0;
  for (; i + 8 <= bytes.size(); i += 8) {
    std::uint64_t word = 0;
    std::memcpy(&word, bytes.data() + i, 8);
    hash = mix(hash ^ word);
  }
  std::uint64_t tail = 0;
  std::memcpy(&tail, bytes.data() + i, bytes.size() - i);
  return static_cast<std::size_t>(mix(mix(hash ^ tail)) >> 20) & mask_;
}

}  // namespace multiverse::tokenizer

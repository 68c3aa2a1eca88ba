// Two small open-addressing tables, filled at load and read without locks. Seeded, so that no vocabulary file can be
// written to make them slow.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace multiverse::tokenizer {

// What merging two tokens gives.
struct Merge {
  std::uint32_t rank = 0;
  std::int32_t result = -1;  // -1: the pair doesn't merge
};

// (left id, right id) to Merge.
class PairTable {
 public:
  explicit PairTable(std::size_t capacity);
  // Replaces an earlier entry of the same pair. At most `capacity` pairs.
  void insert(std::int32_t left, std::int32_t right, Merge merge);

  Merge find(std::int32_t left, std::int32_t right) const {
    const std::uint64_t key = key_of(left, right);
    for (std::size_t i = slot_of(key);; i = (i + 1) & mask_) {
      const Slot& slot = slots_[i];
      if (slot.key == key) return slot.merge;
      if (slot.key == kFree) return {};
    }
  }

 private:
  static constexpr std::uint64_t kFree = ~std::uint64_t{0};
  struct Slot {
    std::uint64_t key = kFree;
    Merge merge;
  };

  static std::uint64_t key_of(std::int32_t left, std::int32_t right) {
    return std::uint64_t{static_cast<std::uint32_t>(left)} << 32 | static_cast<std::uint32_t>(right);
  }
  std::size_t slot_of(std::uint64_t key) const {
    std::uint64_t hash = (key ^ seed_) * 0x9E3779B97F4A7C15u;
    hash = (hash ^ (hash >> 32)) * 0xD6E8FEB86659FD93u;
    return static_cast<std::size_t>(hash >> 32) & mask_;
  }

  std::vector<Slot> slots_;
  std::size_t mask_;
  std::uint64_t seed_;
};

// A token's bytes to its id. Holds ids only; the bytes are in the vector that it was made with.
class BytesTable {
 public:
  // `tokens` by id outlives the table and does not change. At most `capacity` insertions.
  BytesTable(const std::vector<std::string>* tokens, std::size_t capacity);
  // False, and nothing changed, where the same bytes are there already.
  bool insert(std::int32_t id);
  // -1 where there is none.
  std::int32_t find(std::string_view bytes) const;

 private:
  std::size_t slot_of(std::string_view bytes) const;

  const std::vector<std::string>* tokens_;
  std::vector<std::int32_t> slots_;  // ids, -1 where free
  std::size_t mask_;
  std::uint64_t seed_;
};

}  // namespace multiverse::tokenizer

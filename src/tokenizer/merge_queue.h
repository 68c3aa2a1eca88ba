// Queues of possible merges, lowest rank first and leftmost first among equals.
#pragma once

#include <algorithm>
#include <array>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <queue>
#include <vector>

namespace multiverse::tokenizer {

// rank in the high 32 bits, position in the low.
using MergeKey = std::uint64_t;

inline MergeKey merge_key(std::uint32_t rank, std::uint32_t position) {
  return MergeKey{rank} << 32 | position;
}

// For keys in any order. O(log n) an operation.
class HeapQueue {
 public:
  bool empty() const { return heap_.empty(); }
  void push(MergeKey key) { heap_.push(key); }
  MergeKey pop() {
    const MergeKey key = heap_.top();
    heap_.pop();
    return key;
  }

 private:
  std::priority_queue<MergeKey, std::vector<MergeKey>, std::greater<>> heap_;
};

// For keys whose rank is higher than that of the last one popped: a radix heap over ranks, where the keys of one rank
// are sorted by position when their turn comes. A key is moved at most 32 times, and memory is passed through in order.
class MonotoneQueue {
 public:
  bool empty() const { return size_ == 0; }

  void push(MergeKey key) {
    buckets_[bucket_of(key)].push_back(key);
    ++size_;
  }

  MergeKey pop() {
    if (next_ == current_.size()) refill();
    --size_;
    return current_[next_++];
  }

 private:
  static std::uint32_t rank_of(MergeKey key) { return static_cast<std::uint32_t>(key >> 32); }

  // Bucket b holds the keys whose rank differs from rank_ in bit b - 1 and in none above it; 0 those of rank_ itself.
  std::size_t bucket_of(MergeKey key) const { return static_cast<std::size_t>(std::bit_width(rank_of(key) ^ rank_)); }

  void refill() {
    std::size_t b = 0;
    while (buckets_[b].empty()) ++b;
    if (b > 0) {
      std::vector<MergeKey>& bucket = buckets_[b];
      rank_ = rank_of(*std::min_element(bucket.begin(), bucket.end()));
      for (const MergeKey key : bucket) buckets_[bucket_of(key)].push_back(key);  // all to lower buckets
      bucket.clear();
    }
    current_.clear();
    current_.swap(buckets_[0]);
    next_ = 0;
    if (!std::is_sorted(current_.begin(), current_.end())) std::sort(current_.begin(), current_.end());
  }

  std::array<std::vector<MergeKey>, 33> buckets_;
  std::vector<MergeKey> current_;  // keys of rank_, popped up to next_
  std::size_t next_ = 0;
  std::uint32_t rank_ = 0;
  std::size_t size_ = 0;
};

}  // namespace multiverse::tokenizer

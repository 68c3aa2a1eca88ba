// How keys and values lie in a layer's cache on the GPU.
#pragma once

#include "multiverse/kernels/cuda/stream.h"

namespace multiverse::kernels::cuda {

enum class CacheType : std::int32_t {
  kBf16,
  kFp16,  // more digits than bfloat16 (11 for 8), less range: beyond ±65504 a number is cut
  // 8 bits, e4m3 (Micikevicius et al. 2022), times a float32 for each token's key, and for its value, of each KV head:
  // the scale that brings the largest of the head's numbers to 448.
  kFp8,
};

constexpr std::int64_t cache_element_bytes(CacheType type) {
  return type == CacheType::kFp8 ? 1 : 2;
}

// A layer's cache: (page, KV head) blocks, each of keys (kPageTokens, head_dim), then values (kPageTokens, head_dim),
// then, with kFp8, the keys' scales (kPageTokens) and the values'. Places are in bytes; blocks are 16-byte aligned.
struct CacheLayout {
  std::int32_t num_kv_heads = 0;
  std::int32_t head_dim = 0;
  CacheType type = CacheType::kBf16;

  constexpr std::int64_t row_bytes() const { return head_dim * cache_element_bytes(type); }
  constexpr std::int64_t scales_place() const { return std::int64_t{2} * kPageTokens * row_bytes(); }  // within a block
  constexpr std::int64_t block_bytes() const {
    const bool has_scales = type == CacheType::kFp8;
    return scales_place() + (has_scales ? std::int64_t{2} * kPageTokens * std::int64_t{sizeof(float)} : 0);
  }
  constexpr std::int64_t page_bytes() const { return num_kv_heads * block_bytes(); }

  // Of the key (kv_head < num_kv_heads) or value (those after them) for `slot`: page · kPageTokens + offset.
  constexpr std::int64_t place(std::int32_t slot, std::int32_t kv_head) const {
    return block_place(slot, kv_head) + row_in_block(slot, kv_head) * row_bytes();
  }
  // And of its scale.
  constexpr std::int64_t scale_place(std::int32_t slot, std::int32_t kv_head) const {
    return block_place(slot, kv_head) + scales_place() +
           row_in_block(slot, kv_head) * static_cast<std::int64_t>(sizeof(float));
  }

 private:
  constexpr std::int64_t block_place(std::int32_t slot, std::int32_t kv_head) const {
    return slot / kPageTokens * page_bytes() + kv_head % num_kv_heads * block_bytes();
  }
  constexpr std::int64_t row_in_block(std::int32_t slot, std::int32_t kv_head) const {
    return kv_head / num_kv_heads * kPageTokens + slot % kPageTokens;
  }
};

}  // namespace multiverse::kernels::cuda

// What stands between the linear layers of a decoder, on the GPU. Rows are packed without gaps. The residual stream is
// float32, what flows into a matrix is bfloat16.
#pragma once

#include "multiverse/kernels/cuda/cache.h"

namespace multiverse::kernels::cuda {

// hidden (rows, hidden_size) = the tokens' rows of `embedding` (vocab, hidden_size); angles (rows, head_dim): cosines
// of position · frequencies, then sines. frequencies: (head_dim / 2).
struct EmbedArgs {
  const Bf16* embedding = nullptr;
  const std::int32_t* tokens = nullptr;
  const std::int32_t* positions = nullptr;
  const float* frequencies = nullptr;
  float* hidden = nullptr;
  float* angles = nullptr;
  std::int32_t rows = 0, hidden_size = 0, head_dim = 0;
};
void embed(const EmbedArgs& args, Stream stream);

// hidden += delta where there is one; out = hidden / sqrt(mean(hidden²) + eps) · weight. With `gather`, row i of `out`
// is of row gather[i] of `hidden` (and `delta`), which stays as it is. (Zhang and Sennrich 2019)
struct NormArgs {
  float* hidden = nullptr;                 // (rows, hidden_size)
  const Bf16* delta = nullptr;             // (rows, hidden_size), or none
  const float* weight = nullptr;           // (hidden_size)
  const std::int32_t* gather = nullptr;    // (rows of out), or none
  Bf16* out = nullptr;                     // (rows, hidden_size)
  std::int32_t rows = 0, hidden_size = 0;  // rows of out; hidden_size a multiple of 4
  float eps = 0.0F;
};
void norm(const NormArgs& args, Stream stream);

// From the fused projection to queries and the cache: adds the bias, normalises queries and keys (where the model
// does), rotates them, and writes keys and values to their slots. Elements i and i + head_dim/2 form a pair, turned by
// the angle at [i] (Su et al. 2021, in Hugging Face's order of elements). In the projection the pairs stand together:
// elements 0 … 7 of a head, then their partners, elements 8 … 15, and so on.
struct QkvArgs {
  const Bf16* qkv = nullptr;            // (rows, num_heads + 2 num_kv_heads, head_dim), pairs together
  const float* bias = nullptr;          // (num_heads + 2 num_kv_heads, head_dim), or none
  const float* q_norm = nullptr;        // (head_dim), or none
  const float* k_norm = nullptr;        // (head_dim), or none
  const float* angles = nullptr;        // (rows, head_dim), as of embed()
  const std::int32_t* slots = nullptr;  // (rows): page · kPageTokens + offset; -1: a row of padding, written nowhere
  Bf16* queries = nullptr;              // (rows, num_heads, head_dim)
  unsigned char* kv = nullptr;          // one layer's, as CacheLayout says
  std::int32_t rows = 0, num_heads = 0, num_kv_heads = 0, head_dim = 0;  // head_dim: a multiple of 64, at most 256
  float eps = 0.0F;
  CacheType cache = CacheType::kBf16;

  constexpr CacheLayout layout() const { return {num_kv_heads, head_dim, cache}; }
};
void split_qkv(const QkvArgs& args, Stream stream);

// out (rows, inner) = silu(gate)·up; gate_up (rows, 2 inner) in blocks of 8 gates and 8 ups. inner: a multiple of 8.
void silu_mul(const Bf16* gate_up, Bf16* out, std::int32_t rows, std::int32_t inner, Stream stream);

// y (rows, size) += bias (size), in bfloat16.
void add_bias(Bf16* y, const float* bias, std::int32_t rows, std::int32_t size, Stream stream);

// out (rows, columns) row r: the `columns` numbers of `table` (table_size) from place places[r] on, round and round, as
// bfloat16. Random weights are made so.
void fill_from_table(const float* table, std::int32_t table_size, const std::uint32_t* places, Bf16* out,
                     std::int32_t rows, std::int32_t columns, Stream stream);

}  // namespace multiverse::kernels::cuda

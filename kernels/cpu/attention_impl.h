// Segment attention's inner loops for one instruction set; see math_impl.h for the rules of inclusion.
//
// State of a (row, query head) pair: the largest score so far, the sum of 2^(score - largest) kept apart for each of
// the 16 slots of a page, and the weighted sum of values. Scores are in base 2: q·k · log2(e) / sqrt(head_dim). Each
// page is folded in by itself, so the result does not depend on how pages are grouped.
#pragma once

#include "kernel_table.h"
#include "math_impl.h"

namespace {

struct AttentionState {
  float* largest;  // (pairs)
  float* sums;     // (pairs, 16)
  float* values;   // (pairs, padded_dim)
};

// Pairs [first, first + P) against one page. queries[i]: (head_dim); visible[i]: slots that pair i sees, ≥ 1.
struct PageTile {
  const float* const* queries;
  const int* visible;
  std::int32_t head_dim;
  std::int32_t padded_dim;
  float scale;
};

// weights (P, 16) = 2^(score - largest), after bringing `state` to the new largest.
template <int P>
inline void score_tile(const PageTile& tile, const float* keys, int first, const AttentionState& state,
                       float* weights) {
  // Two chains a pair (even and odd dimensions), so that few pairs still fill the multipliers' pipeline.
  Vectors<P> even, odd;
  for (int i = 0; i < P; ++i) even[i] = odd[i] = zero();
  for (std::int32_t d = 0; d < tile.head_dim; d += 2) {
    V16 key0 = load(keys + d * 16);
    V16 key1 = load(keys + d * 16 + 16);
    keep_in_register(key0);
    keep_in_register(key1);
    for (int i = 0; i < P; ++i) {
      even[i] = fma(set1(tile.queries[first + i][d]), key0, even[i]);
      odd[i] = fma(set1(tile.queries[first + i][d + 1]), key1, odd[i]);
    }
  }
  for (int i = 0; i < P; ++i) {
    V16 score = mul(add(even[i], odd[i]), set1(tile.scale));
    const int visible = tile.visible[first + i];
    if (visible < 16) score = ::first(score, visible, -__builtin_inff());
    float* sums = state.sums + (first + i) * 16;
    float& largest = state.largest[first + i];
    if (any_greater(score, largest)) {  // else the factor is exactly 1
      const float old = largest;
      largest = larger(old, reduce_max(score));
      alignas(64) float factors[16];
      store(factors, exp2(set1(old - largest)));
      const V16 factor = set1(factors[0]);
      store(sums, mul(load(sums), factor));
      float* values = state.values + static_cast<std::int64_t>(first + i) * tile.padded_dim;
      for (std::int32_t d = 0; d < tile.padded_dim; d += 16) store(values + d, mul(load(values + d), factor));
    }
    const V16 weight = exp2(sub(score, set1(largest)));
    store(weights + i * 16, weight);
    store(sums, add(load(sums), weight));
  }
}

// values[pair][d …] += Σ over slots of weight · value, for P pairs and D vectors of dimensions from d on.
template <int P, int D>
inline void value_tile(const float* page_values, const float* weights, int slots, std::int32_t padded_dim, float* out) {
  Vectors<D> sum[static_cast<unsigned>(P)];
  for (int i = 0; i < P; ++i) {
    for (int v = 0; v < D; ++v) sum[i][v] = load(out + i * padded_dim + v * 16);
  }
  for (int slot = 0; slot < slots; ++slot) {
    Vectors<D> value;
    for (int v = 0; v < D; ++v) {
      value[v] = load(page_values + slot * padded_dim + v * 16);
    }
    for (int i = 0; i < P; ++i) {
      const V16 weight = set1(weights[i * 16 + slot]);
      for (int v = 0; v < D; ++v) sum[i][v] = fma(weight, value[v], sum[i][v]);
    }
  }
  for (int i = 0; i < P; ++i) {
    for (int v = 0; v < D; ++v) store(out + i * padded_dim + v * 16, sum[i][v]);
  }
}

template <int P>
inline void value_columns(const float* page_values, const float* weights, int slots, std::int32_t padded_dim,
                          float* out) {
  std::int32_t d = 0;
  for (; d + 16 * kOutputVectors <= padded_dim; d += 16 * kOutputVectors) {
    value_tile<P, kOutputVectors>(page_values + d, weights, slots, padded_dim, out + d);
  }
  for (; d < padded_dim; d += 16) value_tile<P, 1>(page_values + d, weights, slots, padded_dim, out + d);
}

// All pairs [0, pairs) of the tile against one page.
inline void fold_page(const PageTile& tile, const float* page, int pairs, const AttentionState& state) {
  const float* page_values = page + tile.head_dim * 16;
  alignas(64) float weights[kScorePairs * 16];
  for (int first = 0; first < pairs; first += kScorePairs) {
    const int count = smaller(kScorePairs, pairs - first);
    dispatch<kScorePairs>(count, [&](auto p) { score_tile<decltype(p)::value>(tile, page, first, state, weights); });
    for (int i = 0; i < count; i += kOutputPairs) {
      const int group = smaller(kOutputPairs, count - i);
      int slots = 0;  // the others' weights are zero there
      for (int j = 0; j < group; ++j) slots = larger(slots, tile.visible[first + i + j]);
      float* out = state.values + static_cast<std::int64_t>(first + i) * tile.padded_dim;
      dispatch<kOutputPairs>(group, [&](auto p) {
        value_columns<decltype(p)::value>(page_values, weights + i * 16, slots, tile.padded_dim, out);
      });
    }
  }
}

struct BlockRows {
  std::int32_t begin, end;
};

// Folds one span into the rows of the block that it covers. State is indexed from the block's first pair.
inline void fold_span(const multiverse::kernels::AttentionArgs& args, const multiverse::kernels::AttentionSpan& span,
                      std::int32_t kv_head, BlockRows block, const AttentionState& state) {
  const std::int32_t begin = larger(span.row_begin, block.begin);
  const std::int32_t end = smaller(span.row_end, block.end);
  if (begin >= end) return;
  const std::int32_t group = args.num_heads / args.kv.num_kv_heads;
  const std::int32_t padded_dim = (args.kv.head_dim + 15) / 16 * 16;
  const std::int64_t page_floats = std::int64_t{16} * (args.kv.head_dim + padded_dim);
  const auto page_at = [&](std::int32_t n) {
    const std::int64_t id = args.pages[span.first_page + n];
    return args.kv.base + (std::int64_t{kv_head} * args.kv.num_pages + id) * page_floats;
  };
  // The block has at most kMaxPairs pairs; see block_rows in attention.cpp.
  const float* queries[multiverse::kernels::kMaxPairs];
  int visible[multiverse::kernels::kMaxPairs];
  const float scale = kLog2E / __builtin_sqrtf(static_cast<float>(args.kv.head_dim));

  const std::int32_t pages = (span.num_tokens + 15) / 16;
  for (std::int32_t n = 0; n < pages; ++n) {
    const std::int32_t left = span.num_tokens - n * 16;
    // A causal row r sees left - (row_end - 1 - r) slots from here on: the first rows may see none.
    const std::int32_t from = span.causal ? larger(begin, span.row_end - left) : begin;
    if (from >= end) break;
    int pairs = 0;
    for (std::int32_t row = from; row < end; ++row) {
      const std::int32_t seen = span.causal ? left - (span.row_end - 1 - row) : left;
      for (std::int32_t g = 0; g < group; ++g, ++pairs) {
        queries[pairs] =
            args.queries + row * args.query_stride + static_cast<std::int64_t>(kv_head * group + g) * args.kv.head_dim;
        visible[pairs] = smaller(16, seen);
      }
    }
    const std::int64_t skipped = static_cast<std::int64_t>(from - block.begin) * group;
    const AttentionState rows = {state.largest + skipped, state.sums + skipped * 16,
                                 state.values + skipped * padded_dim};
    fold_page({queries, visible, args.kv.head_dim, padded_dim, scale}, page_at(n), pairs, rows);
  }
}

void attention_block(const multiverse::kernels::AttentionArgs& args, std::int32_t kv_head, std::int32_t row_begin,
                     std::int32_t row_end, float* scratch) {
  const std::int32_t group = args.num_heads / args.kv.num_kv_heads;
  const std::int32_t head_dim = args.kv.head_dim;
  const std::int32_t padded_dim = (head_dim + 15) / 16 * 16;
  const std::int32_t pairs = (row_end - row_begin) * group;
  const AttentionState state = {scratch, scratch + multiverse::kernels::kMaxPairs,
                                scratch + multiverse::kernels::kMaxPairs * 17};
  for (std::int32_t i = 0; i < pairs; ++i) state.largest[i] = -__builtin_inff();
  for (std::int32_t i = 0; i < pairs; ++i) store(state.sums + i * 16, zero());
  for (std::int32_t i = 0; i < pairs * padded_dim; i += 16) store(state.values + i, zero());

  for (std::int32_t i = 0; i < args.num_spans; ++i)
    fold_span(args, args.spans[i], kv_head, {row_begin, row_end}, state);

  for (std::int32_t i = 0; i < pairs; ++i) {
    const std::int32_t row = row_begin + i / group;
    float* out = args.out + row * args.out_stride + static_cast<std::int64_t>(kv_head * group + i % group) * head_dim;
    const float* values = state.values + static_cast<std::int64_t>(i) * padded_dim;
    const float inverse = 1.0F / reduce_add(load(state.sums + i * 16));
    std::int32_t d = 0;
    for (; d + 16 <= head_dim; d += 16) store(out + d, mul(load(values + d), set1(inverse)));
    for (; d < head_dim; ++d) out[d] = values[d] * inverse;
  }
}

}  // namespace

#include <cmath>
#include <stdexcept>

#include "multiverse/kernels/cuda/attention.h"

#include "device.h"

namespace multiverse::kernels::cuda {
namespace {

constexpr int kWarps = 4;
constexpr int kThreads = kWarps * 32;
constexpr int kBlockTokens = 64;  // of a stage in shared memory
constexpr int kStages = 3;

// Values of 8 bits enter the matrix instructions as they are; what their scales are multiplied with beforehand, so that
// weights times small scales keep their digits in float16. Taken out at the end.
constexpr float kValueLift = 256.0F;

// A stage: 64 keys, then 64 values, each of `kPieces` pieces of 16 bytes, so placed that eight tokens' pieces of one
// column lie in different banks; then the scales of both, if there are any.
template <int kDim, CacheType kType>
struct Tile {
  static constexpr bool kScaled = kType == CacheType::kFp8;
  static constexpr int kRowBytes = kDim * (kScaled ? 1 : 2);
  static constexpr int kPieces = kRowBytes / 16;
  static constexpr int kKeyBytes = kBlockTokens * kRowBytes;
  static constexpr int kScales = 2 * kKeyBytes;  // where they begin: (key or value, kBlockTokens)
  static constexpr int kStageBytes = kScales + (kScaled ? 2 * kBlockTokens * 4 : 0);

  static __device__ int place(int token, int piece) {
    return (token * kPieces + (kPieces < 8 ? piece ^ (token / 2 & 3) : piece ^ (token & 7))) * 16;
  }
};

template <CacheType kType>
__device__ __forceinline__ unsigned pack(float low, float high) {
  return kType == CacheType::kBf16 ? pack_bf16(low, high) : pack_fp16(low, high);
}
template <CacheType kType>
__device__ __forceinline__ void multiply(float (&sum)[4], const unsigned (&a)[4], unsigned b0, unsigned b1) {
  if constexpr (kType == CacheType::kBf16) {
    multiply_add(sum, a[0], a[1], a[2], a[3], b0, b1);
  } else {
    multiply_add_fp16(sum, a[0], a[1], a[2], a[3], b0, b1);
  }
}

// What one KV head's share of a chunk needs.
struct Work {
  AttentionChunk chunk;
  const std::int32_t* pages;  // the chunk's
  const unsigned char* kv;    // of the KV head in page 0
  std::int64_t page_bytes;
  int kv_head;
  int group;

  __device__ int blocks() const { return (chunk.num_tokens + kBlockTokens - 1) / kBlockTokens; }
};

template <int kDim, CacheType kType>
__device__ void load_block(const Work& work, int block, unsigned char* stage) {
  using Stage = Tile<kDim, kType>;
  const auto page_of = [&](int place, bool valid) {
    return work.kv + work.pages[valid ? place / kPageTokens : 0] * work.page_bytes;
  };
  for (int i = threadIdx.x; i < kBlockTokens * Stage::kPieces; i += kThreads) {
    const int token = i / Stage::kPieces, piece = i % Stage::kPieces;
    const int place = block * kBlockTokens + token;
    const bool valid = place < work.chunk.num_tokens;
    const unsigned char* key = page_of(place, valid) + (place % kPageTokens) * Stage::kRowBytes + piece * 16;
    unsigned char* to = stage + Stage::place(token, piece);
    copy_async(to, key, valid);
    copy_async(to + Stage::kKeyBytes, key + kPageTokens * Stage::kRowBytes, valid);
  }
  if constexpr (Stage::kScaled) {
    constexpr int kPieceTokens = 4;
    for (int i = threadIdx.x; i < 2 * kBlockTokens / kPieceTokens; i += kThreads) {
      const int of_values = i / (kBlockTokens / kPieceTokens), token = i % (kBlockTokens / kPieceTokens) * kPieceTokens;
      const int place = block * kBlockTokens + token;
      const bool valid = place < work.chunk.num_tokens;
      const unsigned char* scales = page_of(place, valid) + 2 * kPageTokens * Stage::kRowBytes;
      copy_async(stage + Stage::kScales + (of_values * kBlockTokens + token) * 4,
                 scales + (of_values * kPageTokens + place % kPageTokens) * 4, valid);
    }
  }
}

// The state of a warp's 16 tile rows: this lane's rows are g and g + 8 of them. A lane gets four neighbours of an 8-bit
// key at a time, not two and two: so `query` holds the dimensions in that order, which a sum of products doesn't mind.
// Of 8-bit values the even dimensions of 16 make one matrix and the odd ones the next.
template <int kDim, CacheType kType>
struct State {
  static constexpr bool kScaled = Tile<kDim, kType>::kScaled;
  unsigned query[kDim / 16][4];
  float values[kDim / 8][4];
  float largest[2];
  float sum[2];  // this lane's share
  int limit[2];  // tokens that the rows see

  static constexpr int kPairs = kDim / 8;  // pairs of neighbouring dimensions that a lane holds of a row
  static __device__ int pair_place(int pair) {
    const int t = threadIdx.x % 4;
    return kScaled ? pair / 2 * 16 + 4 * t + pair % 2 * 2 : pair * 8 + 2 * t;
  }
  __device__ float2 pair_values(int pair, int half) const {
    if constexpr (kScaled) {
      const int even = pair / 2 * 2, i = 2 * half + pair % 2;
      return make_float2(values[even][i] * (1.0F / kValueLift), values[even + 1][i] * (1.0F / kValueLift));
    } else {
      return make_float2(values[pair][2 * half], values[pair][2 * half + 1]);
    }
  }
};

// Two neighbours of a query, for the matrix instructions.
template <CacheType kType>
__device__ __forceinline__ unsigned query_pair(const Bf16* query) {
  const unsigned both = *reinterpret_cast<const unsigned*>(query);
  return kType == CacheType::kBf16 ? both : pack_fp16(from_bf16(both & 0xFFFFU), from_bf16(both >> 16));
}

template <int kDim, CacheType kType>
__device__ void begin(const AttentionArgs& args, const Work& work, int tile_row, State<kDim, kType>& state) {
  constexpr bool kScaled = State<kDim, kType>::kScaled;
  const int lane = threadIdx.x % 32, g = lane / 4, t = lane % 4;
  for (int half = 0; half < 2; ++half) {
    const int m = tile_row + g + 8 * half;
    const bool valid = m < work.chunk.num_rows * work.group;
    const int row = valid ? m / work.group : 0;
    const std::int64_t head = work.kv_head * work.group + (valid ? m % work.group : 0);
    const Bf16* query =
        args.queries + ((work.chunk.row_begin + row) * std::int64_t{args.shape.num_heads} + head) * kDim;
#pragma unroll
    for (int k = 0; k < kDim / 16; ++k) {
      const Bf16* first = query + k * 16 + (kScaled ? 4 : 2) * t;
      state.query[k][half] = valid ? query_pair<kType>(first) : 0U;
      state.query[k][half + 2] = valid ? query_pair<kType>(first + (kScaled ? 2 : 8)) : 0U;
    }
    state.largest[half] = -INFINITY;
    state.sum[half] = 0.0F;
    state.limit[half] = valid ? work.chunk.first_limit + row * work.chunk.causal : 0;
  }
#pragma unroll
  for (int d = 0; d < kDim / 8; ++d) {
#pragma unroll
    for (int i = 0; i < 4; ++i) state.values[d][i] = 0.0F;
  }
}

// Scores of 16 tokens of a stage, from `token` on: queries times keys, without scale.
template <int kDim, CacheType kType>
__device__ __forceinline__ void score_tokens(const unsigned char* stage, int token, const State<kDim, kType>& state,
                                             float (&first)[4], float (&second)[4]) {
  const int lane = threadIdx.x % 32;
#pragma unroll
  for (int i = 0; i < 4; ++i) first[i] = second[i] = 0.0F;
#pragma unroll
  for (int column = 0; column < Tile<kDim, kType>::kPieces; column += 2) {
    // Matrices: 8 tokens' first piece of 16 bytes, the same tokens' second, the next 8 tokens' two.
    unsigned keys[4];
    load_matrices(keys, stage + Tile<kDim, kType>::place(token + lane / 16 * 8 + lane % 8, column + lane / 8 % 2));
    if constexpr (State<kDim, kType>::kScaled) {
#pragma unroll
      for (int piece = 0; piece < 2; ++piece) {
        const auto& query = state.query[column + piece];
        multiply<kType>(first, query, e4m3_to_fp16(keys[piece] & 0xFFFFU), e4m3_to_fp16(keys[piece] >> 16));
        multiply<kType>(second, query, e4m3_to_fp16(keys[piece + 2] & 0xFFFFU), e4m3_to_fp16(keys[piece + 2] >> 16));
      }
    } else {
      multiply<kType>(first, state.query[column / 2], keys[0], keys[1]);
      multiply<kType>(second, state.query[column / 2], keys[2], keys[3]);
    }
  }
}

// Adds the values of 16 tokens of a stage, from `token` on, times their weights.
template <int kDim, CacheType kType>
__device__ __forceinline__ void add_values(const unsigned char* stage, int token, const unsigned (&weights)[4],
                                           State<kDim, kType>& state) {
  const int lane = threadIdx.x % 32;
#pragma unroll
  for (int column = 0; column < Tile<kDim, kType>::kPieces; column += 2) {
    // Matrices: 8 tokens' piece of 16 bytes, the next 8 tokens', then both for the next piece.
    unsigned values[4];
    load_matrices_transposed(
        values, stage + Tile<kDim, kType>::kKeyBytes + Tile<kDim, kType>::place(token + lane % 16, column + lane / 16));
    if constexpr (State<kDim, kType>::kScaled) {
#pragma unroll
      for (int piece = 0; piece < 2; ++piece) {
        // Of two tokens two dimensions each: to one dimension of both, then the other.
        const unsigned near = swap_middle_bytes(values[2 * piece]), far = swap_middle_bytes(values[2 * piece + 1]);
        auto& even = state.values[2 * (column + piece)];
        auto& odd = state.values[2 * (column + piece) + 1];
        multiply<kType>(even, weights, e4m3_to_fp16(near & 0xFFFFU), e4m3_to_fp16(far & 0xFFFFU));
        multiply<kType>(odd, weights, e4m3_to_fp16(near >> 16), e4m3_to_fp16(far >> 16));
      }
    } else {
      multiply<kType>(state.values[column], weights, values[0], values[1]);
      multiply<kType>(state.values[column + 1], weights, values[2], values[3]);
    }
  }
}

// Folds kTokens tokens of a stage, from `token` on, into the state. place: of the first of them in the chunk.
template <int kTokens, int kDim, CacheType kType>
__device__ void fold(const unsigned char* stage, int token, int place, int num_tokens, float scale,
                     State<kDim, kType>& state) {
  constexpr bool kScaled = State<kDim, kType>::kScaled;
  const int t = threadIdx.x % 4;
  const auto* key_scales = reinterpret_cast<const float*>(stage + Tile<kDim, kType>::kScales) + token + 2 * t;
  const float* value_scales = key_scales + kBlockTokens;
  float score[kTokens / 8][4];
#pragma unroll
  for (int n = 0; n < kTokens / 8; n += 2) {
    score_tokens(stage, token + n * 8, state, score[n], score[n + 1]);
  }
  if constexpr (kScaled) {
#pragma unroll
    for (int n = 0; n < kTokens / 8; ++n) {
#pragma unroll
      for (int i = 0; i < 4; ++i) score[n][i] *= key_scales[n * 8 + i % 2];
    }
  }
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    const int limit = state.limit[half] < num_tokens ? state.limit[half] : num_tokens;
    float largest = state.largest[half];
#pragma unroll
    for (int n = 0; n < kTokens / 8; ++n) {
#pragma unroll
      for (int i = 2 * half; i < 2 * half + 2; ++i) {
        score[n][i] = place + n * 8 + 2 * t + i % 2 < limit ? score[n][i] * scale : -INFINITY;
        largest = fmaxf(largest, score[n][i]);
      }
    }
    largest = fmaxf(largest, exchange(largest, 1));
    largest = fmaxf(largest, exchange(largest, 2));
    const float base = largest == -INFINITY ? 0.0F : largest;  // no token seen yet: all weights 0, not NaN
    const float factor = exp2_fast(state.largest[half] - base);
    state.largest[half] = largest;
    float sum = 0.0F;
#pragma unroll
    for (int n = 0; n < kTokens / 8; ++n) {
#pragma unroll
      for (int i = 2 * half; i < 2 * half + 2; ++i) {
        score[n][i] = exp2_fast(score[n][i] - base);
        sum += score[n][i];
      }
    }
    state.sum[half] = state.sum[half] * factor + sum;
#pragma unroll
    for (int d = 0; d < kDim / 8; ++d) {
      state.values[d][2 * half] *= factor;
      state.values[d][2 * half + 1] *= factor;
    }
  }
  if constexpr (kScaled) {
#pragma unroll
    for (int n = 0; n < kTokens / 8; ++n) {
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        // What stands after the last token is no scale.
        const int at = n * 8 + i % 2;
        score[n][i] = place + 2 * t + at < num_tokens ? score[n][i] * (value_scales[at] * kValueLift) : 0.0F;
      }
    }
  }
#pragma unroll
  for (int n = 0; n < kTokens / 8; n += 2) {
    const unsigned weights[4] = {pack<kType>(score[n][0], score[n][1]), pack<kType>(score[n][2], score[n][3]),
                                 pack<kType>(score[n + 1][0], score[n + 1][1]),
                                 pack<kType>(score[n + 1][2], score[n + 1][3])};
    add_values(stage, token + n * 8, weights, state);
  }
}

// One warp's result in shared memory, for warps that share a tile row's tokens.
template <int kDim>
struct Shared {
  static constexpr int kStride = kDim + 8;
  float values[kWarps][16][kStride];
  float largest[kWarps][16];
  float sum[kWarps][16];
};

template <int kDim>
__device__ void store(const AttentionArgs& args, const Work& work, int m, int d, float2 value) {
  const std::int64_t part = work.chunk.part + m / work.group;
  const std::int64_t head = work.kv_head * work.group + m % work.group;
  *reinterpret_cast<float2*>(args.part_values + (part * args.shape.num_heads + head) * kDim + d) = value;
}
__device__ void store_sum(const AttentionArgs& args, const Work& work, int m, float largest, float sum) {
  const std::int64_t part = work.chunk.part + m / work.group;
  const std::int64_t head = work.kv_head * work.group + m % work.group;
  *reinterpret_cast<float2*>(args.part_sums + (part * args.shape.num_heads + head) * 2) = make_float2(largest, sum);
}

// Adds up what the warps of each tile row found. All threads of the block; shared memory is free before and after.
template <int kRowWarps, int kDim, CacheType kType>
__device__ void merge_warps(const AttentionArgs& args, const Work& work, int tile_rows, const State<kDim, kType>& state,
                            unsigned char* memory) {
  constexpr int kTokenWarps = kWarps / kRowWarps;
  auto& shared = *reinterpret_cast<Shared<kDim>*>(memory);
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32, g = lane / 4;
  for (int half = 0; half < 2; ++half) {
    const int row = g + 8 * half;
#pragma unroll
    for (int pair = 0; pair < state.kPairs; ++pair) {
      *reinterpret_cast<float2*>(&shared.values[warp][row][state.pair_place(pair)]) = state.pair_values(pair, half);
    }
    if (lane % 4 == 0) {
      shared.largest[warp][row] = state.largest[half];
      shared.sum[warp][row] = state.sum[half];
    }
  }
  sync_block();
  for (int i = threadIdx.x; i < tile_rows * (kDim / 2); i += kThreads) {
    const int m = i / (kDim / 2), d = i % (kDim / 2) * 2;
    const int first = m / 16, row = m % 16;
    float largest = -INFINITY;
    for (int w = 0; w < kTokenWarps; ++w) largest = fmaxf(largest, shared.largest[first + w * kRowWarps][row]);
    const float base = largest == -INFINITY ? 0.0F : largest;
    float2 value = make_float2(0.0F, 0.0F);
    float sum = 0.0F;
    for (int w = 0; w < kTokenWarps; ++w) {
      const int from = first + w * kRowWarps;
      const float factor = exp2_fast(shared.largest[from][row] - base);
      value.x += shared.values[from][row][d] * factor;
      value.y += shared.values[from][row][d + 1] * factor;
      sum += shared.sum[from][row] * factor;
    }
    store<kDim>(args, work, m, d, value);
    if (d == 0) store_sum(args, work, m, largest, sum);
  }
  sync_block();
}

// The first stages of a chunk, as far as they may be read before wait_for_previous(); returns how many those are.
template <int kDim, CacheType kType>
__device__ int load_early(const Work& work, unsigned char* memory) {
  const int old = work.chunk.num_old == work.chunk.num_tokens ? work.blocks() : work.chunk.num_old / kBlockTokens;
  const int early = old < kStages - 1 ? old : kStages - 1;
  for (int stage = 0; stage < early; ++stage) {
    load_block<kDim, kType>(work, stage, memory + stage * Tile<kDim, kType>::kStageBytes);
    copy_commit();
  }
  return early;
}

// `loaded`: stages that load_early() has begun.
template <int kDim, CacheType kType, int kRowWarps>
__device__ void attend(const AttentionArgs& args, const Work& work, float scale, int loaded, unsigned char* memory) {
  constexpr int kStageBytes = Tile<kDim, kType>::kStageBytes;
  constexpr int kTokenWarps = kWarps / kRowWarps;
  constexpr int kWarpTokens = kBlockTokens / kTokenWarps;
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32, g = lane / 4;
  const int tile_row = warp % kRowWarps * 16, token = warp / kRowWarps * kWarpTokens;
  const int tile_rows = work.chunk.num_rows * work.group;
  const int blocks = work.blocks();
  for (int stage = loaded; stage < kStages - 1; ++stage) {
    if (stage < blocks) load_block<kDim, kType>(work, stage, memory + stage * kStageBytes);
    copy_commit();
  }
  State<kDim, kType> state;
  begin(args, work, tile_row, state);
  for (int block = 0; block < blocks; ++block) {
    copy_wait<kStages - 2>();  // this block has arrived, for this thread; after the barrier for all
    sync_block();              // and all are done with the stage that is filled next
    const int next = block + kStages - 1;
    if (next < blocks) load_block<kDim, kType>(work, next, memory + next % kStages * kStageBytes);
    copy_commit();
    const int place = block * kBlockTokens + token;
    if (tile_row < tile_rows && place < work.chunk.num_tokens) {
      fold<kWarpTokens>(memory + block % kStages * kStageBytes, token, place, work.chunk.num_tokens, scale, state);
    }
  }
  for (int half = 0; half < 2; ++half) {
    state.sum[half] += exchange(state.sum[half], 1);
    state.sum[half] += exchange(state.sum[half], 2);
  }
  copy_wait<0>();
  sync_block();
  if constexpr (kTokenWarps > 1) {
    merge_warps<kRowWarps>(args, work, tile_rows, state, memory);
  } else {
    for (int half = 0; half < 2; ++half) {
      const int m = tile_row + g + 8 * half;
      if (m >= tile_rows) continue;
#pragma unroll
      for (int pair = 0; pair < state.kPairs; ++pair) {
        store<kDim>(args, work, m, state.pair_place(pair), state.pair_values(pair, half));
      }
      if (lane % 4 == 0) store_sum(args, work, m, state.largest[half], state.sum[half]);
    }
  }
}

template <int kDim, CacheType kType>
__global__ void __launch_bounds__(kThreads, 2) attend_chunks(AttentionArgs args, float scale) {
  let_next_start();
  const AttentionPlan plan = *args.plan;
  const int kv_heads = args.shape.num_kv_heads;
  const int num_works = plan.num_chunks * kv_heads;
  unsigned char* memory = shared_memory();
  const auto work_of = [&](int i) {
    Work work;
    work.chunk = plan.chunks[i / kv_heads];
    work.pages = plan.pages + work.chunk.first_page;
    work.kv_head = i % kv_heads;
    const CacheLayout layout = {kv_heads, kDim, kType};
    work.kv = args.kv + work.kv_head * layout.block_bytes();
    work.page_bytes = layout.page_bytes();
    work.group = args.shape.num_heads / kv_heads;
    return work;
  };
  int i = blockIdx.x;
  // Blocks without work make room for the next kernel's. One must wait: see wait_for_previous().
  if (i >= num_works && i > 0) return;
  int loaded = i < num_works ? load_early<kDim, kType>(work_of(i), memory) : 0;
  wait_for_previous();
  for (; i < num_works; i += gridDim.x) {
    const Work work = work_of(i);
    if (work.chunk.warps_by_rows == 1) {
      attend<kDim, kType, 1>(args, work, scale, loaded, memory);
    } else if (work.chunk.warps_by_rows == 2) {
      attend<kDim, kType, 2>(args, work, scale, loaded, memory);
    } else {
      attend<kDim, kType, 4>(args, work, scale, loaded, memory);
    }
    loaded = 0;
  }
}

// What a lane knows of one part of a (row, head).
struct Part {
  std::int64_t place;
  float largest, sum;
};

__device__ __forceinline__ Part load_part(const AttentionArgs& args, const AttentionPlan& plan, int index, int last,
                                          int head) {
  if (index >= last) return {0, -INFINITY, 0.0F};
  const std::int64_t place = std::int64_t{plan.row_parts[index]} * args.shape.num_heads + head;
  const float2 sums = *reinterpret_cast<const float2*>(args.part_sums + place * 2);
  return {place, sums.x, sums.y};
}

// A warp for each (row, head): the row's parts, weighted by their sums, in order. A lane for each part, then for each
// few elements of the head.
template <int kDim>
__global__ void __launch_bounds__(kThreads) merge_parts(AttentionArgs args) {
  constexpr int kLaneDims = kDim / 32;
  constexpr int kAtOnce = 16;  // parts on their way together
  let_next_start();
  const int lane = threadIdx.x % 32, pair = blockIdx.x * kWarps + threadIdx.x / 32;
  const int row = pair / args.shape.num_heads, head = pair % args.shape.num_heads;
  const AttentionPlan plan = *args.plan;
  const bool valid = row >= plan.row_begin && row < plan.row_end;
  if (!valid && blockIdx.x > 0) return;
  wait_for_previous();
  if (!valid) return;
  const int first = plan.row_first[row], last = plan.row_first[row + 1];
  const Part mine = load_part(args, plan, first + lane, last, head);
  float largest = mine.largest;
  for (int i = first + 32 + lane; i < last; i += 32)
    largest = fmaxf(largest, load_part(args, plan, i, last, head).largest);
  for (int mask = 16; mask > 0; mask /= 2) largest = fmaxf(largest, exchange(largest, mask));
  float sum = 0.0F, values[kLaneDims] = {};
  for (int begin = first; begin < last; begin += 32) {
    const Part part = begin == first ? mine : load_part(args, plan, begin + lane, last, head);
    const float weight = exp2_fast(part.largest - largest);
    for (int from = 0; from < 32 && begin + from < last; from += kAtOnce) {
      float2 loaded[kAtOnce][kLaneDims / 2];
#pragma unroll
      for (int i = 0; i < kAtOnce; ++i) {
        const std::int64_t place = broadcast(part.place, from + i) * kDim + lane * kLaneDims;
#pragma unroll
        for (int d = 0; d < kLaneDims / 2; ++d) {
          loaded[i][d] = begin + from + i < last ? *reinterpret_cast<const float2*>(args.part_values + place + 2 * d)
                                                 : make_float2(0.0F, 0.0F);
        }
      }
#pragma unroll
      for (int i = 0; i < kAtOnce; ++i) {
        const float factor = broadcast(weight, from + i);
        sum += broadcast(part.sum, from + i) * factor;
#pragma unroll
        for (int d = 0; d < kLaneDims / 2; ++d) {
          values[2 * d] += loaded[i][d].x * factor;
          values[2 * d + 1] += loaded[i][d].y * factor;
        }
      }
    }
  }
  const float inverse = sum > 0.0F ? 1.0F / sum : 0.0F;
  const std::int64_t to = (std::int64_t{row} * args.shape.num_heads + head) * kDim + lane * kLaneDims;
#pragma unroll
  for (int d = 0; d < kLaneDims; d += 2) {
    *reinterpret_cast<unsigned*>(args.out + to + d) = pack_bf16(values[d] * inverse, values[d + 1] * inverse);
  }
}

template <int kDim, CacheType kType>
void run(const AttentionArgs& args, int blocks, Stream stream) {
  constexpr float kLog2E = 1.44269504088896341F;
  const float scale = kLog2E / std::sqrt(static_cast<float>(kDim));
  constexpr int kMemory = kStages * Tile<kDim, kType>::kStageBytes;
  static_assert(sizeof(Shared<kDim>) <= kMemory, "the warps' results reuse the stages");
  LaunchShape shape;
  shape.blocks_x = static_cast<unsigned>(blocks);
  shape.threads = kThreads;
  shape.shared_bytes = kMemory;
  launch("attention", attend_chunks<kDim, kType>, shape, stream, args, scale);
  LaunchShape merge;
  merge.blocks_x = static_cast<unsigned>((args.max_rows * args.shape.num_heads + kWarps - 1) / kWarps);
  merge.threads = kThreads;
  launch("merge of attention's parts", merge_parts<kDim>, merge, stream, args);
}

template <int kDim>
void run_for_type(const AttentionArgs& args, int blocks, Stream stream) {
  switch (args.shape.cache) {
    case CacheType::kBf16:
      return run<kDim, CacheType::kBf16>(args, blocks, stream);
    case CacheType::kFp16:
      return run<kDim, CacheType::kFp16>(args, blocks, stream);
    case CacheType::kFp8:
      return run<kDim, CacheType::kFp8>(args, blocks, stream);
  }
}

}  // namespace

void segment_attention(const AttentionArgs& args, int blocks, Stream stream) {
  if (args.shape.head_dim == 64) {
    run_for_type<64>(args, blocks, stream);
  } else if (args.shape.head_dim == 128) {
    run_for_type<128>(args, blocks, stream);
  } else {
    throw std::runtime_error("attention: head_dim is neither 64 nor 128");
  }
}

}  // namespace multiverse::kernels::cuda

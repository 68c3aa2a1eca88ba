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

// A stage: 64 keys, then 64 values, each of `kPieces` pieces of 16 bytes; piece c of token n stands at c ^ (n % 8), so
// that eight tokens' pieces of one column lie in different banks.
template <int kDim>
struct Tile {
  static constexpr int kPieces = kDim / 8;
  static constexpr int kKeyBytes = kBlockTokens * kDim * 2;
  static constexpr int kStageBytes = 2 * kKeyBytes;

  static __device__ int place(int token, int piece) { return (token * kPieces + (piece ^ (token & 7))) * 16; }
};

// What one KV head's share of a chunk needs.
struct Work {
  AttentionChunk chunk;
  const std::int32_t* pages;  // the chunk's
  const Bf16* kv;             // of the KV head in page 0
  std::int64_t page_stride;
  int kv_head;
  int group;

  __device__ int blocks() const { return (chunk.num_tokens + kBlockTokens - 1) / kBlockTokens; }
};

template <int kDim>
__device__ void load_block(const Work& work, int block, unsigned char* stage) {
  for (int i = threadIdx.x; i < kBlockTokens * Tile<kDim>::kPieces; i += kThreads) {
    const int token = i / Tile<kDim>::kPieces, piece = i % Tile<kDim>::kPieces;
    const int place = block * kBlockTokens + token;
    const bool valid = place < work.chunk.num_tokens;
    const std::int64_t page = work.pages[valid ? place / kPageTokens : 0];
    const Bf16* key = work.kv + page * work.page_stride + (place % kPageTokens) * kDim + piece * 8;
    unsigned char* to = stage + Tile<kDim>::place(token, piece);
    copy_async(to, key, valid);
    copy_async(to + Tile<kDim>::kKeyBytes, key + kPageTokens * kDim, valid);
  }
}

// The state of a warp's 16 tile rows: this lane's rows are g and g + 8 of them.
template <int kDim>
struct State {
  unsigned query[kDim / 16][4];
  float values[kDim / 8][4];
  float largest[2];
  float sum[2];  // this lane's share
  int limit[2];  // tokens that the rows see
};

template <int kDim>
__device__ void begin(const AttentionArgs& args, const Work& work, int tile_row, State<kDim>& state) {
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
      state.query[k][half] = valid ? *reinterpret_cast<const unsigned*>(query + k * 16 + 2 * t) : 0U;
      state.query[k][half + 2] = valid ? *reinterpret_cast<const unsigned*>(query + k * 16 + 2 * t + 8) : 0U;
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

// Folds kTokens tokens of a stage, from `token` on, into the state. place: of the first of them in the chunk.
template <int kDim, int kTokens>
__device__ void fold(const unsigned char* stage, int token, int place, int num_tokens, float scale,
                     State<kDim>& state) {
  const int lane = threadIdx.x % 32, t = lane % 4;
  float score[kTokens / 8][4];
#pragma unroll
  for (int n = 0; n < kTokens / 8; n += 2) {
#pragma unroll
    for (int i = 0; i < 4; ++i) score[n][i] = score[n + 1][i] = 0.0F;
#pragma unroll
    for (int k = 0; k < kDim / 16; ++k) {
      // Matrices: 8 tokens' k … k + 7, the same tokens' k + 8 …, the next 8 tokens' two.
      unsigned keys[4];
      load_matrices(keys, stage + Tile<kDim>::place(token + n * 8 + lane / 16 * 8 + lane % 8, 2 * k + lane / 8 % 2));
      multiply_add(score[n], state.query[k][0], state.query[k][1], state.query[k][2], state.query[k][3], keys[0],
                   keys[1]);
      multiply_add(score[n + 1], state.query[k][0], state.query[k][1], state.query[k][2], state.query[k][3], keys[2],
                   keys[3]);
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
#pragma unroll
  for (int n = 0; n < kTokens / 8; n += 2) {
    const unsigned a0 = pack_bf16(score[n][0], score[n][1]), a1 = pack_bf16(score[n][2], score[n][3]);
    const unsigned a2 = pack_bf16(score[n + 1][0], score[n + 1][1]), a3 = pack_bf16(score[n + 1][2], score[n + 1][3]);
#pragma unroll
    for (int d = 0; d < kDim / 8; d += 2) {
      // Matrices: 8 tokens' 8 dimensions, the next 8 tokens', then both for the next 8 dimensions.
      unsigned values[4];
      load_matrices_transposed(
          values, stage + Tile<kDim>::kKeyBytes + Tile<kDim>::place(token + n * 8 + lane % 16, d + lane / 16));
      multiply_add(state.values[d], a0, a1, a2, a3, values[0], values[1]);
      multiply_add(state.values[d + 1], a0, a1, a2, a3, values[2], values[3]);
    }
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
template <int kDim, int kRowWarps>
__device__ void merge_warps(const AttentionArgs& args, const Work& work, int tile_rows, const State<kDim>& state,
                            unsigned char* memory) {
  constexpr int kTokenWarps = kWarps / kRowWarps;
  auto& shared = *reinterpret_cast<Shared<kDim>*>(memory);
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32, g = lane / 4, t = lane % 4;
  for (int half = 0; half < 2; ++half) {
    const int row = g + 8 * half;
#pragma unroll
    for (int d = 0; d < kDim / 8; ++d) {
      *reinterpret_cast<float2*>(&shared.values[warp][row][d * 8 + 2 * t]) =
          make_float2(state.values[d][2 * half], state.values[d][2 * half + 1]);
    }
    if (t == 0) {
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
template <int kDim>
__device__ int load_early(const Work& work, unsigned char* memory) {
  const int old = work.chunk.num_old == work.chunk.num_tokens ? work.blocks() : work.chunk.num_old / kBlockTokens;
  const int early = old < kStages - 1 ? old : kStages - 1;
  for (int stage = 0; stage < early; ++stage) {
    load_block<kDim>(work, stage, memory + stage * Tile<kDim>::kStageBytes);
    copy_commit();
  }
  return early;
}

// `loaded`: stages that load_early() has begun.
template <int kDim, int kRowWarps>
__device__ void attend(const AttentionArgs& args, const Work& work, float scale, int loaded, unsigned char* memory) {
  constexpr int kTokenWarps = kWarps / kRowWarps;
  constexpr int kWarpTokens = kBlockTokens / kTokenWarps;
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32, g = lane / 4, t = lane % 4;
  const int tile_row = warp % kRowWarps * 16, token = warp / kRowWarps * kWarpTokens;
  const int tile_rows = work.chunk.num_rows * work.group;
  const int blocks = work.blocks();
  for (int stage = loaded; stage < kStages - 1; ++stage) {
    if (stage < blocks) load_block<kDim>(work, stage, memory + stage * Tile<kDim>::kStageBytes);
    copy_commit();
  }
  State<kDim> state;
  begin(args, work, tile_row, state);
  for (int block = 0; block < blocks; ++block) {
    copy_wait<kStages - 2>();  // this block has arrived, for this thread; after the barrier for all
    sync_block();              // and all are done with the stage that is filled next
    const int next = block + kStages - 1;
    if (next < blocks) load_block<kDim>(work, next, memory + next % kStages * Tile<kDim>::kStageBytes);
    copy_commit();
    const int place = block * kBlockTokens + token;
    if (tile_row < tile_rows && place < work.chunk.num_tokens) {
      fold<kDim, kWarpTokens>(memory + block % kStages * Tile<kDim>::kStageBytes, token, place, work.chunk.num_tokens,
                              scale, state);
    }
  }
  for (int half = 0; half < 2; ++half) {
    state.sum[half] += exchange(state.sum[half], 1);
    state.sum[half] += exchange(state.sum[half], 2);
  }
  copy_wait<0>();
  sync_block();
  if constexpr (kTokenWarps > 1) {
    merge_warps<kDim, kRowWarps>(args, work, tile_rows, state, memory);
  } else {
    for (int half = 0; half < 2; ++half) {
      const int m = tile_row + g + 8 * half;
      if (m >= tile_rows) continue;
#pragma unroll
      for (int d = 0; d < kDim / 8; ++d) {
        store<kDim>(args, work, m, d * 8 + 2 * t,
                    make_float2(state.values[d][2 * half], state.values[d][2 * half + 1]));
      }
      if (t == 0) store_sum(args, work, m, state.largest[half], state.sum[half]);
    }
  }
}

template <int kDim>
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
    work.kv = args.kv + std::int64_t{work.kv_head} * 2 * kPageTokens * kDim;
    work.page_stride = std::int64_t{2} * kPageTokens * kDim * kv_heads;
    work.group = args.shape.num_heads / kv_heads;
    return work;
  };
  int i = blockIdx.x;
  // Blocks without work make room for the next kernel's. One must wait: see wait_for_previous().
  if (i >= num_works && i > 0) return;
  int loaded = i < num_works ? load_early<kDim>(work_of(i), memory) : 0;
  wait_for_previous();
  for (; i < num_works; i += gridDim.x) {
    const Work work = work_of(i);
    if (work.chunk.warps_by_rows == 1) {
      attend<kDim, 1>(args, work, scale, loaded, memory);
    } else if (work.chunk.warps_by_rows == 2) {
      attend<kDim, 2>(args, work, scale, loaded, memory);
    } else {
      attend<kDim, 4>(args, work, scale, loaded, memory);
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

template <int kDim>
void run(const AttentionArgs& args, int blocks, Stream stream) {
  constexpr float kLog2E = 1.44269504088896341F;
  const float scale = kLog2E / std::sqrt(static_cast<float>(kDim));
  static_assert(sizeof(Shared<kDim>) <= kStages * Tile<kDim>::kStageBytes, "the warps' results reuse the stages");
  LaunchShape shape;
  shape.blocks_x = static_cast<unsigned>(blocks);
  shape.threads = kThreads;
  shape.shared_bytes = kStages * Tile<kDim>::kStageBytes;
  launch("attention", attend_chunks<kDim>, shape, stream, args, scale);
  LaunchShape merge;
  merge.blocks_x = static_cast<unsigned>((args.max_rows * args.shape.num_heads + kWarps - 1) / kWarps);
  merge.threads = kThreads;
  launch("merge of attention's parts", merge_parts<kDim>, merge, stream, args);
}

}  // namespace

void segment_attention(const AttentionArgs& args, int blocks, Stream stream) {
  if (args.shape.head_dim == 64) {
    run<64>(args, blocks, stream);
  } else if (args.shape.head_dim == 128) {
    run<128>(args, blocks, stream);
  } else {
    throw std::runtime_error("attention: head_dim is neither 64 nor 128");
  }
}

}  // namespace multiverse::kernels::cuda

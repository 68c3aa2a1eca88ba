// Linear layers by even shares. The work is cut into units of kTileOutputs × kUnitInputs weights, and the units, tile
// by tile, into even shares for a fixed number of blocks. A block streams its share through a ring in shared memory;
// where a tile's units belong to several blocks, each leaves its sums in memory and the last to arrive adds them up in
// the blocks' order. Weights never change, so a block fills its ring before it waits for what ran before: that hides
// the gap between two kernels. The ring takes more than half of a multiprocessor's shared memory: two blocks on one
// would each be slower than those alone, and all wait for the slowest.
#include <algorithm>

#include "linear_output.h"

namespace multiverse::kernels::cuda {
namespace {

constexpr int kWarps = 8;
constexpr int kThreads = kWarps * 32;
constexpr int kTileOutputs = kWarps * 16;
constexpr int kUnitInputs = 64;
constexpr int kPieces = kUnitInputs / 8;  // of 16 bytes
// Of cards with 163 KiB and more of shared memory (8.0, 9.0, 10.0), and of the others, with 99.
constexpr int kRingBytes = 126 << 10, kSmallRingBytes = 96 << 10;

// A stage of the ring: kTileOutputs rows of W, then kRows rows of x. Piece c of row n stands at c ^ (n % 8), so that
// eight rows' pieces of one column lie in different banks.
template <int kRows>
struct Ring {
  static constexpr int kWeightBytes = kTileOutputs * kUnitInputs * 2;
  static constexpr int kStageBytes = kWeightBytes + kRows * kUnitInputs * 2;
  static constexpr int kStages = kRingBytes / kStageBytes, kSmallStages = kSmallRingBytes / kStageBytes;
  static_assert(kStages * kStageBytes > 114 << 10 && kSmallStages * kStageBytes > 50 << 10, "a second block would fit");
};

__device__ __forceinline__ int place_of(int row, int piece) {
  return (row * kPieces + (piece ^ (row & 7))) * 16;
}

// The units [begin, end) of this block, numbered tile by tile.
struct Share {
  int units;  // of a tile
  int total;
  int begin, end;

  __device__ explicit Share(const LinearArgs& args) {
    units = (args.inputs + kUnitInputs - 1) / kUnitInputs;
    total = units * ((args.outputs + kTileOutputs - 1) / kTileOutputs);
    begin = first_of(blockIdx.x);
    end = first_of(blockIdx.x + 1);
  }
  __device__ int first_of(unsigned block) const { return static_cast<int>(std::int64_t{total} * block / gridDim.x); }
  __device__ int owner_of(int unit) const {
    return static_cast<int>(((unit + 1) * std::int64_t{gridDim.x} - 1) / total);
  }
};

__device__ __forceinline__ void load_weights(const LinearArgs& args, int tile, int unit, unsigned char* stage) {
  const int piece = threadIdx.x % kPieces, k = unit * kUnitInputs + piece * 8;
#pragma unroll
  for (int i = 0; i < kTileOutputs * kPieces / kThreads; ++i) {
    const int row = threadIdx.x / kPieces + i * (kThreads / kPieces), output = tile * kTileOutputs + row;
    const bool valid = output < args.outputs && k < args.inputs;
    copy_async(stage + place_of(row, piece), args.weights + (valid ? std::int64_t{output} * args.inputs + k : 0),
               valid);
  }
}

template <int kRows>
__device__ __forceinline__ void load_x(const LinearArgs& args, int unit, unsigned char* stage) {
  const int piece = threadIdx.x % kPieces, k = unit * kUnitInputs + piece * 8;
#pragma unroll
  for (int i = 0; i < (kRows * kPieces + kThreads - 1) / kThreads; ++i) {
    const int row = threadIdx.x / kPieces + i * (kThreads / kPieces);
    if (row >= kRows) break;
    const bool valid = row < args.rows && k < args.inputs;
    copy_async(stage + Ring<kRows>::kWeightBytes + place_of(row, piece),
               args.x + (valid ? std::int64_t{row} * args.inputs + k : 0), valid);
  }
}

// This warp's 16 outputs of a stage times all rows of x. sum[n]: of rows 8n … 8n + 7, as of multiply_add().
template <int kRows>
__device__ __forceinline__ void multiply_stage(const unsigned char* stage, float (&sum)[kRows / 8][4]) {
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
#pragma unroll
  for (int piece = 0; piece < kPieces; piece += 4) {
    unsigned first[4], second[4];  // of k … k + 15 and k + 16 … k + 31
    const int row = warp * 16 + lane % 16;
    load_matrices(first, stage + place_of(row, piece + lane / 16));
    load_matrices(second, stage + place_of(row, piece + 2 + lane / 16));
#pragma unroll
    for (int n = 0; n < kRows / 8; ++n) {
      unsigned x[4];
      load_matrices(x, stage + Ring<kRows>::kWeightBytes + place_of(n * 8 + lane % 8, piece + lane / 8));
      multiply_add(sum[n], first[0], first[1], first[2], first[3], x[0], x[1]);
      multiply_add(sum[n], second[0], second[1], second[2], second[3], x[2], x[3]);
    }
  }
}

// The tile's results, from the sums as multiply_add() leaves them.
template <int kRows, LinearOutput kOutput>
__device__ void store(const LinearArgs& args, int tile, const float (&sum)[kRows / 8][4]) {
  const int lane = threadIdx.x % 32, g = lane / 4, t = lane % 4;
  const int output = tile * kTileOutputs + threadIdx.x / 32 * 16 + g;
#pragma unroll
  for (int n = 0; n < kRows / 8; ++n) {
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      const int row = n * 8 + 2 * t + i;
      if (row < args.rows) store_outputs<kOutput>(args, row, output, sum[n][i], sum[n][i + 2]);
    }
  }
}

// The sums of this block for `tile`. If it has the whole tile they are stored; otherwise they go to memory, and the
// last block to come adds up all blocks'. All threads; the block's barrier stands between two calls.
template <int kRows, LinearOutput kOutput>
__device__ void finish(const LinearArgs& args, const Share& share, int tile, float (&sum)[kRows / 8][4]) {
  __shared__ bool is_last;
  const int first_unit = tile * share.units, last_unit = first_unit + share.units - 1;
  if (share.begin <= first_unit && share.end > last_unit) return store<kRows, kOutput>(args, tile, sum);
  auto* partials = reinterpret_cast<float4*>(args.scratch.partials);
  // A block has two places: for a tile that began before its share, and for one that ends after it.
  const auto of_block = [&](int block, int n) -> float4* {
    const int place = 2 * block + (share.first_of(block) > first_unit ? 0 : 1);
    return partials + (std::int64_t{place} * (kRows / 8) + n) * kThreads + threadIdx.x;
  };
#pragma unroll
  for (int n = 0; n < kRows / 8; ++n) {
    *of_block(blockIdx.x, n) = make_float4(sum[n][0], sum[n][1], sum[n][2], sum[n][3]);
  }
  const int first = share.owner_of(first_unit), last = share.owner_of(last_unit);
  sync_block();
  if (threadIdx.x == 0) is_last = arrive(args.scratch.arrivals + tile) == last - first;
  sync_block();
  if (!is_last) return;
#pragma unroll
  for (int n = 0; n < kRows / 8; ++n) sum[n][0] = sum[n][1] = sum[n][2] = sum[n][3] = 0.0F;
  constexpr int kAtOnce = 128 / kRows;  // blocks whose sums are on their way together
  for (int block = first; block <= last; block += kAtOnce) {
    float4 part[kAtOnce][kRows / 8];
#pragma unroll
    for (int b = 0; b < kAtOnce; ++b) {
#pragma unroll
      for (int n = 0; n < kRows / 8; ++n) {
        part[b][n] = block + b <= last ? load_coherent(of_block(block + b, n)) : make_float4(0.0F, 0.0F, 0.0F, 0.0F);
      }
    }
#pragma unroll
    for (int b = 0; b < kAtOnce; ++b) {
#pragma unroll
      for (int n = 0; n < kRows / 8; ++n) {
        sum[n][0] += part[b][n].x;
        sum[n][1] += part[b][n].y;
        sum[n][2] += part[b][n].z;
        sum[n][3] += part[b][n].w;
      }
    }
  }
  store<kRows, kOutput>(args, tile, sum);
  if (threadIdx.x == 0) args.scratch.arrivals[tile] = 0;  // for the next layer
}

template <int kRows, int kStages, LinearOutput kOutput>
__global__ void __launch_bounds__(kThreads) linear_layer(LinearArgs args) {
  const Share share(args);
  unsigned char* ring = shared_memory();
  const int first_tile = share.begin / share.units, first_unit = share.begin % share.units;
  let_next_start();
  int load_tile = first_tile, load_unit = first_unit;
  const auto advance = [&] {
    if (++load_unit == share.units) {
      load_unit = 0;
      ++load_tile;
    }
  };
#pragma unroll
  for (int stage = 0; stage < kStages - 1; ++stage) {
    if (share.begin + stage < share.end)
      load_weights(args, load_tile, load_unit, ring + stage * Ring<kRows>::kStageBytes);
    advance();
  }
  copy_commit();
  wait_for_previous();
  load_unit = first_unit;
#pragma unroll
  for (int stage = 0; stage < kStages - 1; ++stage) {
    if (share.begin + stage < share.end) load_x<kRows>(args, load_unit, ring + stage * Ring<kRows>::kStageBytes);
    copy_commit();
    if (++load_unit == share.units) load_unit = 0;
  }

  float sum[kRows / 8][4] = {};
  int tile = first_tile, unit = first_unit, stage = 0, load_stage = kStages - 1;
  for (int i = share.begin; i < share.end; ++i) {
    copy_wait<kStages - 2>();  // this stage has arrived, for this thread; after the barrier for all
    sync_block();              // and all are done with the stage that is filled next
    if (i + kStages - 1 < share.end) {
      unsigned char* to = ring + load_stage * Ring<kRows>::kStageBytes;
      load_weights(args, load_tile, load_unit, to);
      load_x<kRows>(args, load_unit, to);
      advance();
    }
    copy_commit();
    load_stage = load_stage + 1 == kStages ? 0 : load_stage + 1;
    multiply_stage<kRows>(ring + stage * Ring<kRows>::kStageBytes, sum);
    stage = stage + 1 == kStages ? 0 : stage + 1;
    if (++unit < share.units && i + 1 < share.end) continue;
    finish<kRows, kOutput>(args, share, tile, sum);
#pragma unroll
    for (int n = 0; n < kRows / 8; ++n) sum[n][0] = sum[n][1] = sum[n][2] = sum[n][3] = 0.0F;
    unit = 0;
    ++tile;
  }
}

template <int kRows, LinearOutput kOutput>
void run(const LinearArgs& args, Stream stream) {
  const int units = (args.inputs + kUnitInputs - 1) / kUnitInputs;
  const int tiles = (args.outputs + kTileOutputs - 1) / kTileOutputs;
  LaunchShape shape;
  shape.blocks_x = static_cast<unsigned>(std::min(args.scratch.blocks, units * tiles));
  shape.threads = kThreads;
  using R = Ring<kRows>;
  if (most_shared_bytes() > kRingBytes) {
    shape.shared_bytes = R::kStages * R::kStageBytes;
    launch("linear layer", linear_layer<kRows, R::kStages, kOutput>, shape, stream, args);
  } else {
    shape.shared_bytes = R::kSmallStages * R::kStageBytes;
    launch("linear layer", linear_layer<kRows, R::kSmallStages, kOutput>, shape, stream, args);
  }
}

template <LinearOutput kOutput>
void run_rows(const LinearArgs& args, Stream stream) {
  if (args.rows <= 8) return run<8, kOutput>(args, stream);
  if (args.rows <= 16) return run<16, kOutput>(args, stream);
  if (args.rows <= 32) return run<32, kOutput>(args, stream);
  run<kShareRows, kOutput>(args, stream);
}

}  // namespace

std::int64_t linear_partials(std::int32_t blocks) {
  return std::int64_t{2} * blocks * kTileOutputs * kShareRows;
}

std::int64_t linear_arrivals(std::int32_t max_outputs) {
  return (max_outputs + kTileOutputs - 1) / kTileOutputs;
}

void linear_by_shares(const LinearArgs& args, Stream stream) {
  with_output(args.output, [&](auto output) { run_rows<decltype(output)::value>(args, stream); });
}

}  // namespace multiverse::kernels::cuda

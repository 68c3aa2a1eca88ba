// Linear layers by tiles. A dot product does not care for the order of k, so lane t of a quad takes k = 8t … 8t + 7 of
// every 32, 16 bytes, of a row of W and of a row of x: the operands of two matrix instructions, without shared memory
// or transposition. A block owns 16 rows of W; its warps share k and add up through shared memory.
#include "linear_output.h"

namespace multiverse::kernels::cuda {
namespace {

constexpr int kTileOutputs = 16;
constexpr int kChunk = 32;  // k of one 16-byte load by each lane of a quad
constexpr int kUnroll = 4;  // chunks that a warp loads at once
constexpr int kWarps = 8;
constexpr int kThreads = kWarps * 32;

struct WeightTile {
  uint4 low[kUnroll], high[kUnroll];  // rows g and g + 8 of W
};

__device__ __forceinline__ uint4 zeros() {
  return make_uint4(0, 0, 0, 0);
}

// The chunks of `group` that this lane loads; zeros beyond `inputs` or `outputs`.
__device__ __forceinline__ void load_weights(const LinearArgs& args, int output, int group, WeightTile& tile) {
  const int t = threadIdx.x % 4;
  const bool low = output < args.outputs, high = output + 8 < args.outputs;
  const Bf16* row = args.weights + std::int64_t{output} * args.inputs;
  const Bf16* row8 = row + std::int64_t{8} * args.inputs;
#pragma unroll
  for (int u = 0; u < kUnroll; ++u) {
    const int k = (group * kUnroll + u) * kChunk + t * 8;
    tile.low[u] = low && k < args.inputs ? load_streaming(row + k) : zeros();
    tile.high[u] = high && k < args.inputs ? load_streaming(row8 + k) : zeros();
  }
}

// kTiles: groups of 8 rows of x.
template <int kTiles, LinearOutput kOutput>
__global__ void __launch_bounds__(kThreads) linear_few_rows(LinearArgs args) {
  constexpr int kRows = 8 * kTiles;
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32, g = lane / 4, t = lane % 4;
  const int output = blockIdx.x * kTileOutputs + g;
  const int groups = (args.inputs + kChunk * kUnroll - 1) / (kChunk * kUnroll);
  WeightTile ahead;
  load_weights(args, output, warp, ahead);  // weights never change: no need to wait for them
  let_next_start();
  wait_for_previous();

  float sum[kTiles][4] = {};
  for (int group = warp; group < groups; group += kWarps) {
    const WeightTile now = ahead;
    uint4 x[kTiles][kUnroll];
#pragma unroll
    for (int u = 0; u < kUnroll; ++u) {
      const int k = (group * kUnroll + u) * kChunk + t * 8;
#pragma unroll
      for (int tile = 0; tile < kTiles; ++tile) {
        const int row = tile * 8 + g;
        x[tile][u] = row < args.rows && k < args.inputs
                         ? *reinterpret_cast<const uint4*>(args.x + std::int64_t{row} * args.inputs + k)
                         : zeros();
      }
    }
    load_weights(args, output, group + kWarps, ahead);
#pragma unroll
    for (int u = 0; u < kUnroll; ++u) {
#pragma unroll
      for (int tile = 0; tile < kTiles; ++tile) {
        multiply_add(sum[tile], now.low[u].x, now.high[u].x, now.low[u].y, now.high[u].y, x[tile][u].x, x[tile][u].y);
        multiply_add(sum[tile], now.low[u].z, now.high[u].z, now.low[u].w, now.high[u].w, x[tile][u].z, x[tile][u].w);
      }
    }
  }

  __shared__ float sums[kWarps][kRows][kTileOutputs];
#pragma unroll
  for (int tile = 0; tile < kTiles; ++tile) {
#pragma unroll
    for (int i = 0; i < 4; ++i) sums[warp][tile * 8 + 2 * t + i % 2][g + i / 2 * 8] = sum[tile][i];
  }
  sync_block();
  const int row = threadIdx.x / 8, m = threadIdx.x % 8;
  if (row >= kRows || row >= args.rows) return;
  float low = 0.0F, high = 0.0F;
  for (int w = 0; w < kWarps; ++w) {
    low += sums[w][row][m];
    high += sums[w][row][m + 8];
  }
  store_outputs<kOutput>(args, row, blockIdx.x * kTileOutputs + m, low, high);
}

template <int kTiles, LinearOutput kOutput>
void run(const LinearArgs& args, Stream stream) {
  static_assert(8 * kTiles * 8 <= kThreads, "a thread for each pair of outputs");
  LaunchShape shape;
  shape.blocks_x = static_cast<unsigned>((args.outputs + kTileOutputs - 1) / kTileOutputs);
  shape.threads = kThreads;
  launch("linear layer", linear_few_rows<kTiles, kOutput>, shape, stream, args);
}

template <LinearOutput kOutput>
void run_tiles(const LinearArgs& args, Stream stream) {
  args.rows <= 8 ? run<1, kOutput>(args, stream) : run<2, kOutput>(args, stream);
}

}  // namespace

void linear_by_tiles(const LinearArgs& args, Stream stream) {
  with_output(args.output, [&](auto output) { run_tiles<decltype(output)::value>(args, stream); });
}

}  // namespace multiverse::kernels::cuda

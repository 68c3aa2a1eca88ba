#include <cstdint>

#include "multiverse/kernels/cuda/layers.h"

#include "elements.h"

namespace multiverse::kernels::cuda {
namespace {

constexpr int kThreads = 256;
constexpr int kWarps = kThreads / 32;
constexpr int kNormThreads = 512;

// Σ over the block's threads, the same bits in all of them. `shared` may not be reused without a barrier.
template <int kNumWarps>
__device__ __forceinline__ float sum_block(float value, float (&shared)[kNumWarps]) {
  for (int mask = 16; mask > 0; mask /= 2) value += exchange(value, mask);
  if (threadIdx.x % 32 == 0) shared[threadIdx.x / 32] = value;
  sync_block();
  float total = 0.0F;
  for (int warp = 0; warp < kNumWarps; ++warp) total += shared[warp];
  return total;
}

__global__ void __launch_bounds__(kThreads) embed_rows(EmbedArgs args) {
  let_next_start();
  wait_for_previous();
  const std::int64_t row = blockIdx.x;
  const Bf16* from = args.embedding + args.tokens[row] * std::int64_t{args.hidden_size};
  for (int i = threadIdx.x; i < args.hidden_size; i += kThreads) {
    args.hidden[row * args.hidden_size + i] = from_bf16(from[i]);
  }
  const int half = args.head_dim / 2;
  for (int i = threadIdx.x; i < half; i += kThreads) {
    // A float32 product, as in training: at long positions its rounding is part of what the model learned.
    const float angle = static_cast<float>(args.positions[row]) * args.frequencies[i];
    float sine, cosine;
    sincosf(angle, &sine, &cosine);
    args.angles[row * args.head_dim + i] = cosine;
    args.angles[row * args.head_dim + half + i] = sine;
  }
}

__global__ void __launch_bounds__(kNormThreads) norm_rows(NormArgs args) {
  let_next_start();
  wait_for_previous();
  const std::int64_t size = args.hidden_size;
  const std::int64_t row = args.gather != nullptr ? args.gather[blockIdx.x] : static_cast<std::int64_t>(blockIdx.x);
  float* hidden = args.hidden + row * size;
  const Bf16* delta = args.delta != nullptr ? args.delta + row * size : nullptr;
  const bool writes_hidden = delta != nullptr && args.gather == nullptr;
  // The row stays in registers; what does not fit is read again.
  constexpr int kKept = 4;
  const auto at = [&](int i) {
    float4 x = *reinterpret_cast<const float4*>(hidden + i);
    if (delta != nullptr) {
      const uint2 more = *reinterpret_cast<const uint2*>(delta + i);
      x.x += from_bf16(more.x & 0xFFFFU);
      x.y += from_bf16(more.x >> 16);
      x.z += from_bf16(more.y & 0xFFFFU);
      x.w += from_bf16(more.y >> 16);
    }
    return x;
  };
  float4 kept[kKept];
  float squares = 0.0F;
  const auto add = [&](const float4& x) { squares += x.x * x.x + x.y * x.y + x.z * x.z + x.w * x.w; };
#pragma unroll
  for (int n = 0; n < kKept; ++n) {
    const int i = 4 * (threadIdx.x + n * kNormThreads);
    if (i < size) add(kept[n] = at(i));
  }
  for (int i = 4 * (threadIdx.x + kKept * kNormThreads); i < size; i += 4 * kNormThreads) add(at(i));
  __shared__ float shared[kNormThreads / 32];
  const float scale = rsqrtf(sum_block(squares, shared) / static_cast<float>(size) + args.eps);
  const auto write = [&](int i, const float4& x) {
    if (writes_hidden) *reinterpret_cast<float4*>(hidden + i) = x;
    const float4 weight = *reinterpret_cast<const float4*>(args.weight + i);
    uint2 out;
    out.x = pack_bf16(x.x * scale * weight.x, x.y * scale * weight.y);
    out.y = pack_bf16(x.z * scale * weight.z, x.w * scale * weight.w);
    *reinterpret_cast<uint2*>(args.out + blockIdx.x * size + i) = out;
  };
#pragma unroll
  for (int n = 0; n < kKept; ++n) {
    const int i = 4 * (threadIdx.x + n * kNormThreads);
    if (i < size) write(i, kept[n]);
  }
  for (int i = 4 * (threadIdx.x + kKept * kNormThreads); i < size; i += 4 * kNormThreads) write(i, at(i));
}

constexpr int kMaxPairs = 4;  // of a lane

// A key or value in 8 bits, with its scale. low, high: the lane's pairs; all lanes of the warp come here.
__device__ void store_scaled(const QkvArgs& args, int row, int kv_head, const float (&low)[kMaxPairs],
                             const float (&high)[kMaxPairs]) {
  constexpr float kLargest = 448.0F;
  const int lane = threadIdx.x % 32, half = args.head_dim / 2, slot = args.slots[row];
  float largest = 0.0F;
#pragma unroll
  for (int p = 0; p < kMaxPairs; ++p) {
    if (lane + 32 * p < half) largest = fmaxf(largest, fmaxf(fabsf(low[p]), fabsf(high[p])));
  }
  for (int mask = 16; mask > 0; mask /= 2) largest = fmaxf(largest, exchange(largest, mask));
  if (slot < 0) return;
  const float scale = fmaxf(largest / kLargest, 1e-30F);
  const float inverse = 1.0F / scale;
  unsigned char* place = args.kv + args.layout().place(slot, kv_head);
#pragma unroll
  for (int p = 0; p < kMaxPairs; ++p) {
    const int i = lane + 32 * p;
    if (i >= half) continue;
    const unsigned both = pack_e4m3(low[p] * inverse, high[p] * inverse);
    place[i] = static_cast<unsigned char>(both);
    place[i + half] = static_cast<unsigned char>(both >> 8);
  }
  if (lane == 0) *reinterpret_cast<float*>(args.kv + args.layout().scale_place(slot, kv_head)) = scale;
}

// A warp for each (row, head); lane l holds the pairs l, l + 32, …
__global__ void __launch_bounds__(kThreads) split_qkv_heads(QkvArgs args) {
  let_next_start();
  wait_for_previous();
  const int lane = threadIdx.x % 32;
  const int heads = args.num_heads + 2 * args.num_kv_heads, half = args.head_dim / 2;
  const int index = blockIdx.x * kWarps + threadIdx.x / 32;
  const int row = index / heads, head = index % heads;
  if (row >= args.rows) return;
  const bool is_query = head < args.num_heads, is_value = head >= args.num_heads + args.num_kv_heads;
  const Bf16* from = args.qkv + std::int64_t{index} * args.head_dim;
  float low[kMaxPairs], high[kMaxPairs];
  float squares = 0.0F;
#pragma unroll
  for (int p = 0; p < kMaxPairs; ++p) {
    const int i = lane + 32 * p;
    if (i >= half) continue;
    const int place = i / 8 * 16 + i % 8;
    low[p] = from_bf16(from[place]);
    high[p] = from_bf16(from[place + 8]);
    add_head_bias(args, head, i, low[p], high[p]);
    squares += low[p] * low[p] + high[p] * high[p];
  }
  const float* weight = is_query ? args.q_norm : args.k_norm;
  if (weight != nullptr && !is_value) {
    for (int mask = 16; mask > 0; mask /= 2) squares += exchange(squares, mask);
    const float scale = rsqrtf(squares / static_cast<float>(args.head_dim) + args.eps);
#pragma unroll
    for (int p = 0; p < kMaxPairs; ++p) {
      const int i = lane + 32 * p;
      if (i >= half) continue;
      low[p] *= scale * weight[i];
      high[p] *= scale * weight[i + half];
    }
  }
#pragma unroll
  for (int p = 0; p < kMaxPairs; ++p) {
    if (lane + 32 * p < half) rotate(args, row, head, lane + 32 * p, low[p], high[p]);
  }
  if (args.cache == CacheType::kFp8 && !is_query) return store_scaled(args, row, head - args.num_heads, low, high);
  std::uint16_t* place = head_place(args, row, head);
  if (place == nullptr) return;
#pragma unroll
  for (int p = 0; p < kMaxPairs; ++p) {
    const int i = lane + 32 * p;
    if (i < half) store_pair(args, place, head, i, low[p], high[p]);
  }
}

__global__ void __launch_bounds__(kThreads) silu_mul_blocks(const Bf16* gate_up, Bf16* out, std::int64_t blocks) {
  let_next_start();
  wait_for_previous();
  const std::int64_t block = blockIdx.x * std::int64_t{kThreads} + threadIdx.x;
  if (block >= blocks) return;
  const uint4 gate = *reinterpret_cast<const uint4*>(gate_up + block * 16);
  const uint4 up = *reinterpret_cast<const uint4*>(gate_up + block * 16 + 8);
  const auto both = [](unsigned g, unsigned u) {
    return pack_bf16(silu(from_bf16(g & 0xFFFFU)) * from_bf16(u & 0xFFFFU),
                     silu(from_bf16(g >> 16)) * from_bf16(u >> 16));
  };
  *reinterpret_cast<uint4*>(out + block * 8) =
      make_uint4(both(gate.x, up.x), both(gate.y, up.y), both(gate.z, up.z), both(gate.w, up.w));
}

__global__ void __launch_bounds__(kThreads) add_bias_rows(Bf16* y, const float* bias, int size) {
  let_next_start();
  wait_for_previous();
  Bf16* row = y + static_cast<std::int64_t>(blockIdx.x) * size;
  for (int i = threadIdx.x; i < size; i += kThreads) {
    row[i] = to_bf16(from_bf16(row[i]) + bias[i]);
  }
}

__global__ void __launch_bounds__(kThreads)
    fill_rows(const float* table, unsigned table_size, const std::uint32_t* places, Bf16* out, int columns) {
  let_next_start();
  wait_for_previous();
  const std::int64_t row = blockIdx.x;
  for (int i = threadIdx.x; i < columns; i += kThreads) {
    // The place may wrap around 2³² as table_size divides it.
    out[row * columns + i] =
        static_cast<Bf16>(pack_bf16(table[(places[row] + static_cast<std::uint32_t>(i)) % table_size], 0.0F));
  }
}

LaunchShape blocks_of(std::int64_t blocks) {
  LaunchShape shape;
  shape.blocks_x = static_cast<unsigned>(blocks);
  shape.threads = kThreads;
  return shape;
}

}  // namespace

void embed(const EmbedArgs& args, Stream stream) {
  launch("embedding", embed_rows, blocks_of(args.rows), stream, args);
}

void norm(const NormArgs& args, Stream stream) {
  LaunchShape shape = blocks_of(args.rows);
  shape.threads = kNormThreads;
  launch("norm", norm_rows, shape, stream, args);
}

void split_qkv(const QkvArgs& args, Stream stream) {
  const std::int64_t heads = std::int64_t{args.rows} * (args.num_heads + 2 * args.num_kv_heads);
  launch("queries, keys, values", split_qkv_heads, blocks_of((heads + kWarps - 1) / kWarps), stream, args);
}

void silu_mul(const Bf16* gate_up, Bf16* out, std::int32_t rows, std::int32_t inner, Stream stream) {
  const std::int64_t blocks = std::int64_t{rows} * inner / 8;
  launch("activation", silu_mul_blocks, blocks_of((blocks + kThreads - 1) / kThreads), stream, gate_up, out, blocks);
}

void add_bias(Bf16* y, const float* bias, std::int32_t rows, std::int32_t size, Stream stream) {
  launch("bias", add_bias_rows, blocks_of(rows), stream, y, bias, size);
}

void fill_from_table(const float* table, std::int32_t table_size, const std::uint32_t* places, Bf16* out,
                     std::int32_t rows, std::int32_t columns, Stream stream) {
  launch("random weights", fill_rows, blocks_of(rows), stream, table, static_cast<unsigned>(table_size), places, out,
         columns);
}

}  // namespace multiverse::kernels::cuda

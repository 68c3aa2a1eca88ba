// The linear layers' inner loops for one instruction set; see math_impl.h for the rules of inclusion.
#pragma once

#include "kernel_table.h"
#include "math_impl.h"

// Offsets within a page, a block or a panel: far below 2³¹.
// NOLINTBEGIN(bugprone-implicit-widening-of-multiplication-result)
namespace {

struct Float32Panel {
  const float* data;  // (inputs, 32)
  V16 load(std::int64_t input, int half) const { return ::load(data + input * 32 + half * 16); }
};
struct BFloat16Panel {
  const std::uint32_t* data;  // (inputs, 16)
  V16 load(std::int64_t input, int half) const { return load_bf16(data + input * 16, half); }
};

// out[r·32 + j] += Σ over inputs [begin, end), in order, for R rows and kLinearVectors vectors from `half` on. The sum
// of the slice is made apart: rounding grows with the slice and the number of slices, not with all inputs.
template <int R, class Panel>
inline void linear_tile(const float* x, std::int64_t x_stride, const Panel& panel, std::int64_t begin, std::int64_t end,
                        int half, float* out) {
  Vectors<kLinearVectors> sum[static_cast<unsigned>(R)];
  for (int r = 0; r < R; ++r) {
    for (int v = 0; v < kLinearVectors; ++v) sum[r][v] = zero();
  }
  for (std::int64_t input = begin; input < end; ++input) {
    Vectors<kLinearVectors> w;
    for (int v = 0; v < kLinearVectors; ++v) w[v] = panel.load(input, half + v);
    for (int r = 0; r < R; ++r) {
      const V16 value = set1(x[r * x_stride + input]);
      for (int v = 0; v < kLinearVectors; ++v) sum[r][v] = fma(value, w[v], sum[r][v]);
    }
  }
  for (int r = 0; r < R; ++r) {
    for (int v = 0; v < kLinearVectors; ++v) {
      float* total = out + r * 32 + (half + v) * 16;
      store(total, add(load(total), sum[r][v]));
    }
  }
}

template <class Panel>
inline void linear_block(const multiverse::kernels::LinearArgs& args, const Panel& panel, std::int64_t inputs,
                         std::int64_t row, std::int64_t rows, float* sums) {
  // A panel's slice of 128 inputs (16 KiB in float32) and a tile's inputs stay in cache while all rows use them.
  constexpr std::int64_t kInputBlock = 128;
  const std::int64_t tiles = (rows + kLinearRows - 1) / kLinearRows;
  const std::int64_t tile_rows = (rows + tiles - 1) / tiles;
  for (std::int64_t begin = 0; begin < inputs; begin += kInputBlock) {
    const std::int64_t end = smaller(inputs, begin + kInputBlock);
    for (std::int64_t r = 0; r < rows; r += tile_rows) {
      const float* x = args.x + (row + r) * args.x_stride;
      for (int half = 0; half < 2; half += kLinearVectors) {
        dispatch<kLinearRows>(static_cast<int>(smaller(tile_rows, rows - r)), [&](auto count) {
          linear_tile<decltype(count)::value>(x, args.x_stride, panel, begin, end, half, sums + r * 32);
        });
      }
    }
  }
}

inline V16 silu(V16 x) {  // x / (1 + e⁻ˣ); the exponent is bounded so that 2ˣ stays finite
  const V16 e = exp2(min(mul(x, set1(-kLog2E)), set1(126.0F)));
  return div(x, add(set1(1.0F), e));
}

// Sixteen columns of one row of y from `column` on.
inline void store_columns(const multiverse::kernels::LinearArgs& args, std::int64_t row, std::int64_t column,
                          V16 value) {
  float* y = args.y + row * args.y_stride + column;
  const bool accumulate = args.epilogue == multiverse::kernels::Epilogue::kAdd;
  const auto count = static_cast<int>(smaller<std::int64_t>(16, args.y_columns - column));
  if (count == 16) {
    store(y, accumulate ? add(load(y), value) : value);
    return;
  }
  alignas(64) float values[16];
  store(values, value);
  for (int i = 0; i < count; ++i) y[i] = accumulate ? y[i] + values[i] : values[i];
}

inline void linear_panel(const multiverse::kernels::PackedMatrix& weights, const multiverse::kernels::LinearArgs& args,
                         std::int64_t panel, std::int64_t row, std::int64_t rows) {
  using multiverse::kernels::kLinearBlockRows;
  alignas(64) float sums[kLinearBlockRows * 32];
  for (std::int64_t r = 0; r < rows; ++r) {
    store(sums + r * 32, zero());
    store(sums + r * 32 + 16, zero());
  }
  if (weights.type == multiverse::kernels::WeightType::kFloat32) {
    const auto* data = static_cast<const float*>(weights.data) + panel * weights.inputs * 32;
    linear_block(args, Float32Panel{data}, weights.inputs, row, rows, sums);
  } else {
    const auto* data = static_cast<const std::uint32_t*>(weights.data) + panel * weights.inputs * 16;
    linear_block(args, BFloat16Panel{data}, weights.inputs, row, rows, sums);
  }
  const V16 bias0 = args.bias ? load(args.bias + panel * 32) : zero();
  const V16 bias1 = args.bias ? load(args.bias + panel * 32 + 16) : zero();
  for (std::int64_t r = 0; r < rows; ++r) {
    const V16 y0 = add(load(sums + r * 32), bias0);
    const V16 y1 = add(load(sums + r * 32 + 16), bias1);
    if (args.epilogue == multiverse::kernels::Epilogue::kSiluMul) {
      store_columns(args, row + r, panel * 16, mul(silu(y0), y1));
    } else {
      store_columns(args, row + r, panel * 32, y0);
      if (args.y_columns > panel * 32 + 16) store_columns(args, row + r, panel * 32 + 16, y1);
    }
  }
}

}  // namespace
// NOLINTEND(bugprone-implicit-widening-of-multiplication-result)

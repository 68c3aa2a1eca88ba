#include "multiverse/kernels/linear.h"

#include <algorithm>
#include <cstring>

#include "kernel_table.h"

namespace multiverse::kernels {

std::uint16_t to_bfloat16(float value) {
  std::uint32_t bits;
  std::memcpy(&bits, &value, sizeof(bits));
  if ((bits & 0x7FFFFFFFU) > 0x7F800000U) return static_cast<std::uint16_t>((bits >> 16) | 0x40U);
  return static_cast<std::uint16_t>((bits + 0x7FFFU + ((bits >> 16) & 1U)) >> 16);
}

float from_bfloat16(std::uint16_t half) {
  const std::uint32_t bits = std::uint32_t{half} << 16;
  float value;
  std::memcpy(&value, &bits, sizeof(value));
  return value;
}

namespace {

// Index of (output, input) in the packed data, in elements of its type.
std::size_t packed_index(const PackedMatrix& matrix, std::int64_t output, std::int64_t input) {
  const std::int64_t lane = output % kPanelOutputs;
  const std::int64_t within = matrix.type == WeightType::kFloat32 ? lane : lane % 16 * 2 + lane / 16;
  return static_cast<std::size_t>((output / kPanelOutputs * matrix.inputs + input) * kPanelOutputs + within);
}

}  // namespace

void pack_row(const PackedMatrix& shape, void* data, std::int64_t output, const float* values) {
  std::size_t index = packed_index(shape, output, 0);
  for (std::int64_t input = 0; input < shape.inputs; ++input, index += kPanelOutputs) {
    if (shape.type == WeightType::kFloat32) {
      static_cast<float*>(data)[index] = values[input];
    } else {
      static_cast<std::uint16_t*>(data)[index] = to_bfloat16(values[input]);  // little-endian, as the kernels read it
    }
  }
}

void unpack_row(const PackedMatrix& matrix, std::int64_t output, float* values) {
  std::size_t index = packed_index(matrix, output, 0);
  for (std::int64_t input = 0; input < matrix.inputs; ++input, index += kPanelOutputs) {
    values[input] = matrix.type == WeightType::kFloat32
                        ? static_cast<const float*>(matrix.data)[index]
                        : from_bfloat16(static_cast<const std::uint16_t*>(matrix.data)[index]);
  }
}

void linear(const PackedMatrix& weights, const LinearArgs& args, Isa isa, ThreadPool& pool) {
  const KernelTable& kernels = kernel_table(isa);
  const std::int64_t panels = weights.panels();
  const std::int64_t blocks = (args.rows + kLinearBlockRows - 1) / kLinearBlockRows;
  // A few tasks a thread: enough to even out, not so many that taking them costs.
  const std::int64_t per_task = std::max<std::int64_t>(1, panels * blocks / (std::int64_t{pool.size()} * 4));
  const std::int64_t groups = (panels + per_task - 1) / per_task;
  pool.for_each(groups * blocks, [&](std::int64_t task, int) {
    const std::int64_t row = task / groups * kLinearBlockRows;
    const std::int64_t rows = std::min<std::int64_t>(kLinearBlockRows, args.rows - row);
    const std::int64_t first = task % groups * per_task;
    for (std::int64_t panel = first; panel < std::min(panels, first + per_task); ++panel) {
      kernels.linear_panel(weights, args, panel, row, rows);
    }
  });
}

}  // namespace multiverse::kernels

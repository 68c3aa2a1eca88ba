#include "multiverse/kernels/linear.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <random>

#include "multiverse/kernels/elementwise.h"

namespace multiverse::kernels {
namespace {

std::vector<Isa> isas() {
  std::vector<Isa> out;
  for (const Isa isa : {Isa::kPortable, Isa::kAvx2, Isa::kAvx512}) {
    if (supported(isa)) out.push_back(isa);
  }
  return out;
}

struct Problem {
  Problem(std::int64_t num_rows, std::int64_t outputs, std::int64_t inputs, WeightType type, unsigned seed)
      : rows(num_rows), matrix{nullptr, type, outputs, inputs} {
    std::mt19937 random(seed);
    std::normal_distribution<float> normal;
    weights.resize(static_cast<std::size_t>(outputs * inputs));
    x.resize(static_cast<std::size_t>(rows * inputs));
    bias.resize(static_cast<std::size_t>(matrix.panels() * kPanelOutputs));
    for (float& value : weights) {
      value = normal(random);
      if (type == WeightType::kBFloat16) value = from_bfloat16(to_bfloat16(value));
    }
    for (float& value : x) value = normal(random) * (random() % 128 == 0 ? 50.0F : 1.0F);
    for (std::int64_t i = 0; i < outputs; ++i) bias[static_cast<std::size_t>(i)] = normal(random);
    memory.resize(matrix.bytes() / sizeof(float));
    for (std::int64_t row = 0; row < outputs; ++row)
      pack_row(matrix, memory.data(), row, weights.data() + row * inputs);
    matrix.data = memory.data();
  }

  std::vector<float> run(Isa isa, ThreadPool& pool, std::int64_t first, std::int64_t count) const {
    std::vector<float> y(static_cast<std::size_t>(count * matrix.outputs), std::numeric_limits<float>::quiet_NaN());
    linear(matrix,
           {.x = x.data() + first * matrix.inputs,
            .bias = bias.data(),
            .y = y.data(),
            .rows = count,
            .x_stride = matrix.inputs,
            .y_stride = matrix.outputs,
            .y_columns = matrix.outputs},
           isa, pool);
    return y;
  }

  double want(std::int64_t row, std::int64_t output) const {
    double sum = static_cast<double>(bias[static_cast<std::size_t>(output)]);
    for (std::int64_t i = 0; i < matrix.inputs; ++i) {
      sum += static_cast<double>(x[static_cast<std::size_t>(row * matrix.inputs + i)]) *
             static_cast<double>(weights[static_cast<std::size_t>(output * matrix.inputs + i)]);
    }
    return sum;
  }

  std::int64_t rows;
  PackedMatrix matrix;
  std::vector<float> weights, x, bias, memory;
};

TEST(Linear, MatchesDoublePrecision) {
  const unsigned seed = std::random_device{}();
  std::printf("seed %u\n", seed);
  ThreadPool pool(2);
  for (const Isa isa : isas()) {
    for (const WeightType type : {WeightType::kFloat32, WeightType::kBFloat16}) {
      const std::int64_t sizes[][3] = {{1, 1, 1},    {1, 640, 384},  {5, 33, 17},   {13, 31, 100},
                                       {97, 48, 96}, {3, 100, 2500}, {200, 65, 40}, {23, 419, 96}};
      for (const auto& [rows, outputs, inputs] : sizes) {
        const Problem problem(rows, outputs, inputs, type, seed);
        const std::vector<float> y = problem.run(isa, pool, 0, rows);
        const double tolerance = 1e-6 * std::sqrt(static_cast<double>(inputs)) * 60.0;
        double worst = 0.0;
        for (std::int64_t row = 0; row < rows; ++row) {
          for (std::int64_t output = 0; output < outputs; ++output) {
            const double got = static_cast<double>(y[static_cast<std::size_t>(row * outputs + output)]);
            worst = std::fmax(worst, std::isfinite(got) ? std::fabs(got - problem.want(row, output)) : 1e9);
          }
        }
        EXPECT_LE(worst, tolerance) << to_string(isa) << " " << rows << " rows, " << outputs << " x " << inputs;
      }
    }
  }
}

TEST(Linear, ARowHasTheSameBitsInAnyBatch) {
  const unsigned seed = std::random_device{}();
  std::printf("seed %u\n", seed);
  for (const Isa isa : isas()) {
    for (const WeightType type : {WeightType::kFloat32, WeightType::kBFloat16}) {
      const Problem problem(110, 70, 1100, type, seed);
      ThreadPool two(2), one(1);
      const std::vector<float> all = problem.run(isa, two, 0, 110);
      for (const std::int64_t count : {1, 2, 3, 5, 7, 11, 12, 13, 24, 96, 97}) {
        const std::int64_t first = (count * 7) % (110 - count + 1);
        const std::vector<float> some = problem.run(isa, one, first, count);
        EXPECT_EQ(std::memcmp(some.data(), all.data() + first * 70, some.size() * sizeof(float)), 0)
            << to_string(isa) << ", rows [" << first << ", " << first + count << ")";
      }
    }
  }
}

TEST(Linear, AddsTheResidual) {
  const Problem problem(3, 40, 20, WeightType::kFloat32, 1);
  ThreadPool pool(1);
  for (const Isa isa : isas()) {
    const std::vector<float> plain = problem.run(isa, pool, 0, 3);
    std::vector<float> y(plain.size(), 2.0F);
    linear(problem.matrix,
           {.x = problem.x.data(),
            .bias = problem.bias.data(),
            .y = y.data(),
            .rows = 3,
            .x_stride = 20,
            .y_stride = 40,
            .y_columns = 40,
            .epilogue = Epilogue::kAdd},
           isa, pool);
    for (std::size_t i = 0; i < y.size(); ++i) EXPECT_EQ(y[i], plain[i] + 2.0F);
  }
}

TEST(Linear, AppliesSiluToGatesAndMultiplies) {
  // 20 gates and ups in blocks of 16: the second block is padded.
  const Problem problem(4, 64, 30, WeightType::kFloat32, 5);
  ThreadPool pool(1);
  for (const Isa isa : isas()) {
    std::vector<float> y(4 * 20 + 1, -7.0F);
    linear(problem.matrix,
           {.x = problem.x.data(),
            .bias = problem.bias.data(),
            .y = y.data(),
            .rows = 4,
            .x_stride = 30,
            .y_stride = 20,
            .y_columns = 20,
            .epilogue = Epilogue::kSiluMul},
           isa, pool);
    EXPECT_EQ(y.back(), -7.0F) << "written beyond the last column";
    for (std::int64_t row = 0; row < 4; ++row) {
      for (std::int64_t column = 0; column < 20; ++column) {
        const std::int64_t gate_output = column / 16 * 32 + column % 16;
        const double gate = problem.want(row, gate_output);
        const double want = gate / (1.0 + std::exp(-gate)) * problem.want(row, gate_output + 16);
        EXPECT_NEAR(static_cast<double>(y[static_cast<std::size_t>(row * 20 + column)]), want,
                    1e-4 * std::fmax(1.0, std::fabs(want)))
            << to_string(isa);
      }
    }
  }
}

TEST(Linear, UnpackReadsWhatPackWrote) {
  for (const WeightType type : {WeightType::kFloat32, WeightType::kBFloat16}) {
    const Problem problem(1, 75, 12, type, 9);
    std::vector<float> row(12);
    for (std::int64_t output = 0; output < 75; ++output) {
      unpack_row(problem.matrix, output, row.data());
      EXPECT_EQ(std::memcmp(row.data(), problem.weights.data() + output * 12, sizeof(float) * 12), 0);
    }
  }
}

TEST(BFloat16, RoundsToNearestEven) {
  EXPECT_EQ(to_bfloat16(1.0F), 0x3F80);
  EXPECT_EQ(to_bfloat16(1.00390625F), 0x3F80);  // halfway: to even
  EXPECT_EQ(to_bfloat16(1.01171875F), 0x3F82);
  EXPECT_EQ(to_bfloat16(-0.0F), 0x8000);
  EXPECT_EQ(to_bfloat16(std::numeric_limits<float>::infinity()), 0x7F80);
  EXPECT_TRUE(std::isnan(from_bfloat16(to_bfloat16(std::numeric_limits<float>::quiet_NaN()))));
}

TEST(SoftmaxSum, MatchesDoublePrecision) {
  std::mt19937 random(std::random_device{}());
  std::normal_distribution<float> normal(0.0F, 8.0F);
  for (const Isa isa : isas()) {
    for (const std::int64_t size : {1, 15, 16, 17, 419, 151936}) {
      std::vector<float> x(static_cast<std::size_t>(size));
      for (float& value : x) value = normal(random);
      double want = 0.0;
      const SoftmaxSum got = softmax_sum(x.data(), size, isa);
      for (const float value : x) want += std::exp(static_cast<double>(value) - static_cast<double>(got.max));
      EXPECT_EQ(got.max, *std::max_element(x.begin(), x.end()));
      EXPECT_NEAR(got.sum / want, 1.0, 5e-7) << to_string(isa) << " " << size;
      x[static_cast<std::size_t>(size / 2)] = std::numeric_limits<float>::quiet_NaN();
      EXPECT_TRUE(std::isnan(softmax_sum(x.data(), size, isa).sum)) << to_string(isa) << " " << size;
    }
  }
}

TEST(RmsNorm, MatchesDoublePrecision) {
  std::mt19937 random(std::random_device{}());
  std::normal_distribution<float> normal;
  for (const Isa isa : isas()) {
    for (const std::int64_t size : {1, 8, 24, 64, 100, 384}) {
      std::vector<float> x(static_cast<std::size_t>(size)), weight(x.size()), out(x.size());
      for (float& value : x) value = normal(random);
      for (float& value : weight) value = normal(random);
      double squares = 0.0;
      for (const float value : x) squares += static_cast<double>(value) * static_cast<double>(value);
      rms_norm(x.data(), weight.data(), 1e-6F, size, out.data(), isa);
      const double scale = 1.0 / std::sqrt(squares / static_cast<double>(size) + 1e-6);
      for (std::size_t i = 0; i < x.size(); ++i) {
        const double want = static_cast<double>(x[i]) * scale * static_cast<double>(weight[i]);
        EXPECT_NEAR(static_cast<double>(out[i]), want, 1e-6 + 2e-6 * std::fabs(want));
      }
    }
  }
}

}  // namespace
}  // namespace multiverse::kernels

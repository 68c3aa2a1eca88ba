#include "multiverse/kernels/cuda/layers.h"

#include <cmath>

#include "tests/cuda/memory.h"

namespace multiverse::kernels::cuda {
namespace {

using CudaLayers = DeviceTest;

std::vector<float> random_floats(std::mt19937& random, std::size_t size, float mean, float deviation) {
  std::normal_distribution<float> normal(mean, deviation);
  std::vector<float> out(size);
  for (float& x : out) x = normal(random);
  return out;
}

void expect_bf16(Bf16 got, double want, const std::string& what, double slack = 1e-5) {
  ASSERT_NEAR(value(got), want, std::fabs(want) / 250.0 + slack) << what;
}

TEST_F(CudaLayers, EmbeddingAndAngles) {
  std::mt19937 random(fresh_seed());
  const std::int32_t vocab = 40, hidden = 72, dim = 64, rows = 5;
  const auto table = random_bf16(random, static_cast<std::size_t>(vocab * hidden));
  const std::vector<std::int32_t> tokens = {0, 39, 7, 7, 12}, positions = {0, 1, 777, 131'071, 5};
  const auto frequencies = random_floats(random, dim / 2, 0.5F, 0.2F);
  const DeviceArray<Bf16> device_table(table);
  const DeviceArray<std::int32_t> device_tokens(tokens), device_positions(positions);
  const DeviceArray<float> device_frequencies(frequencies), hidden_out(static_cast<std::size_t>(rows * hidden)),
      angles_out(static_cast<std::size_t>(rows * dim));
  embed({device_table.data(), device_tokens.data(), device_positions.data(), device_frequencies.data(),
         hidden_out.data(), angles_out.data(), rows, hidden, dim},
        test_stream());
  const auto got = hidden_out.host(), angles = angles_out.host();
  for (std::size_t row = 0; row < rows; ++row) {
    for (std::size_t i = 0; i < hidden; ++i) {
      ASSERT_EQ(static_cast<double>(got[row * hidden + i]),
                value(table[static_cast<std::size_t>(tokens[row]) * hidden + i]));
    }
    for (std::size_t i = 0; i < dim / 2; ++i) {
      const float angle = static_cast<float>(positions[row]) * frequencies[i];
      ASSERT_NEAR(angles[row * dim + i], std::cos(angle), 1e-6) << "position " << positions[row];
      ASSERT_NEAR(angles[row * dim + dim / 2 + i], std::sin(angle), 1e-6) << "position " << positions[row];
    }
  }
}

TEST_F(CudaLayers, NormAddsAndGathers) {
  std::mt19937 random(fresh_seed());
  for (const std::int32_t size : {8, 96, 1000}) {
    const std::int32_t rows = 4;
    const float eps = 1e-6F;
    const auto hidden = random_floats(random, static_cast<std::size_t>(rows * size), 0.1F, 2.0F);
    const auto weight = random_floats(random, static_cast<std::size_t>(size), 1.0F, 0.3F);
    const auto delta = random_bf16(random, static_cast<std::size_t>(rows * size));
    const std::vector<std::int32_t> all = {0, 1, 2, 3}, some = {3, 1};
    for (const bool has_delta : {false, true}) {
      for (const bool gathers : {false, true}) {
        const DeviceArray<float> device_hidden(hidden), device_weight(weight);
        const DeviceArray<Bf16> device_delta(delta), out(static_cast<std::size_t>(rows * size));
        const DeviceArray<std::int32_t> device_some(some);
        const auto& places = gathers ? some : all;
        norm({device_hidden.data(), has_delta ? device_delta.data() : nullptr, device_weight.data(),
              gathers ? device_some.data() : nullptr, out.data(), static_cast<std::int32_t>(places.size()), size, eps},
             test_stream());
        const auto got = out.host();
        const auto after = device_hidden.host();
        for (std::size_t i = 0; i < places.size(); ++i) {
          std::vector<double> x;
          double squares = 0.0;
          for (std::size_t c = 0; c < static_cast<std::size_t>(size); ++c) {
            const std::size_t place = static_cast<std::size_t>(places[i]) * static_cast<std::size_t>(size) + c;
            x.push_back(static_cast<double>(hidden[place]) + (has_delta ? value(delta[place]) : 0.0));
            squares += x.back() * x.back();
            const double kept = gathers ? static_cast<double>(hidden[place]) : x.back();
            ASSERT_NEAR(after[place], kept, 1e-5);
          }
          const double scale = 1.0 / std::sqrt(squares / size + static_cast<double>(eps));
          for (std::size_t c = 0; c < x.size(); ++c) {
            expect_bf16(got[i * x.size() + c], x[c] * scale * static_cast<double>(weight[c]), "norm");
          }
        }
      }
    }
  }
}

TEST_F(CudaLayers, ActivationAndBias) {
  std::mt19937 random(fresh_seed());
  const std::size_t rows = 3, inner = 40;
  const auto gate_up = random_bf16(random, rows * 2 * inner);
  const DeviceArray<Bf16> device(gate_up), out(rows * inner);
  silu_mul(device.data(), out.data(), rows, inner, test_stream());
  const auto got = out.host();
  for (std::size_t i = 0; i < rows * inner; ++i) {
    const std::size_t gate = i / 8 * 16 + i % 8;
    const double g = value(gate_up[gate]);
    expect_bf16(got[i], g / (1.0 + std::exp(-g)) * value(gate_up[gate + 8]), "activation");
  }

  const auto bias = random_floats(random, inner, 0.0F, 1.0F);
  const DeviceArray<float> device_bias(bias);
  add_bias(out.data(), device_bias.data(), rows, inner, test_stream());
  const auto biased = out.host();
  for (std::size_t i = 0; i < rows * inner; ++i) {
    expect_bf16(biased[i], value(got[i]) + static_cast<double>(bias[i % inner]), "bias");
  }
}

TEST_F(CudaLayers, FillsFromATable) {
  std::mt19937 random(fresh_seed());
  const auto table = random_floats(random, 64, 0.0F, 1.0F);
  const std::vector<std::uint32_t> places = {0, 60, 0xFFFFFFF0U};
  const DeviceArray<float> device_table(table);
  const DeviceArray<std::uint32_t> device_places(places);
  const DeviceArray<Bf16> out(3 * 300);
  fill_from_table(device_table.data(), 64, device_places.data(), out.data(), 3, 300, test_stream());
  const auto got = out.host();
  for (std::size_t row = 0; row < 3; ++row) {
    for (std::size_t i = 0; i < 300; ++i) ASSERT_EQ(got[row * 300 + i], to_bfloat16(table[(places[row] + i) % 64]));
  }
}

}  // namespace
}  // namespace multiverse::kernels::cuda

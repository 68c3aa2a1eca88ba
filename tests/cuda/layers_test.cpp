#include "multiverse/kernels/cuda/layers.h"

#include <cmath>

#include "multiverse/kernels/cuda/attention.h"

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

TEST_F(CudaLayers, QueriesKeysAndValues) {
  std::mt19937 random(fresh_seed());
  for (const std::int32_t dim : {64, 128}) {
    for (const bool options : {false, true}) {
      const std::int32_t rows = 3, heads = 3, kv_heads = 1, pages = 4;
      const std::size_t all = heads + 2 * kv_heads, d = static_cast<std::size_t>(dim);
      const float eps = 1e-6F;
      const AttentionShape shape = {heads, kv_heads, dim};
      const auto qkv = random_bf16(random, rows * all * d);
      const auto bias = random_floats(random, all * d, 0.0F, 3.0F);
      const auto q_norm = random_floats(random, d, 1.0F, 0.2F), k_norm = random_floats(random, d, 1.0F, 0.2F);
      const auto turns = random_floats(random, rows * d / 2, 0.0F, 3.0F);
      std::vector<float> angles(rows * d);
      for (std::size_t row = 0; row < rows; ++row) {
        for (std::size_t i = 0; i < d / 2; ++i) {
          angles[row * d + i] = std::cos(turns[row * d / 2 + i]);
          angles[row * d + d / 2 + i] = std::sin(turns[row * d / 2 + i]);
        }
      }
      const std::vector<std::int32_t> slots = {2 * 16 + 5, -1, 3 * 16 + 15};
      const DeviceArray<Bf16> device_qkv(qkv), queries(rows * heads * d),
          kv(static_cast<std::size_t>(pages * page_elements(shape)));
      const DeviceArray<float> device_bias(bias), device_q(q_norm), device_k(k_norm), device_angles(angles);
      const DeviceArray<std::int32_t> device_slots(slots);
      split_qkv({device_qkv.data(), options ? device_bias.data() : nullptr, options ? device_q.data() : nullptr,
                 options ? device_k.data() : nullptr, device_angles.data(), device_slots.data(), queries.data(),
                 kv.data(), rows, heads, kv_heads, dim, eps},
                test_stream());
      const auto got_queries = queries.host(), got_kv = kv.host();
      std::size_t written = 0;
      for (const Bf16 bits : got_kv) written += bits != 0xFFFF ? 1 : 0;
      EXPECT_EQ(written, 2 * 2 * kv_heads * d) << "two rows' keys and values, nothing else";
      for (std::size_t row = 0; row < rows; ++row) {
        for (std::size_t head = 0; head < all; ++head) {
          std::vector<double> x;
          double squares = 0.0;
          for (std::size_t i = 0; i < d; ++i) {
            x.push_back(value(qkv[(row * all + head) * d + i]) +
                        (options ? static_cast<double>(bias[head * d + i]) : 0.0));
            squares += x.back() * x.back();
          }
          const bool is_value = head >= heads + kv_heads;
          if (options && !is_value) {
            const double scale = 1.0 / std::sqrt(squares / dim + static_cast<double>(eps));
            for (std::size_t i = 0; i < d; ++i)
              x[i] *= scale * static_cast<double>((head < heads ? q_norm : k_norm)[i]);
          }
          if (!is_value) {
            for (std::size_t i = 0; i < d / 2; ++i) {
              const double c = static_cast<double>(angles[row * d + i]),
                           s = static_cast<double>(angles[row * d + d / 2 + i]);
              const double low = x[i], high = x[i + d / 2];
              x[i] = low * c - high * s;
              x[i + d / 2] = high * c + low * s;
            }
          }
          const Bf16* got = got_queries.data() + (row * heads + head) * d;
          if (head >= heads) {
            if (slots[row] < 0) continue;
            const auto slot = static_cast<std::size_t>(slots[row]);
            got = got_kv.data() + slot / 16 * static_cast<std::size_t>(page_elements(shape)) +
                  ((is_value ? 1U : 0U) * 16 + slot % 16) * d;
          }
          for (std::size_t i = 0; i < d; ++i) {
            expect_bf16(got[i], x[i], "row " + std::to_string(row) + ", head " + std::to_string(head), 1e-4);
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

// Queries, keys and values: split off a projection, and as what a linear layer writes itself.
#include <cmath>

#include "multiverse/kernels/cuda/attention.h"
#include "multiverse/kernels/cuda/layers.h"
#include "multiverse/kernels/cuda/linear.h"

#include "tests/cuda/memory.h"

namespace multiverse::kernels::cuda {
namespace {

using CudaHeads = DeviceTest;

// Random inputs for three rows, one of them padding, and what becomes of them in double precision.
class HeadsCase {
 public:
  static constexpr std::size_t kRows = 3, kHeads = 3, kKvHeads = 1, kAll = kHeads + 2 * kKvHeads, kPages = 4;

  HeadsCase(std::mt19937& random, std::size_t dim, CacheType cache, bool has_bias, bool has_norms)
      : shape_{kHeads, kKvHeads, static_cast<std::int32_t>(dim), cache},
        dim_(dim),
        bias_(has_bias ? normal(random, kAll * dim, 0.0F, 3.0F) : std::vector<float>()),
        q_norm_(has_norms ? normal(random, dim, 1.0F, 0.2F) : std::vector<float>()),
        k_norm_(has_norms ? normal(random, dim, 1.0F, 0.2F) : std::vector<float>()),
        angles_(kRows * dim),
        device_bias_(bias_),
        device_q_(q_norm_),
        device_k_(k_norm_),
        device_angles_(angles(random)),
        device_slots_(kSlots),
        queries_(kRows * kHeads * dim),
        kv_(kPages * static_cast<std::size_t>(shape_.layout().page_bytes())) {}

  // Where element i of a head stands among its projected elements.
  std::size_t place(std::size_t i) const {
    const std::size_t half = dim_ / 2;
    return i % half / 8 * 16 + (i >= half ? 8 : 0) + i % 8;
  }

  QkvArgs args(const Bf16* qkv) const {
    const auto given = [](const DeviceArray<float>& array, const std::vector<float>& values) {
      return values.empty() ? nullptr : array.data();
    };
    return {qkv,
            given(device_bias_, bias_),
            given(device_q_, q_norm_),
            given(device_k_, k_norm_),
            device_angles_.data(),
            device_slots_.data(),
            queries_.data(),
            kv_.data(),
            kRows,
            kHeads,
            kKvHeads,
            static_cast<std::int32_t>(dim_),
            kEps,
            shape_.cache};
  }

  // projected(row, head, i): element i of the head, before bias, norm and rotation.
  template <class Projected>
  void check(const Projected& projected) const {
    const std::vector<Bf16> queries = queries_.host();
    const std::vector<unsigned char> kv = kv_.host();
    expect_nothing_else(kv);
    for (std::size_t row = 0; row < kRows; ++row) {
      for (std::size_t head = 0; head < kAll; ++head) {
        const bool is_query = head < kHeads;
        if (!is_query && kSlots[row] < 0) continue;
        const std::vector<double> want = expected(row, head, projected);
        double largest = 0.0;
        for (const double x : want) largest = std::max(largest, std::fabs(x));
        const double fp8_step = shape_.cache == CacheType::kFp8 && !is_query ? 1.0 : 0.0;
        for (std::size_t i = 0; i < dim_; ++i) {
          const double got =
              is_query ? value(queries[(row * kHeads + head) * dim_ + i]) : cached(kv, row, head - kHeads, i);
          // e4m3 has 4 digits down to 2⁻⁶, and then steps of 2⁻⁹, of 448, where the largest is.
          const double tolerance =
              std::fabs(want[i]) / 250.0 + 1e-4 + fp8_step * (std::fabs(want[i]) / 15.0 + largest * 3e-6);
          ASSERT_NEAR(got, want[i], tolerance) << "row " << row << ", head " << head << ", element " << i;
        }
      }
    }
  }

 private:
  double cached(const std::vector<unsigned char>& kv, std::size_t row, std::size_t kv_head, std::size_t i) const {
    const CacheLayout layout = shape_.layout();
    return cached_value(shape_.cache, kv.data() + layout.place(kSlots[row], static_cast<std::int32_t>(kv_head)),
                        kv.data() + layout.scale_place(kSlots[row], static_cast<std::int32_t>(kv_head)), i);
  }
  // All bytes but the two rows' keys, values and scales hold what they held before.
  void expect_nothing_else(std::vector<unsigned char> kv) const {
    const CacheLayout layout = shape_.layout();
    for (const std::int32_t slot : kSlots) {
      for (std::int32_t head = 0; slot >= 0 && head < static_cast<std::int32_t>(2 * kKvHeads); ++head) {
        std::fill_n(kv.begin() + layout.place(slot, head), layout.row_bytes(), 0xFF);
        if (shape_.cache == CacheType::kFp8) std::fill_n(kv.begin() + layout.scale_place(slot, head), 4, 0xFF);
      }
    }
    EXPECT_EQ(static_cast<std::size_t>(std::count(kv.begin(), kv.end(), 0xFF)), kv.size());
  }

  static constexpr float kEps = 1e-6F;
  inline static const std::vector<std::int32_t> kSlots = {2 * 16 + 5, -1, 3 * 16 + 15};

  static std::vector<float> normal(std::mt19937& random, std::size_t size, float mean, float deviation) {
    std::normal_distribution<float> distribution(mean, deviation);
    std::vector<float> out(size);
    for (float& x : out) x = distribution(random);
    return out;
  }

  const std::vector<float>& angles(std::mt19937& random) {
    for (std::size_t row = 0; row < kRows; ++row) {
      for (std::size_t i = 0; i < dim_ / 2; ++i) {
        const auto turn = static_cast<float>(random() % 1000);
        angles_[row * dim_ + i] = std::cos(turn);
        angles_[row * dim_ + dim_ / 2 + i] = std::sin(turn);
      }
    }
    return angles_;
  }

  template <class Projected>
  std::vector<double> expected(std::size_t row, std::size_t head, const Projected& projected) const {
    std::vector<double> x;
    double squares = 0.0;
    for (std::size_t i = 0; i < dim_; ++i) {
      x.push_back(projected(row, head, i) + (bias_.empty() ? 0.0 : static_cast<double>(bias_[head * dim_ + i])));
      squares += x.back() * x.back();
    }
    if (head >= kHeads + kKvHeads) return x;
    const std::vector<float>& norm = head < kHeads ? q_norm_ : k_norm_;
    if (!norm.empty()) {
      const double scale = 1.0 / std::sqrt(squares / static_cast<double>(dim_) + static_cast<double>(kEps));
      for (std::size_t i = 0; i < dim_; ++i) x[i] *= scale * static_cast<double>(norm[i]);
    }
    for (std::size_t i = 0; i < dim_ / 2; ++i) {
      const auto cosine = static_cast<double>(angles_[row * dim_ + i]);
      const auto sine = static_cast<double>(angles_[row * dim_ + dim_ / 2 + i]);
      const double low = x[i], high = x[i + dim_ / 2];
      x[i] = low * cosine - high * sine;
      x[i + dim_ / 2] = high * cosine + low * sine;
    }
    return x;
  }

  AttentionShape shape_;
  std::size_t dim_;
  std::vector<float> bias_, q_norm_, k_norm_, angles_;
  DeviceArray<float> device_bias_, device_q_, device_k_, device_angles_;
  DeviceArray<std::int32_t> device_slots_;
  DeviceArray<Bf16> queries_;
  DeviceArray<unsigned char> kv_;
};

TEST_F(CudaHeads, SplitOffAProjection) {
  std::mt19937 random(fresh_seed());
  for (const std::size_t dim : {64U, 128U}) {
    for (const CacheType cache : kCacheTypes) {
      for (const bool options : {false, true}) {
        const HeadsCase heads(random, dim, cache, options, options);
        const auto qkv = random_bf16(random, HeadsCase::kRows * HeadsCase::kAll * dim);
        const DeviceArray<Bf16> device_qkv(qkv);
        split_qkv(heads.args(device_qkv.data()), test_stream());
        heads.check([&](std::size_t row, std::size_t head, std::size_t i) {
          return value(qkv[(row * HeadsCase::kAll + head) * dim + heads.place(i)]);
        });
      }
    }
  }
}

TEST_F(CudaHeads, WrittenByTheLayer) {
  std::mt19937 random(fresh_seed());
  for (const std::size_t dim : {64U, 128U}) {
    for (const LinearMethod method : {LinearMethod::kShares, LinearMethod::kTiles}) {
      const bool tiles = method == LinearMethod::kTiles;
      const HeadsCase heads(random, dim, tiles ? CacheType::kFp16 : CacheType::kBf16, dim == 128 || tiles, false);
      const std::size_t inputs = 88, outputs = HeadsCase::kAll * dim;
      const auto x = random_bf16(random, HeadsCase::kRows * inputs);
      const auto weights = random_bf16(random, outputs * inputs, 0.05F);
      const DeviceArray<Bf16> device_x(x), device_weights(weights);
      const LinearMemory scratch(3, static_cast<std::int32_t>(outputs));
      linear({device_x.data(), device_weights.data(), nullptr, HeadsCase::kRows, static_cast<std::int32_t>(outputs),
              static_cast<std::int32_t>(inputs), LinearOutput::kHeads, method, scratch.args(), heads.args(nullptr)},
             test_stream());
      heads.check([&](std::size_t row, std::size_t head, std::size_t i) {
        double sum = 0.0;
        for (std::size_t k = 0; k < inputs; ++k) {
          sum += value(x[row * inputs + k]) * value(weights[(head * dim + heads.place(i)) * inputs + k]);
        }
        return sum;
      });
    }
  }
}

}  // namespace
}  // namespace multiverse::kernels::cuda

#include "multiverse/kernels/cuda/linear.h"

#include <cmath>

#include "tests/cuda/memory.h"
#ifdef MULTIVERSE_CUDA_EMULATION
#include "tests/support/cuda/emulation.h"
#endif

namespace multiverse::kernels::cuda {
namespace {

using CudaLinear = DeviceTest;

struct Case {
  std::int32_t rows, outputs, inputs, blocks = 2;
  LinearMethod method = LinearMethod::kShares;
};

double silu(double x) {
  return x / (1.0 + std::exp(-x));
}

// Runs the layer and compares with sums in double precision. Tensor cores cut their float32 sums off rather than round
// them: 4e-6 of Σ|x·w| is about 60 units of the last place, for the hundreds of additions of the longest sums. Results
// in bfloat16 err by 2⁻⁹ of themselves more.
void check_case(const Case& size, LinearOutput output, std::mt19937& random) {
  const LinearMemory scratch(size.blocks, size.outputs);
  const auto x = random_bf16(random, static_cast<std::size_t>(size.rows * size.inputs));
  const auto w = random_bf16(random, static_cast<std::size_t>(size.outputs * size.inputs), 0.05F);
  const DeviceArray<Bf16> device_x(x), device_w(w);
  const bool pairs = output == LinearOutput::kSiluMul;
  const bool wide = output == LinearOutput::kFloat || output == LinearOutput::kAdd;
  const std::int32_t columns = pairs ? size.outputs / 2 : size.outputs;
  const auto count = static_cast<std::size_t>(size.rows * columns);
  const DeviceArray<float> y_float(std::vector<float>(count, output == LinearOutput::kAdd ? 3.0F : NAN));
  const DeviceArray<Bf16> y_bf16(std::vector<Bf16>(count, 0x7FFF));
  linear({device_x.data(),
          device_w.data(),
          wide ? static_cast<void*>(y_float.data()) : y_bf16.data(),
          size.rows,
          size.outputs,
          size.inputs,
          output,
          size.method,
          scratch.args(),
          {}},
         test_stream());
  const auto got_float = y_float.host();
  const auto got_bf16 = y_bf16.host();
  double worst = 0.0;
  for (std::int32_t row = 0; row < size.rows; ++row) {
    const auto dot = [&](std::int32_t o, double& magnitude) {
      double sum = 0.0;
      for (std::int32_t k = 0; k < size.inputs; ++k) {
        const double product = value(x[static_cast<std::size_t>(row * size.inputs + k)]) *
                               value(w[static_cast<std::size_t>(o * size.inputs + k)]);
        sum += product;
        magnitude += std::fabs(product);
      }
      return sum;
    };
    for (std::int32_t column = 0; column < columns; ++column) {
      double magnitude = 0.0, want = 0.0;
      if (pairs) {
        const std::int32_t gate = column / 8 * 16 + column % 8;
        const double g = dot(gate, magnitude), up = dot(gate + 8, magnitude);
        magnitude *= 2.0 + std::fabs(g) + std::fabs(up);
        want = silu(g) * up;
      } else {
        want = dot(column, magnitude) + (output == LinearOutput::kAdd ? 3.0 : 0.0);
      }
      const auto place = static_cast<std::size_t>(row * columns + column);
      const double got = wide ? static_cast<double>(got_float[place]) : value(got_bf16[place]);
      const double allowed = 4e-6 * magnitude + 1e-6 + (wide ? 0.0 : std::fabs(want) / 250.0);
      const double error = std::isfinite(got) ? std::fabs(got - want) / allowed : 1e9;
      worst = std::max(worst, error);
    }
  }
  std::printf("%d rows, %d x %d among %d by method %d, output %d: error %.3f of what is allowed\n", size.rows,
              size.outputs, size.inputs, size.blocks, static_cast<int>(size.method), static_cast<int>(output), worst);
  EXPECT_LE(worst, 1.0);
  EXPECT_TRUE(scratch.is_clean());
}

TEST_F(CudaLinear, MatchesReference) {
  std::mt19937 random(fresh_seed());
  // Shares of less than a tile, of a tile, of parts of several; more blocks than units; rows beyond one pass.
  std::vector<Case> cases = {{1, 16, 8, 1},    {3, 40, 72, 7},    {8, 136, 1096, 5}, {9, 48, 136, 2},
                             {16, 64, 384, 3}, {37, 264, 264, 4}, {70, 144, 200, 3}};
  if (!kEmulated) {
    for (const Case& large : {Case{1, 1152, 896, 132}, Case{8, 4608, 3584, 132}, Case{16, 896, 4864, 131},
                              Case{33, 3584, 3584, 132}, Case{130, 512, 896, 132}}) {
      cases.push_back(large);
    }
  }
  for (std::size_t i = 0, count = cases.size(); i < count; ++i) {
    cases.push_back(cases[i]);
    cases.back().method = LinearMethod::kTiles;
  }
  for (const Case& size : cases) {
    for (const LinearOutput output : {LinearOutput::kBf16, LinearOutput::kFloat, LinearOutput::kAdd}) {
      check_case(size, output, random);
    }
    if (size.outputs % 16 == 0) check_case(size, LinearOutput::kSiluMul, random);
  }
}

#ifdef MULTIVERSE_CUDA_EMULATION
// Cards of compute capability 8.6, 8.9 and 12.0.
TEST_F(CudaLinear, FitsCardsWithLittleSharedMemory) {
  std::mt19937 random(fresh_seed());
  const int usual = std::exchange(emulation::shared_limit, 99 << 10);
  for (const Case& size : {Case{3, 40, 72, 7}, Case{8, 136, 1096, 5}, Case{16, 64, 384, 3}, Case{70, 144, 200, 3}}) {
    check_case(size, LinearOutput::kFloat, random);
  }
  emulation::shared_limit = usual;
}
#endif

TEST_F(CudaLinear, ARowsBitsDoNotDependOnTheOthers) {
  std::mt19937 random(fresh_seed());
  const std::int32_t rows = 69, outputs = 160, inputs = 520;
  const LinearMemory scratch(5, outputs);
  const auto x = random_bf16(random, static_cast<std::size_t>(rows * inputs));
  const DeviceArray<Bf16> w(random_bf16(random, static_cast<std::size_t>(outputs * inputs), 0.05F));
  LinearMethod method = LinearMethod::kShares;
  const auto compute = [&](std::int32_t begin, std::int32_t end) {
    const DeviceArray<Bf16> part(std::vector<Bf16>(x.begin() + begin * inputs, x.begin() + end * inputs));
    const DeviceArray<float> y(static_cast<std::size_t>((end - begin) * outputs));
    linear({part.data(),
            w.data(),
            y.data(),
            end - begin,
            outputs,
            inputs,
            LinearOutput::kFloat,
            method,
            scratch.args(),
            {}},
           test_stream());
    return y.host();
  };
  for (const LinearMethod tried : {LinearMethod::kShares, LinearMethod::kTiles}) {
    method = tried;
    const auto together = compute(0, rows);
    for (const std::int32_t count : {1, 9, 17, 33}) {
      for (std::int32_t begin = 0; begin + count <= rows; begin += count) {
        const auto got = compute(begin, begin + count);
        EXPECT_TRUE(std::equal(got.begin(), got.end(), together.begin() + begin * outputs)) << count << " rows";
      }
    }
  }
}

}  // namespace
}  // namespace multiverse::kernels::cuda

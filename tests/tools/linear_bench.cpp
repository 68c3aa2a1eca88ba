// Compares the packed linear layers with libtorch's at::linear on one layer of the tiny model's shapes.
//   linear_bench [THREADS]
// Times are the least of several, in CPU time of the process where THREADS is 1 (other load on the machine then shows
// little), else in wall time. Each call works on another copy of the weights, so that they come from where they would
// in a model: the last-level cache or memory.
#include <ATen/Parallel.h>
#include <ATen/core/Tensor.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/linear.h>
#include <ATen/ops/randn.h>
#include <time.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <vector>

#include "multiverse/kernels/linear.h"

namespace {

namespace mk = multiverse::kernels;

constexpr int kCopies = 6;  // layers of the model

double seconds(int threads) {
  timespec time{};
  clock_gettime(threads == 1 ? CLOCK_PROCESS_CPUTIME_ID : CLOCK_MONOTONIC, &time);
  return static_cast<double>(time.tv_sec) + 1e-9 * static_cast<double>(time.tv_nsec);
}

double least(int threads, const std::function<void()>& body) {
  double best = 1e9;
  for (int i = 0; i < 15; ++i) {
    const double start = seconds(threads);
    body();
    best = std::min(best, seconds(threads) - start);
  }
  return best;
}

struct Packed {
  std::vector<float> memory;
  mk::PackedMatrix matrix;
};

Packed pack(const at::Tensor& weight, mk::WeightType type) {
  Packed out;
  out.matrix = {nullptr, type, weight.size(0), weight.size(1)};
  out.memory.resize(out.matrix.bytes() / sizeof(float) + 16);
  const auto address = reinterpret_cast<std::uintptr_t>(out.memory.data());
  out.matrix.data = out.memory.data() + (64 - address % 64) % 64 / sizeof(float);
  for (std::int64_t row = 0; row < weight.size(0); ++row) {
    mk::pack_row(out.matrix, const_cast<void*>(out.matrix.data), row, weight.data_ptr<float>() + row * weight.size(1));
  }
  return out;
}

void compare(std::int64_t outputs, std::int64_t inputs, mk::ThreadPool& pool) {
  std::vector<at::Tensor> weights, weights16;
  std::vector<Packed> packed, packed16;
  for (int i = 0; i < kCopies; ++i) {
    weights.push_back(at::randn({outputs, inputs}));
    weights16.push_back(weights.back().to(at::kBFloat16));
    packed.push_back(pack(weights.back(), mk::WeightType::kFloat32));
    packed16.push_back(pack(weights.back(), mk::WeightType::kBFloat16));
  }
  for (const std::int64_t rows : {1, 2, 4, 8, 16, 64, 512}) {
    const at::Tensor x = at::randn({rows, inputs});
    const at::Tensor x16 = x.to(at::kBFloat16);
    std::vector<float> y(static_cast<std::size_t>(rows * outputs));
    const int repeat = rows >= 64 ? 1 : 10;
    const auto torch_time = [&](const std::vector<at::Tensor>& w, const at::Tensor& input) {
      return least(pool.size(),
                   [&] {
                     for (int i = 0; i < repeat * kCopies; ++i)
                       at::linear(input, w[static_cast<std::size_t>(i % kCopies)]);
                   }) /
             (repeat * kCopies);
    };
    const auto own_time = [&](const std::vector<Packed>& w) {
      return least(pool.size(),
                   [&] {
                     for (int i = 0; i < repeat * kCopies; ++i) {
                       mk::linear(w[static_cast<std::size_t>(i % kCopies)].matrix,
                                  {.x = x.data_ptr<float>(),
                                   .y = y.data(),
                                   .rows = rows,
                                   .x_stride = inputs,
                                   .y_stride = outputs,
                                   .y_columns = outputs},
                                  mk::best_isa(), pool);
                     }
                   }) /
             (repeat * kCopies);
    };
    const double flop = 2.0 * static_cast<double>(rows * outputs * inputs);
    std::printf(
        "%5ld x %4ld rows %3ld  torch f32 %8.1f us (%5.1f GFLOP/s)  torch bf16 %8.1f us  own f32 %8.1f us (%5.1f)  "
        "own bf16 %8.1f us (%5.1f)\n",
        outputs, inputs, rows, torch_time(weights, x) * 1e6, flop / torch_time(weights, x) * 1e-9,
        torch_time(weights16, x16) * 1e6, own_time(packed) * 1e6, flop / own_time(packed) * 1e-9,
        own_time(packed16) * 1e6, flop / own_time(packed16) * 1e-9);
  }
}

}  // namespace

int main(int argc, char** argv) {
  const int threads = argc > 1 ? std::max(1, std::atoi(argv[1])) : 1;
  at::set_num_threads(threads);
  const at::NoGradGuard no_grad;
  mk::ThreadPool pool(threads);
  compare(640, 384, pool);
  compare(384, 384, pool);
  compare(2048, 384, pool);
  compare(384, 1024, pool);
  return 0;
}

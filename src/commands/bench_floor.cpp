#include "commands/bench_floor.h"

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <limits>
#include <thread>
#include <vector>

#include "multiverse/base/check.h"
#include "multiverse/kernels/elementwise.h"

namespace multiverse {
namespace {

std::size_t num_threads() {
  return std::max(1U, std::thread::hardware_concurrency());
}

// Runs work(thread) on all cores at once, several times; the seconds of the fastest pass.
template <class Work>
double fastest_pass(const Work& work) {
  double best = std::numeric_limits<double>::infinity();
  for (int pass = 0; pass < 5; ++pass) {
    const auto begin = std::chrono::steady_clock::now();
    std::vector<std::thread> threads;
    for (std::size_t t = 0; t < num_threads(); ++t) threads.emplace_back([&work, t] { work(t); });
    for (std::thread& thread : threads) thread.join();
    best = std::min(best, std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count());
  }
  return best;
}

}  // namespace

double measure_read_rate(double range_bytes) {
  const auto words = std::max<std::size_t>(static_cast<std::size_t>(range_bytes) / sizeof(std::uint64_t), 1 << 16);
  const std::size_t repeats = std::max<std::size_t>(1, (std::size_t{1} << 25) / words);
  const std::vector<std::uint64_t> data(words, 1);
  std::vector<std::uint64_t> sums(num_threads() * 8);
  const double seconds = fastest_pass([&](std::size_t t) {
    std::uint64_t sum = 0;
    for (std::size_t repeat = 0; repeat < repeats; ++repeat) {
      const std::uint64_t* first = data.data() + words * t / num_threads();
      const std::uint64_t* last = data.data() + words * (t + 1) / num_threads();
      for (; first + 4 <= last; first += 4) sum ^= first[0] + first[1] + first[2] + first[3];
      asm volatile("" : "+r"(sum));  // each pass really reads
    }
    sums[t * 8] = sum;
  });
  return static_cast<double>(words * sizeof(std::uint64_t) * repeats) / seconds;
}

double measure_flop_rate() {
  constexpr std::int64_t kRounds = 1 << 22;
  std::vector<float> sums(num_threads() * 16);
  const double seconds =
      fastest_pass([&](std::size_t t) { sums[t * 16] = kernels::multiply_add_rounds(kRounds, kernels::best_isa()); });
  CHECK(sums[0] > 0.0F, "the arithmetic was optimised away");
  return static_cast<double>(num_threads()) * kRounds * kernels::kMultiplyAddFlops / seconds;
}

double layer_flops(const ModelConfig& model, double context) {
  const double heads = static_cast<double>(model.num_heads * model.head_dim);
  const double kv_heads = static_cast<double>(model.num_kv_heads * model.head_dim);
  const double hidden = static_cast<double>(model.hidden_size);
  const double layer = hidden * (heads + 2 * kv_heads) + heads * hidden +
                       3 * hidden * static_cast<double>(model.intermediate_size) + 2 * heads * context;
  return 2 * static_cast<double>(model.num_layers) * layer;
}

double row_flops(const ModelConfig& model, double context) {
  return layer_flops(model, context) + 2 * static_cast<double>(model.hidden_size * model.vocab_size);
}

}  // namespace multiverse

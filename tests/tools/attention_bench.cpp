// Times segment attention by itself: ROWS rows over SHARED tokens that all see and OWN tokens of each.
//   attention_bench [THREADS]
// Prints the least of several times (CPU time of the process where THREADS is 1) beside the bytes that must be read and
// the arithmetic that must be done.
#include <time.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <random>
#include <vector>

#include "multiverse/kernels/attention.h"

namespace {

namespace mk = multiverse::kernels;

double seconds(int threads) {
  timespec time{};
  clock_gettime(threads == 1 ? CLOCK_PROCESS_CPUTIME_ID : CLOCK_MONOTONIC, &time);
  return static_cast<double>(time.tv_sec) + 1e-9 * static_cast<double>(time.tv_nsec);
}

struct Shape {
  std::int32_t heads, kv_heads, head_dim, rows, shared, own;
};

// Several layers' pages in turn, as a step reads them.
constexpr int kLayers = 6;

void bench(const Shape& shape, mk::ThreadPool& pool) {
  const auto pages_of = [](std::int32_t tokens) { return (tokens + mk::kPageTokens - 1) / mk::kPageTokens; };
  const std::int32_t num_pages = pages_of(shape.shared) + shape.rows * pages_of(shape.own);
  mk::PagedKv kv{nullptr, num_pages, shape.kv_heads, shape.head_dim};
  const std::size_t layer_floats =
      static_cast<std::size_t>(num_pages) * static_cast<std::size_t>(shape.kv_heads) * kv.page_floats();
  std::mt19937 random(1);
  std::normal_distribution<float> normal;
  std::vector<float> memory(layer_floats * kLayers + 16);
  for (float& x : memory) x = normal(random);
  const std::int64_t stride = std::int64_t{shape.heads} * shape.head_dim;
  std::vector<float> queries(static_cast<std::size_t>(shape.rows * stride)), out(queries.size());
  for (float& x : queries) x = normal(random);
  std::vector<std::int32_t> pages(static_cast<std::size_t>(num_pages));
  for (std::size_t i = 0; i < pages.size(); ++i) pages[i] = static_cast<std::int32_t>(i);
  std::vector<mk::AttentionSpan> spans;
  if (shape.shared > 0) spans.push_back({0, shape.shared, 0, shape.rows, false});
  for (std::int32_t row = 0; row < shape.rows && shape.own > 0; ++row) {
    spans.push_back({pages_of(shape.shared) + row * pages_of(shape.own), shape.own, row, row + 1, true});
  }
  std::vector<float> scratch(mk::attention_scratch_floats(shape.head_dim) * static_cast<std::size_t>(pool.size()));
  double best = 1e9;
  for (int i = 0; i < 12; ++i) {
    const double start = seconds(pool.size());
    for (std::size_t layer = 0; layer < kLayers; ++layer) {
      kv.base = memory.data() + layer * layer_floats;
      mk::segment_attention({.queries = queries.data(),
                             .out = out.data(),
                             .query_stride = stride,
                             .out_stride = stride,
                             .num_rows = shape.rows,
                             .num_heads = shape.heads,
                             .kv = kv,
                             .pages = pages.data(),
                             .spans = spans.data(),
                             .num_spans = static_cast<std::int32_t>(spans.size())},
                            scratch.data(), mk::best_isa(), pool);
    }
    best = std::min(best, (seconds(pool.size()) - start) / kLayers);
  }
  const double bytes = static_cast<double>(layer_floats) * sizeof(float);
  const double flop = 4.0 * shape.rows * (shape.shared + shape.own) * static_cast<double>(stride);
  std::printf("heads %2d/%d x %3d  rows %3d  shared %5d  own %5d: %9.1f us a layer, %6.1f GB/s, %6.1f GFLOP/s\n",
              shape.heads, shape.kv_heads, shape.head_dim, shape.rows, shape.shared, shape.own, best * 1e6,
              bytes / best * 1e-9, flop / best * 1e-9);
}

}  // namespace

int main(int argc, char** argv) {
  mk::ThreadPool pool(argc > 1 ? std::max(1, std::atoi(argv[1])) : 1);
  for (const std::int32_t rows : {1, 2, 4, 8, 16, 32}) bench({6, 2, 64, rows, 4000, 16}, pool);
  bench({6, 2, 64, 16, 0, 512}, pool);
  bench({6, 2, 64, 1, 0, 512}, pool);
  bench({28, 4, 128, 1, 4000, 16}, pool);
  bench({28, 4, 128, 8, 4000, 16}, pool);
  return 0;
}

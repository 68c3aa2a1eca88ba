#include "multiverse/kernels/cuda/attention.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "model/cuda/attention_plan.h"
#include "tests/cuda/memory.h"
#ifdef MULTIVERSE_CUDA_EMULATION
#include "tests/support/cuda/emulation.h"
#endif

namespace multiverse::kernels::cuda {
namespace {

// A step over random pages, scattered over the pool; slots that nothing names hold NaN.
class Step {
 public:
  Step(const AttentionShape& shape, std::int32_t num_pages, unsigned seed)
      : shape_(shape), random_(seed), pool_(static_cast<std::size_t>(num_pages * layout().page_bytes()), 0xFF) {
    free_.resize(static_cast<std::size_t>(num_pages));
    std::iota(free_.begin(), free_.end(), 0);
    std::shuffle(free_.begin(), free_.end(), random_);
  }

  std::vector<PageId> run(std::int32_t tokens) {
    std::vector<PageId> pages;
    for (std::int32_t token = 0; token < tokens; ++token) {
      if (token % kPageTokens == 0) {
        pages.push_back(free_.back());
        free_.pop_back();
      }
      for (std::int32_t head = 0; head < shape_.num_kv_heads; ++head) {
        fill(pages.back() * kPageTokens + token % kPageTokens, head, 8.0F);
        fill(pages.back() * kPageTokens + token % kPageTokens, head + shape_.num_kv_heads, 100.0F);
      }
    }
    return pages;
  }
  std::int32_t add_rows(std::int32_t count) {
    const auto begin = static_cast<std::int32_t>(plan_.rows.size());
    plan_.rows.resize(plan_.rows.size() + static_cast<std::size_t>(count));
    const auto more = random_bf16(random_, static_cast<std::size_t>(count * row_size()), 1.0F, 5.0F);
    queries_.insert(queries_.end(), more.begin(), more.end());
    return begin;
  }
  void add_item(const std::vector<PageId>& pages, std::int32_t tokens, std::int32_t begin, std::int32_t end,
                bool causal) {
    plan_.items.push_back({static_cast<std::int32_t>(plan_.pages.size()), tokens, begin, end, causal});
    plan_.pages.insert(plan_.pages.end(), pages.begin(), pages.begin() + (tokens + 15) / 16);
  }

  // Rows (all, heads, head_dim) with `padding` rows after them.
  std::vector<Bf16> compute(bool deterministic, std::int32_t padding = 3, std::int64_t max_parts = 100'000) {
    const AttentionCutting cutting = {shape_.num_heads / shape_.num_kv_heads, shape_.num_kv_heads,
                                      2 * multiprocessors(), max_parts, deterministic};
    const auto rows = static_cast<std::int32_t>(plan_.rows.size());
    std::vector<Bf16> padded = queries_;
    padded.resize(padded.size() + static_cast<std::size_t>(padding * row_size()), 0x7FFF);
    const DeviceArray<Bf16> queries(padded), out(padded.size());
    const DeviceArray<unsigned char> pool(pool_);
    const DeviceArray<std::int32_t> pages(plan_.pages);
    passes_ = 0;
    for (std::int32_t row = 0; row < rows; ++passes_) {
      const AttentionPass pass = plan_attention(plan_, cutting, row);
      const std::size_t parts = pass.row_parts.size();
      EXPECT_LE(static_cast<std::int64_t>(parts), max_parts);
      const DeviceArray<float> values(parts * static_cast<std::size_t>(row_size()));
      const DeviceArray<float> sums(parts * static_cast<std::size_t>(shape_.num_heads) * 2);
      const DeviceArray<AttentionChunk> chunks(pass.chunks);
      const DeviceArray<std::int32_t> row_first(pass.row_first), row_parts(pass.row_parts);
      const DeviceArray<AttentionPlan> header({{chunks.data(), pages.data(), row_first.data(), row_parts.data(),
                                                static_cast<std::int32_t>(pass.chunks.size()), row, pass.row_end}});
      segment_attention(
          {queries.data(), out.data(), pool.data(), header.data(), values.data(), sums.data(), rows + padding, shape_},
          cutting.blocks, test_stream());
      out.host();  // waits: the pass's memory goes
      row = pass.row_end;
    }
    return out.host();
  }

  // One row in double precision, straight from the definition.
  std::vector<double> reference(std::int32_t row) const {
    const std::int32_t dim = shape_.head_dim, group = shape_.num_heads / shape_.num_kv_heads;
    std::vector<double> out;
    for (std::int32_t head = 0; head < shape_.num_heads; ++head) {
      const Bf16* query = queries_.data() + row * row_size() + head * dim;
      std::vector<double> scores;
      std::vector<std::int32_t> slots;
      for (const AttentionItem& item : plan_.items) {
        if (row < item.row_begin || row >= item.row_end) continue;
        const std::int32_t seen = item.causal ? item.num_tokens - (item.row_end - 1 - row) : item.num_tokens;
        for (std::int32_t token = 0; token < seen; ++token) {
          const PageId page = plan_.pages[static_cast<std::size_t>(item.first_page + token / 16)];
          slots.push_back(page * kPageTokens + token % 16);
          double score = 0.0;
          for (std::int32_t d = 0; d < dim; ++d) score += value(query[d]) * cached(slots.back(), head / group, d);
          scores.push_back(score / std::sqrt(static_cast<double>(dim)));
        }
      }
      const double largest = *std::max_element(scores.begin(), scores.end());
      double sum = 0.0;
      std::vector<double> result(static_cast<std::size_t>(dim), 0.0);
      for (std::size_t t = 0; t < scores.size(); ++t) {
        const double weight = std::exp(scores[t] - largest);
        sum += weight;
        for (std::int32_t d = 0; d < dim; ++d) {
          result[static_cast<std::size_t>(d)] += weight * cached(slots[t], head / group + shape_.num_kv_heads, d);
        }
      }
      for (const double x : result) out.push_back(x / sum);
    }
    return out;
  }

  // Weights and results are rounded to bfloat16, 2⁻⁹ each; the scale is the row's largest value.
  void expect_near_reference(const std::vector<Bf16>& got, const std::string& what, std::int32_t every = 1) const {
    constexpr double kTolerance = 8e-3;
    double worst = 0.0;
    std::int32_t where = -1;
    const auto rows = static_cast<std::int32_t>(plan_.rows.size());
    for (std::int32_t row = 0; row < rows; row += every) {
      const std::vector<double> want = reference(row);
      double scale = 1.0;
      for (const double x : want) scale = std::max(scale, std::fabs(x));
      for (std::size_t i = 0; i < want.size(); ++i) {
        const double x = value(got[static_cast<std::size_t>(row * row_size()) + i]);
        const double error = std::isfinite(x) ? std::fabs(x - want[i]) / scale : 1e9;
        if (error > worst) worst = error, where = row;
      }
    }
    std::printf("%s: %d rows, max error %.2e (row %d), tolerance %.0e\n", what.c_str(), rows, worst, where, kTolerance);
    EXPECT_LE(worst, kTolerance) << what;
    for (auto i = static_cast<std::size_t>(rows * row_size()); i < got.size(); ++i) {
      ASSERT_EQ(got[i], 0xFFFF) << "padding was written, element " << i;
    }
  }

  std::int64_t row_size() const { return std::int64_t{shape_.num_heads} * shape_.head_dim; }
  std::mt19937& random() { return random_; }
  StepPlan& plan() { return plan_; }
  std::vector<Bf16>& queries() { return queries_; }
  int passes() const { return passes_; }

 private:
  CacheLayout layout() const { return shape_.layout(); }
  double cached(std::int32_t slot, std::int32_t kv_head, std::int32_t d) const {
    return cached_value(shape_.cache, pool_.data() + layout().place(slot, kv_head),
                        pool_.data() + layout().scale_place(slot, kv_head), static_cast<std::size_t>(d));
  }
  // Random numbers.
  void fill(std::int32_t slot, std::int32_t kv_head, float outlier) {
    unsigned char* row = pool_.data() + layout().place(slot, kv_head);
    const auto numbers = random_bf16(random_, static_cast<std::size_t>(shape_.head_dim), 1.0F, outlier);
    double largest = 0.0;
    for (const Bf16 number : numbers) largest = std::max(largest, std::fabs(value(number)));
    const auto scale = static_cast<float>(largest / 448.0);
    for (std::size_t i = 0; i < numbers.size(); ++i) {
      const auto number = static_cast<float>(value(numbers[i]));
      const std::uint16_t bits =
          shape_.cache == CacheType::kFp16 ? static_cast<std::uint16_t>(Fp16::encode(number)) : numbers[i];
      if (shape_.cache == CacheType::kFp8) {
        row[i] = static_cast<unsigned char>(E4m3::encode(number / scale));
      } else {
        std::memcpy(row + 2 * i, &bits, sizeof bits);
      }
    }
    if (shape_.cache == CacheType::kFp8) {
      std::memcpy(pool_.data() + layout().scale_place(slot, kv_head), &scale, sizeof scale);
    }
  }

  AttentionShape shape_;
  std::mt19937 random_;
  std::vector<unsigned char> pool_;
  std::vector<Bf16> queries_;
  std::vector<PageId> free_;
  StepPlan plan_;
  int passes_ = 0;
};

using CudaAttention = DeviceTest;

// A prompt's chunk, then decode rows after two runs with partly filled tails.
void add_mixed_step(Step& step, std::int32_t chunk) {
  const std::int32_t prompt = chunk + 133, first = step.add_rows(chunk);
  step.add_item(step.run(prompt), prompt, first, first + chunk, true);
  const std::int32_t begin = step.add_rows(3);
  step.add_item(step.run(37), 37, begin, begin + 3, false);
  for (std::int32_t i = 0; i < 3; ++i) step.add_item(step.run(i + 14), i + 14, begin + i, begin + i + 1, true);
}

TEST_F(CudaAttention, MatchesReferenceForManyShapes) {
  const unsigned seed = fresh_seed();
  const AttentionShape shapes[] = {{6, 2, 64}, {4, 4, 128}, {5, 1, 128}, {7, 1, 64}, {16, 2, 128}, {64, 1, 64}};
  for (AttentionShape shape : shapes) {
    for (const CacheType cache : kCacheTypes) {
      for (const bool deterministic : {false, true}) {
        if (deterministic && cache != CacheType::kBf16) continue;  // how the work is cut, for all formats alike
        shape.cache = cache;
        Step step(shape, 64, seed);
        add_mixed_step(step, 23);
        step.expect_near_reference(step.compute(deterministic),
                                   std::to_string(shape.num_heads) + "/" + std::to_string(shape.num_kv_heads) + " x " +
                                       std::to_string(shape.head_dim) + ", " + name_of(cache));
      }
    }
  }
}

#ifdef MULTIVERSE_CUDA_EMULATION
// Cards of compute capability 8.6, 8.9 and 12.0.
TEST_F(CudaAttention, FitsCardsWithLittleSharedMemory) {
  const int usual = std::exchange(emulation::shared_limit, 99 << 10);
  Step step({8, 2, 128}, 64, fresh_seed());
  add_mixed_step(step, 23);
  step.expect_near_reference(step.compute(false), "99 KiB");
  emulation::shared_limit = usual;
}
#endif

TEST_F(CudaAttention, OneTokenGivesItsValue) {
  for (const CacheType cache : {CacheType::kBf16, CacheType::kFp16}) {
    Step step({6, 2, 64, cache}, 1, fresh_seed());
    step.add_rows(1);
    step.add_item(step.run(1), 1, 0, 1, true);
    const auto got = step.compute(false);
    const auto want = step.reference(0);
    for (std::size_t i = 0; i < want.size(); ++i) EXPECT_EQ(value(got[i]), want[i]);
  }
}

// A root, branches of it, leaves of them: decode rows or chunks.
void add_tree(Step& step, std::int32_t root_tokens, int most_branches) {
  std::mt19937& random = step.random();
  const auto length = [&](int most) { return 1 + static_cast<std::int32_t>(random() % static_cast<unsigned>(most)); };
  const auto root = step.run(root_tokens);
  struct Node {
    std::vector<PageId> pages;
    std::int32_t tokens, begin, end;
    bool leaf;
  };
  std::vector<Node> nodes;
  std::int32_t row = 0;
  for (std::int32_t b = length(most_branches); b > 0; --b) {
    const auto tokens = length(200);
    nodes.push_back({step.run(tokens), tokens, row, row, false});
    const std::size_t index = nodes.size() - 1;
    for (std::int32_t leaves = length(4); leaves > 0; --leaves) {
      const std::int32_t rows = random() % 3 == 0 ? length(30) : 1, own = rows + length(60);
      nodes.push_back({step.run(own), own, row, row + rows, true});
      row += rows;
    }
    nodes[index].end = row;
  }
  step.add_rows(row);
  step.add_item(root, root_tokens, 0, row, false);
  for (const Node& node : nodes) step.add_item(node.pages, node.tokens, node.begin, node.end, node.leaf);
}

TEST_F(CudaAttention, MatchesReferenceOnRandomTrees) {
  const unsigned seed = fresh_seed();
  for (unsigned round = 0; round < (kEmulated ? 3U : 9U); ++round) {
    Step step({6, 2, 64, kCacheTypes[round % 3]}, kEmulated ? 400 : 2200, seed + round);
    const std::int32_t root = 1 + static_cast<std::int32_t>(step.random()() % (kEmulated ? 900U : 20'000U));
    add_tree(step, root, kEmulated ? 4 : 12);
    step.expect_near_reference(step.compute(round % 2 == 1), "tree over " + std::to_string(root), kEmulated ? 3 : 5);
  }
}

TEST_F(CudaAttention, MatchesReferenceFor512Rows) {
  const std::int32_t rows = kEmulated ? 150 : 512;
  Step step({6, 2, 64}, 160, fresh_seed());
  step.add_rows(rows);
  step.add_item(step.run(1000), 1000, 0, rows, false);
  step.add_item(step.run(rows + 8), rows + 8, 0, rows, true);
  step.expect_near_reference(step.compute(false), "many rows", 13);
}

TEST_F(CudaAttention, MatchesReferenceForLongContexts) {
  const std::int32_t tokens = kEmulated ? 3000 : 131'072;
  for (const CacheType cache : {CacheType::kBf16, CacheType::kFp8}) {
    Step step({8, 1, 128, cache}, tokens / 16 + 8, fresh_seed());
    step.add_rows(3);
    step.add_item(step.run(tokens - 5), tokens - 5, 0, 3, false);
    for (std::int32_t row = 0; row < 3; ++row) step.add_item(step.run(2), 2, row, row + 1, true);
    step.expect_near_reference(step.compute(false), std::string("long context, ") + name_of(cache));
    step.expect_near_reference(step.compute(true), std::string("long context, deterministic, ") + name_of(cache));
  }
}

TEST_F(CudaAttention, RowsGoInSeveralPassesWhereTheirPartsDoNotFit) {
  Step step({6, 2, 64}, 200, fresh_seed());
  add_mixed_step(step, 60);
  const auto at_once = step.compute(true);
  EXPECT_EQ(step.passes(), 1);
  const auto in_passes = step.compute(true, 3, 10);
  EXPECT_GT(step.passes(), 5);
  EXPECT_EQ(at_once, in_passes);
}

// The rule of --deterministic: a row's bits depend on its own context only.
TEST_F(CudaAttention, DeterministicRowsHaveTheSameBitsAloneAndInABatch) {
  Step step({6, 2, 64}, 300, fresh_seed());
  const std::int32_t root_tokens = 600, rows = 9;
  const auto root = step.run(root_tokens);
  std::vector<std::vector<PageId>> own;
  std::vector<std::int32_t> lengths;
  step.add_rows(rows);
  step.add_item(root, root_tokens, 0, rows, false);
  for (std::int32_t row = 0; row < rows; ++row) {
    lengths.push_back(1 + static_cast<std::int32_t>(step.random()() % 90));
    own.push_back(step.run(lengths.back()));
    step.add_item(own.back(), lengths.back(), row, row + 1, true);
  }
  const auto together = step.compute(true);
  const std::vector<Bf16> queries = step.queries();
  for (std::int32_t row = 0; row < rows; ++row) {
    step.plan().clear();
    step.queries().assign(queries.begin() + row * step.row_size(), queries.begin() + (row + 1) * step.row_size());
    step.plan().rows.resize(1);
    // The root in two items, cut where a plan may cut it.
    step.add_item(root, kSplitTokens, 0, 1, false);
    step.add_item({root.begin() + kSplitTokens / 16, root.end()}, root_tokens - kSplitTokens, 0, 1, false);
    step.add_item(own[static_cast<std::size_t>(row)], lengths[static_cast<std::size_t>(row)], 0, 1, true);
    const auto alone = step.compute(true);
    EXPECT_TRUE(std::equal(alone.begin(), alone.begin() + step.row_size(), together.begin() + row * step.row_size()))
        << "row " << row;
  }
}

}  // namespace
}  // namespace multiverse::kernels::cuda

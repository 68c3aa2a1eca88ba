#include "multiverse/kernels/attention.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>
#include <limits>
#include <random>

#include "tests/kernels/attention_reference.h"

namespace multiverse::kernels {
namespace {

unsigned fresh_seed() {
  const unsigned seed = std::random_device{}();
  std::printf("seed %u\n", seed);
  return seed;
}

std::vector<Isa> isas() {
  std::vector<Isa> out;
  for (const Isa isa : {Isa::kPortable, Isa::kAvx2, Isa::kAvx512}) {
    if (supported(isa)) out.push_back(isa);
  }
  return out;
}

struct Shape {
  std::int32_t heads = 6, kv_heads = 2, head_dim = 64;
};

// A step over random pages. Runs of pages are scattered over the pool; slots that nothing names hold NaN.
class Step {
 public:
  Step(const Shape& shape, std::int32_t num_pages, unsigned seed) : shape_(shape), random_(seed) {
    kv_ = {nullptr, num_pages, shape.kv_heads, shape.head_dim};
    memory_.assign(static_cast<std::size_t>(num_pages) * static_cast<std::size_t>(shape.kv_heads) * kv_.page_floats(),
                   std::numeric_limits<float>::quiet_NaN());
    kv_.base = memory_.data();
    for (std::int32_t page = 0; page < num_pages; ++page) {
      for (std::int32_t head = 0; head < shape.kv_heads; ++head) clear_padding(page, head);
      free_.push_back(page);
    }
    std::shuffle(free_.begin(), free_.end(), random_);
  }

  // A run of `tokens` random tokens; an outlier dimension now and then.
  std::vector<std::int32_t> run(std::int32_t tokens) {
    std::vector<std::int32_t> pages;
    for (std::int32_t token = 0; token < tokens; ++token) {
      if (token % kPageTokens == 0) {
        pages.push_back(free_.back());
        free_.pop_back();
      }
      const auto key = normals(shape_.kv_heads * shape_.head_dim, 30.0F);
      const auto value = normals(shape_.kv_heads * shape_.head_dim, 100.0F);
      kv_.write(pages.back(), token % kPageTokens, key.data(), value.data());
    }
    return pages;
  }

  void add_rows(std::int32_t count) {
    const auto more = normals(count * shape_.heads * shape_.head_dim, 10.0F);
    queries_.insert(queries_.end(), more.begin(), more.end());
  }
  void add_query(const float* query) { queries_.insert(queries_.end(), query, query + row_floats()); }
  void add_span(const std::vector<std::int32_t>& run_pages, std::int32_t tokens, std::int32_t begin, std::int32_t end,
                bool causal) {
    spans_.push_back({static_cast<std::int32_t>(pages_.size()), tokens, begin, end, causal});
    pages_.insert(pages_.end(), run_pages.begin(), run_pages.begin() + (tokens + 15) / 16);
  }
  void clear_plan() {
    queries_.clear();
    pages_.clear();
    spans_.clear();
  }

  AttentionArgs args() {
    out_.assign(queries_.size(), -1.0F);
    return {queries_.data(), out_.data(), row_floats(),  row_floats(),  num_rows(),
            shape_.heads,    kv_,         pages_.data(), spans_.data(), static_cast<std::int32_t>(spans_.size())};
  }
  std::vector<float> compute(Isa isa, ThreadPool& pool) {
    const AttentionArgs step = args();
    std::vector<float> scratch(attention_scratch_floats(shape_.head_dim) * static_cast<std::size_t>(pool.size()));
    segment_attention(step, scratch.data(), isa, pool);
    return out_;
  }

  std::int64_t row_floats() const { return std::int64_t{shape_.heads} * shape_.head_dim; }
  std::int32_t num_rows() const {
    return static_cast<std::int32_t>(static_cast<std::int64_t>(queries_.size()) / row_floats());
  }
  const std::vector<float>& queries() const { return queries_; }
  std::mt19937& random() { return random_; }

 private:
  std::vector<float> normals(std::int32_t count, float outlier) {
    std::normal_distribution<float> normal;
    std::vector<float> out(static_cast<std::size_t>(count));
    for (float& x : out) x = normal(random_) * (random_() % 256 == 0 ? outlier : 1.0F);
    return out;
  }
  void clear_padding(std::int32_t page, std::int32_t head) {
    float* values = kv_.page(page, head) + shape_.head_dim * kPageTokens;
    for (int slot = 0; slot < kPageTokens; ++slot) {
      std::fill(values + slot * kv_.padded_dim() + shape_.head_dim, values + (slot + 1) * kv_.padded_dim(), 0.0F);
    }
  }

  Shape shape_;
  std::mt19937 random_;
  PagedKv kv_;
  std::vector<float> memory_, queries_, out_;
  std::vector<std::int32_t> free_, pages_;
  std::vector<AttentionSpan> spans_;
};

// Fails with the greatest error, its place and the tolerance: absolute, on the scale of the row's largest value.
void expect_near_reference(Step& step, const std::vector<float>& got, const std::string& what, std::int32_t every = 1) {
  constexpr double kTolerance = 1e-4;
  const AttentionArgs args = step.args();
  double worst = 0.0;
  std::int32_t where = 0;
  for (std::int32_t row = 0; row < step.num_rows(); row += every) {
    const std::vector<double> want = attend_row(args, row);
    double scale = 1.0;
    for (const double x : want) scale = std::max(scale, std::fabs(x));
    for (std::size_t i = 0; i < want.size(); ++i) {
      const double x = static_cast<double>(got[static_cast<std::size_t>(row * step.row_floats()) + i]);
      const double error = std::isfinite(x) ? std::fabs(x - want[i]) / scale : 1e9;
      if (error > worst) worst = error, where = row;
    }
  }
  std::printf("%s: %d rows, max error %.2e (row %d), tolerance %.0e\n", what.c_str(), step.num_rows(), worst, where,
              kTolerance);
  EXPECT_LE(worst, kTolerance) << what;
}

bool same_bits(const float* a, const float* b, std::int64_t count) {
  return std::memcmp(a, b, static_cast<std::size_t>(count) * sizeof(float)) == 0;
}

TEST(Attention, OneTokenGivesItsValue) {
  const unsigned seed = fresh_seed();
  ThreadPool pool(1);
  for (const Isa isa : isas()) {
    Step step({}, 1, seed);
    step.add_rows(1);
    step.add_span(step.run(1), 1, 0, 1, true);
    const auto out = step.compute(isa, pool);
    const AttentionArgs args = step.args();
    for (std::int32_t head = 0; head < 6; ++head) {
      const float* value = args.kv.page(args.pages[0], head / 3) + 64 * 16;
      for (std::int32_t d = 0; d < 64; ++d) EXPECT_EQ(out[static_cast<std::size_t>(head * 64 + d)], value[d]);
    }
  }
}

TEST(Attention, MatchesReferenceForManyShapes) {
  const unsigned seed = fresh_seed();
  ThreadPool pool(2);
  const Shape shapes[] = {{6, 2, 64}, {4, 4, 128}, {8, 1, 64},  {7, 1, 8},
                          {3, 3, 24}, {12, 2, 80}, {2, 1, 512}, {128, 1, 16}};
  for (const Isa isa : isas()) {
    for (const Shape& shape : shapes) {
      Step step(shape, 64, seed);
      // A prompt chunk whose rows are its last, and decode rows after two runs with partly filled tails.
      const auto prompt = step.run(203);
      step.add_rows(70);
      step.add_span(prompt, 203, 0, 70, true);
      const auto shared = step.run(37);
      step.add_rows(3);
      step.add_span(shared, 37, 70, 73, false);
      for (std::int32_t row = 70; row < 73; ++row) step.add_span(step.run(row - 60), row - 60, row, row + 1, true);
      expect_near_reference(step, step.compute(isa, pool),
                            std::string(to_string(isa)) + " " + std::to_string(shape.heads) + "/" +
                                std::to_string(shape.kv_heads) + " x " + std::to_string(shape.head_dim));
    }
  }
}

// Random trees: a root, branches of branches, every leaf a decode row or a chunk, contexts from 1 to 20,000 tokens.
TEST(Attention, MatchesReferenceOnRandomTrees) {
  const unsigned seed = fresh_seed();
  ThreadPool pool(2);
  for (unsigned round = 0; round < 6; ++round) {
    Step step({6, 2, 64}, 2200, seed + round);
    std::mt19937& random = step.random();
    const auto length = [&](int most) { return 1 + static_cast<std::int32_t>(random() % static_cast<unsigned>(most)); };
    const std::int32_t root_tokens = round == 0 ? 20000 : length(round == 1 ? 20000 : 1500);
    const auto root = step.run(root_tokens);
    const std::int32_t branches = length(12);
    std::int32_t row = 0;
    struct Node {
      std::vector<std::int32_t> pages;
      std::int32_t tokens, begin, end;
      bool leaf;
    };
    std::vector<Node> nodes;  // in depth-first order
    for (std::int32_t b = 0; b < branches; ++b) {
      const auto tokens = length(200);
      nodes.push_back({step.run(tokens), tokens, row, row, false});
      const std::size_t index = nodes.size() - 1;
      for (std::int32_t leaves = length(4); leaves > 0; --leaves) {
        const std::int32_t rows = random() % 3 == 0 ? length(30) : 1;
        const std::int32_t own = rows + length(60);
        nodes.push_back({step.run(own), own, row, row + rows, true});
        row += rows;
      }
      nodes[index].end = row;
    }
    step.add_rows(row);
    step.add_span(root, root_tokens, 0, row, false);
    for (const Node& node : nodes) step.add_span(node.pages, node.tokens, node.begin, node.end, node.leaf);
    expect_near_reference(
        step, step.compute(best_isa(), pool),
        "tree of " + std::to_string(root_tokens) + " + " + std::to_string(nodes.size()) + " segments");
  }
}

TEST(Attention, MatchesReferenceFor512Rows) {
  const unsigned seed = fresh_seed();
  ThreadPool pool(2);
  Step step({6, 2, 64}, 160, seed);
  step.add_rows(512);
  const auto before = step.run(1000);
  step.add_span(before, 1000, 0, 512, false);
  step.add_span(step.run(520), 520, 0, 512, true);
  expect_near_reference(step, step.compute(best_isa(), pool), "512 rows", 7);
}

// The rule that makes the server deterministic: a row's bits depend on its own context only.
TEST(Attention, RowsHaveTheSameBitsAloneAndInABatch) {
  const unsigned seed = fresh_seed();
  for (const Isa isa : isas()) {
    Step step({6, 2, 64}, 400, seed);
    const std::int32_t root_tokens = 16 * (20 + static_cast<std::int32_t>(step.random()() % 40)), rows = 9;
    const auto root = step.run(root_tokens);
    std::vector<std::vector<std::int32_t>> own;
    std::vector<std::int32_t> lengths;
    for (std::int32_t row = 0; row < rows; ++row) {
      lengths.push_back(1 + static_cast<std::int32_t>(step.random()() % 90));
      own.push_back(step.run(lengths.back()));
    }
    step.add_rows(rows);
    step.add_span(root, root_tokens, 0, rows, false);
    for (std::int32_t row = 0; row < rows; ++row) {
      step.add_span(own[static_cast<std::size_t>(row)], lengths[static_cast<std::size_t>(row)], row, row + 1, true);
    }
    ThreadPool two(2);
    const auto together = step.compute(isa, two);
    const auto queries = step.queries();
    for (const int threads : {1, 3}) {
      ThreadPool pool(threads);
      for (std::int32_t row = 0; row < rows; ++row) {
        step.clear_plan();
        step.add_query(queries.data() + row * step.row_floats());
        // The root in two spans, cut at a page border: others may share only part of it.
        const std::int32_t cut = 16 * (1 + row);
        step.add_span(root, cut, 0, 1, false);
        step.add_span({root.begin() + cut / 16, root.end()}, root_tokens - cut, 0, 1, false);
        step.add_span(own[static_cast<std::size_t>(row)], lengths[static_cast<std::size_t>(row)], 0, 1, true);
        const auto alone = step.compute(isa, pool);
        EXPECT_TRUE(same_bits(alone.data(), together.data() + row * step.row_floats(), step.row_floats()))
            << to_string(isa) << ", row " << row << ", " << threads << " threads";
      }
    }
  }
}

TEST(Attention, PrefillHasTheSameBitsHoweverItIsChunked) {
  const unsigned seed = fresh_seed();
  for (const Isa isa : isas()) {
    Step step({6, 2, 64}, 64, seed);
    const std::int32_t tokens = 300;
    const auto run = step.run(tokens);
    step.add_rows(tokens);
    step.add_span(run, tokens, 0, tokens, true);
    ThreadPool pool(2);
    const auto whole = step.compute(isa, pool);
    const auto queries = step.queries();
    for (std::int32_t done = 0; done < tokens;) {
      const std::int32_t count = std::min(tokens - done, 1 + static_cast<std::int32_t>(step.random()() % 70));
      step.clear_plan();
      for (std::int32_t row = done; row < done + count; ++row) step.add_query(queries.data() + row * step.row_floats());
      step.add_span(run, done + count, 0, count, true);
      const auto chunk = step.compute(isa, pool);
      EXPECT_TRUE(same_bits(chunk.data(), whole.data() + done * step.row_floats(), count * step.row_floats()))
          << to_string(isa) << ", rows [" << done << ", " << done + count << ")";
      done += count;
    }
  }
}

TEST(Attention, InstructionSetsWithFusedMultiplyAddAgreeBitForBit) {
  if (!supported(Isa::kAvx512) || !supported(Isa::kAvx2)) GTEST_SKIP() << "this machine has no AVX-512";
  Step step({6, 2, 64}, 64, fresh_seed());
  step.add_rows(40);
  step.add_span(step.run(333), 333, 0, 40, true);
  ThreadPool pool(1);
  const auto wide = step.compute(Isa::kAvx512, pool);
  const auto narrow = step.compute(Isa::kAvx2, pool);
  EXPECT_TRUE(same_bits(wide.data(), narrow.data(), static_cast<std::int64_t>(wide.size())));
}

}  // namespace
}  // namespace multiverse::kernels

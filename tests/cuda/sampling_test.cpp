#include "multiverse/kernels/cuda/sampling.h"

#include <cmath>
#include <limits>
#include <list>

#include "model/cuda/sample_plan.h"
#include "model/sampling.h"
#include "tests/cuda/memory.h"

namespace multiverse::kernels::cuda {
namespace {

// Draws on the device and by the CPU sampler.
class CudaSampling : public DeviceTest {
 protected:
  std::vector<SampleResult> on_device(const std::vector<float>& logits, std::int32_t vocab, const StepPlan& plan) {
    const SamplePlan samples = plan_samples(plan, vocab);
    std::vector<float> wanted;  // of the rows that are drawn from
    for (const std::int32_t row : samples.logit_rows) {
      wanted.insert(wanted.end(), logits.begin() + row * vocab, logits.begin() + (row + 1) * vocab);
    }
    const std::size_t tasks = samples.tasks.size();
    const DeviceArray<float> device_logits(wanted), work(tasks * static_cast<std::size_t>(vocab));
    const DeviceArray<SampleSlice> slices(tasks * kSampleSlices);
    const DeviceArray<SampleTask> device_tasks(samples.tasks);
    const DeviceArray<TokenBias> biases(samples.biases);
    const DeviceArray<TokenCount> history(samples.history);
    const DeviceArray<std::int32_t> banned(samples.banned);
    const DeviceArray<std::uint32_t> allowed(samples.allowed);
    const DeviceArray<SampleOutcome> outcomes(tasks);
    const DeviceArray<TokenLogprobOutcome> top(static_cast<std::size_t>(samples.num_top));
    const DeviceArray<SampleFilter> filters(tasks);
    kernels::cuda::sample(
        {device_logits.data(), work.data(), slices.data(), filters.data(), device_tasks.data(), biases.data(),
         history.data(), banned.data(), allowed.data(), outcomes.data(), top.data(), static_cast<std::int32_t>(tasks),
         vocab, sample_needs(samples.tasks.data(), static_cast<std::int32_t>(tasks))},
        test_stream());
    const auto got = outcomes.host();
    const auto got_top = top.host();
    std::vector<SampleResult> results(tasks);
    valid_.assign(tasks, false);
    for (std::size_t i = 0; i < tasks; ++i) {
      const auto index = static_cast<std::size_t>(samples.order[i]);
      valid_[index] = got[i].valid == 1;
      results[index].token = got[i].token;
      results[index].logprob = got[i].logprob;
      for (std::int32_t k = 0; k < samples.tasks[i].top_logprobs; ++k) {
        const auto& entry = got_top[static_cast<std::size_t>(samples.tasks[i].top_first + k)];
        results[index].top.push_back({entry.token, entry.logprob});
      }
      std::sort(results[index].top.begin(), results[index].top.end(), [](const auto& a, const auto& b) {
        return a.logprob > b.logprob || (a.logprob == b.logprob && a.token < b.token);
      });
    }
    return results;
  }

  void expect_as_on_cpu(const std::vector<float>& logits, std::int32_t vocab, const StepPlan& plan,
                        const std::string& what) {
    const auto got = on_device(logits, vocab, plan);
    for (std::size_t i = 0; i < plan.samples.size(); ++i) {
      RowLogits row;
      row.logits = logits.data() + plan.samples[i].row * vocab;
      row.vocab_size = vocab;
      row.softmax = softmax_sum(row.logits, vocab, best_isa());
      SampleResult want;
      Sampler().sample(row, plan.samples[i], want);
      ASSERT_TRUE(valid_[i]) << what;
      ASSERT_EQ(got[i].token, want.token) << what << ", sample " << i;
      ASSERT_NEAR(got[i].logprob, want.logprob, 1e-5) << what;
      ASSERT_EQ(got[i].top.size(), want.top.size()) << what;
      for (std::size_t k = 0; k < want.top.size(); ++k) {
        ASSERT_EQ(got[i].top[k].token, want.top[k].token) << what << ", place " << k;
        ASSERT_NEAR(got[i].top[k].logprob, want.top[k].logprob, 1e-5) << what;
      }
    }
  }

  std::vector<bool> valid_;
};

std::vector<float> random_logits(std::mt19937& random, std::size_t size) {
  std::normal_distribution<float> normal(0.0F, 3.0F);
  std::vector<float> out(size);
  for (float& x : out) x = std::round(normal(random) * 64.0F) / 64.0F;  // some are equal
  return out;
}

TEST_F(CudaSampling, DrawsWhatTheCpuSamplerDraws) {
  std::mt19937 random(fresh_seed());
  const std::int32_t vocab = kEmulated ? 300 : 151'936, rows = 4;
  for (int round = 0; round < (kEmulated ? 12 : 20); ++round) {
    const auto logits = random_logits(random, static_cast<std::size_t>(vocab * rows));
    std::list<SamplingParams> params;
    std::list<std::vector<TokenId>> lists;
    std::list<std::vector<std::uint64_t>> masks;
    StepPlan plan;
    const auto tokens = [&](int count) -> std::span<const TokenId> {
      auto& list = lists.emplace_back();
      for (int i = 0; i < count; ++i) {
        list.push_back(static_cast<TokenId>(random() % static_cast<unsigned>(vocab + 4)) - 2);
      }
      return list;
    };
    const auto chance = [&](unsigned n) { return random() % n == 0; };
    for (int i = 0; i < 12; ++i) {
      SamplingParams& p = params.emplace_back();
      p.temperature = chance(5) ? 0.0F : 0.1F + static_cast<float>(random() % 20) * 0.1F;
      if (chance(2)) p.top_k = static_cast<std::int32_t>(random() % 60);
      if (chance(2)) p.top_p = static_cast<float>(random() % 100) * 0.01F;
      if (chance(3)) p.min_p = static_cast<float>(random() % 10) * 0.02F;
      if (chance(3)) p.repetition_penalty = 1.3F;
      if (chance(3)) p.presence_penalty = 0.7F;
      if (chance(3)) p.frequency_penalty = 0.2F;
      if (chance(3)) p.logit_bias = {{3, 4.0F}, {vocab - 1, -3.0F}, {vocab + 5, 1.0F}, {-1, 1.0F}};
      SampleRequest request;
      request.row = static_cast<std::int32_t>(random() % rows);
      request.params = &p;
      request.key = {random(), random(), static_cast<std::uint32_t>(random() % 1000)};
      if (chance(3)) request.banned = tokens(9);
      if (chance(3)) {
        auto& mask = masks.emplace_back(static_cast<std::size_t>(vocab + 63) / 64);
        for (auto& word : mask) word = chance(2) ? 0 : (std::uint64_t{random()} << 32 | random());
        request.allowed = mask;
      }
      request.prompt_history = {tokens(30), tokens(5)};
      request.generated_history = {tokens(20)};
      request.given = chance(8) ? static_cast<TokenId>(random() % static_cast<unsigned>(vocab)) : -1;
      request.top_logprobs = static_cast<std::int32_t>(random() % 8) - 2;
      plan.samples.push_back(request);
    }
    expect_as_on_cpu(logits, vocab, plan, "round " + std::to_string(round));
  }
}

TEST_F(CudaSampling, MasksThatLeaveNothingAreDropped) {
  const std::vector<float> logits = {1.0F, 3.0F, 2.0F};
  SamplingParams greedy;
  greedy.temperature = 0.0F;
  const TokenId all[] = {0, 1, 2}, two[] = {0, 2};
  const std::uint64_t none[] = {0}, both[] = {0b101}, outside[] = {0b11000};
  StepPlan plan;
  const auto add = [&](std::span<const TokenId> banned, std::span<const std::uint64_t> allowed) {
    SampleRequest request;
    request.params = &greedy;
    request.banned = banned;
    request.allowed = allowed;
    plan.samples.push_back(request);
  };
  add(all, {});
  add(two, both);
  add({}, none);
  add(two, outside);
  expect_as_on_cpu(logits, 3, plan, "masks");
}

// More tokens lie side by side than a block has threads.
TEST_F(CudaSampling, FlatLogits) {
  std::mt19937 random(fresh_seed());
  const std::int32_t vocab = 2500;
  std::vector<float> logits(static_cast<std::size_t>(vocab));
  for (float& x : logits) x = 1.0F + static_cast<float>(random() % 50) * 1e-4F;
  std::list<SamplingParams> params;
  StepPlan plan;
  for (const auto& [top_k, top_p] : {std::pair{1700, 1.0F}, {0, 0.7F}, {1200, 0.3F}}) {
    SamplingParams& p = params.emplace_back();
    p.top_k = top_k;
    p.top_p = top_p;
    SampleRequest request;
    request.params = &p;
    request.key = {random(), random(), 3};
    request.top_logprobs = 1500;
    plan.samples.push_back(request);
  }
  expect_as_on_cpu(logits, vocab, plan, "flat");
}

TEST_F(CudaSampling, AllLikeliestInOrder) {
  std::mt19937 random(fresh_seed());
  const std::int32_t vocab = 200;
  StepPlan plan;
  SampleRequest request;
  request.given = 5;
  request.top_logprobs = vocab;
  plan.samples.push_back(request);
  request.top_logprobs = vocab + 10;
  plan.samples.push_back(request);
  expect_as_on_cpu(random_logits(random, vocab), vocab, plan, "all");
}

TEST_F(CudaSampling, LogitsThatAreNotFiniteAreTold) {
  constexpr float kInfinity = std::numeric_limits<float>::infinity();
  SamplingParams params;
  StepPlan plan;
  SampleRequest request;
  request.params = &params;
  plan.samples.push_back(request);
  for (const float broken : {std::nanf(""), -std::nanf(""), kInfinity}) {
    std::vector<float> logits(100, 1.0F);
    logits[37] = broken;
    on_device(logits, 100, plan);
    EXPECT_FALSE(valid_[0]) << broken;
  }
  std::vector<float> logits(100, -kInfinity);
  on_device(logits, 100, plan);
  EXPECT_FALSE(valid_[0]);
  logits[5] = 1.0F;
  EXPECT_EQ(on_device(logits, 100, plan)[0].token, 5);
}

}  // namespace
}  // namespace multiverse::kernels::cuda

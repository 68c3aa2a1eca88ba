#include "model/sampling.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <map>
#include <numeric>
#include <random>
#include <set>

#include "multiverse/kernels/philox.h"

namespace multiverse {
namespace {

RowLogits row_of(const std::vector<float>& logits) {
  const auto size = static_cast<std::int32_t>(logits.size());
  return {logits.data(), size, kernels::softmax_sum(logits.data(), size, kernels::best_isa())};
}

std::vector<float> random_logits(std::mt19937& random, int size, float deviation) {
  std::normal_distribution<float> normal(0.0F, deviation);
  std::vector<float> out(static_cast<std::size_t>(size));
  for (float& x : out) x = normal(random);
  return out;
}

SampleResult sample(const std::vector<float>& logits, const SampleRequest& request) {
  Sampler sampler;
  SampleResult result;
  sampler.sample(row_of(logits), request, result);
  return result;
}

// The oracle: every step of exec/step.h in double precision, over a full sort.
TokenId oracle(const std::vector<float>& logits, const SampleRequest& request) {
  const SamplingParams& params = *request.params;
  std::map<TokenId, double> left;
  for (std::size_t i = 0; i < logits.size(); ++i) left[static_cast<TokenId>(i)] = static_cast<double>(logits[i]);
  for (const auto& [token, bias] : params.logit_bias) left[token] += static_cast<double>(bias);
  std::map<TokenId, int> generated;
  std::set<TokenId> history;
  for (const auto& tokens : request.generated_history) {
    for (const TokenId token : tokens) ++generated[token], history.insert(token);
  }
  for (const auto& tokens : request.prompt_history) history.insert(tokens.begin(), tokens.end());
  for (const TokenId token : history) {
    const auto penalty = static_cast<double>(params.repetition_penalty);
    left[token] = left[token] > 0 ? left[token] / penalty : left[token] * penalty;
  }
  for (const auto& [token, count] : generated) {
    left[token] -= static_cast<double>(params.presence_penalty) + count * static_cast<double>(params.frequency_penalty);
  }
  if (!request.allowed.empty()) {
    std::erase_if(left, [&](const auto& entry) {
      return ((request.allowed[static_cast<std::size_t>(entry.first / 64)] >> (entry.first % 64)) & 1U) == 0;
    });
  }
  for (const TokenId token : request.banned) left.erase(token);

  std::vector<std::pair<double, TokenId>> order;
  for (const auto& [token, logit] : left) order.emplace_back(-logit, token);
  std::sort(order.begin(), order.end());
  if (params.temperature == 0.0F) return order[0].second;
  for (auto& entry : order) entry.first = -entry.first / static_cast<double>(params.temperature);
  const double top = order[0].first;
  if (params.top_k > 0 && static_cast<std::size_t>(params.top_k) < order.size()) {
    order.resize(static_cast<std::size_t>(params.top_k));
  }
  double total = 0.0;
  for (const auto& entry : order) total += std::exp(entry.first - top);
  std::size_t kept = 0;
  for (double sum = 0.0; kept < order.size() && (kept == 0 || sum < static_cast<double>(params.top_p) * total);
       ++kept) {
    sum += std::exp(order[kept].first - top);
  }
  if (params.top_p < 1.0F) order.resize(kept);
  std::pair<double, TokenId> best{-1e300, -1};
  for (const auto& [logit, token] : order) {
    if (std::exp(logit - top) < static_cast<double>(params.min_p)) continue;
    const double u = kernels::philox_uniform(request.key.seed, request.key.branch, request.key.index,
                                             static_cast<std::uint32_t>(token));
    const double value = logit - std::log(-std::log(u));
    if (value > best.first) best = {value, token};
  }
  return best.second;
}

TEST(Sampling, GreedyTakesTheLowestIdAmongEquals) {
  SamplingParams params;
  params.temperature = 0.0F;
  SampleRequest request;
  request.params = &params;
  const std::vector<float> logits = {1.0F, 3.0F, 2.0F, 3.0F};
  EXPECT_EQ(sample(logits, request).token, 1);
  const TokenId banned[] = {1, 99, -5};
  request.banned = banned;
  EXPECT_EQ(sample(logits, request).token, 3);
  const std::uint64_t allowed[] = {0b0101};
  request.allowed = allowed;
  EXPECT_EQ(sample(logits, request).token, 2);
  params.logit_bias = {{0, 1.5F}, {77, 5.0F}};
  EXPECT_EQ(sample(logits, request).token, 0);
}

TEST(Sampling, MasksThatLeaveNothingAreDropped) {
  SamplingParams params;
  params.temperature = 0.0F;
  SampleRequest request;
  request.params = &params;
  const std::vector<float> logits = {1.0F, 3.0F, 2.0F};
  const std::uint64_t allowed[] = {0b101};
  const TokenId banned[] = {0, 2};
  request.allowed = allowed;
  request.banned = banned;
  EXPECT_EQ(sample(logits, request).token, 2) << "`banned` is dropped first";
  const std::uint64_t none[] = {0};
  request.allowed = none;
  request.banned = {};
  EXPECT_EQ(sample(logits, request).token, 1) << "then `allowed`";
  const TokenId all[] = {0, 1, 2};
  request.allowed = {};
  request.banned = all;
  EXPECT_EQ(sample(logits, request).token, 1);
  params.temperature = 1.0F;
  EXPECT_GE(sample(logits, request).token, 0);
}

TEST(Sampling, AgreesWithTheOracle) {
  const unsigned seed = std::random_device{}();
  std::printf("seed %u\n", seed);
  std::mt19937 random(seed);
  const auto chance = [&](unsigned one_in) { return random() % one_in == 0; };
  const auto real = [&](double low, double high) {
    return static_cast<float>(std::uniform_real_distribution<double>(low, high)(random));
  };
  int disagreements = 0;
  constexpr int kRounds = 4000;
  for (int round = 0; round < kRounds; ++round) {
    const int vocab = 2 + static_cast<int>(random() % 600);
    const std::vector<float> logits = random_logits(random, vocab, real(0.1, 8.0));
    SamplingParams params;
    params.temperature = chance(8) ? 0.0F : real(0.05, 3.0);
    if (chance(2)) params.top_k = static_cast<std::int32_t>(random() % 700);
    if (chance(2)) params.top_p = real(0.01, 1.0);
    if (chance(2)) params.min_p = real(0.0, 0.5);
    if (chance(3)) params.repetition_penalty = real(0.5, 2.0);
    if (chance(3)) params.presence_penalty = real(-2.0, 2.0);
    if (chance(3)) params.frequency_penalty = real(-1.0, 1.0);
    if (chance(3))
      params.logit_bias = {{static_cast<TokenId>(random() % static_cast<unsigned>(vocab)), real(-9.0, 9.0)}};
    std::vector<TokenId> prompt(random() % 40), first(random() % 20), second(random() % 20), banned(random() % 3);
    for (auto* list : {&prompt, &first, &second, &banned}) {
      for (TokenId& token : *list) token = static_cast<TokenId>(random() % static_cast<unsigned>(vocab));
    }
    std::vector<std::uint64_t> allowed((static_cast<std::size_t>(vocab) + 63) / 64);
    for (auto& word : allowed) word = (std::uint64_t{random()} << 32) | random();
    SampleRequest request;
    request.params = &params;
    request.key = {random(), random(), static_cast<std::uint32_t>(random())};
    request.prompt_history = {prompt};
    request.generated_history = {first, second};
    request.banned = banned;
    if (vocab > 64 && chance(3)) request.allowed = allowed;
    if (vocab < 8) request.banned = {};
    if (sample(logits, request).token != oracle(logits, request)) ++disagreements;
  }
  // A tie within rounding at the border of a filter may fall either way.
  std::printf("%d of %d draws differ\n", disagreements, kRounds);
  EXPECT_LE(disagreements, 2);
}

TEST(Sampling, DrawsFollowTheDistribution) {
  std::mt19937 random(7);
  constexpr int kVocab = 60, kDraws = 60'000;
  const std::vector<float> logits = random_logits(random, kVocab, 1.5F);
  SamplingParams params;
  for (const float temperature : {0.7F, 1.0F, 1.6F}) {
    params.temperature = temperature;
    SampleRequest request;
    request.params = &params;
    std::vector<int> counts(kVocab);
    for (std::uint32_t i = 0; i < kDraws; ++i) {
      request.key = {42 + i % 3, i % 5, i};  // neighbouring keys must be independent
      ++counts[static_cast<std::size_t>(sample(logits, request).token)];
    }
    double total = 0.0, chi_square = 0.0;
    for (const float x : logits) total += std::exp(static_cast<double>(x / temperature));
    for (std::size_t i = 0; i < kVocab; ++i) {
      const double expected = kDraws * std::exp(static_cast<double>(logits[i] / temperature)) / total;
      chi_square += (counts[i] - expected) * (counts[i] - expected) / expected;
    }
    const double freedom = kVocab - 1, limit = freedom + 4.0 * std::sqrt(2.0 * freedom);
    std::printf("temperature %.1f: chi-square %.1f, limit %.1f\n", static_cast<double>(temperature), chi_square, limit);
    EXPECT_LT(chi_square, limit);
  }
}

TEST(Sampling, EqualKeysGiveEqualDraws) {
  std::mt19937 random(3);
  const std::vector<float> logits = random_logits(random, 300, 0.5F);
  SamplingParams params;
  SampleRequest request;
  request.params = &params;
  std::set<TokenId> tokens;
  for (std::uint32_t index = 0; index < 50; ++index) {
    request.key = {9, 1, index};
    const TokenId token = sample(logits, request).token;
    EXPECT_EQ(sample(logits, request).token, token);
    tokens.insert(token);
  }
  EXPECT_GT(tokens.size(), 20U);
}

TEST(Sampling, ReportsLogProbabilitiesOfTheRawLogits) {
  const unsigned seed = std::random_device{}();
  std::printf("seed %u\n", seed);
  std::mt19937 random(seed);
  for (const int vocab : {3, 512, 151'936}) {
    std::vector<float> logits = random_logits(random, vocab, 4.0F);
    logits[2] = logits[1];  // a tie
    double total = 0.0;
    for (const float x : logits) total += std::exp(static_cast<double>(x));
    SamplingParams params;
    params.temperature = 0.3F;
    params.logit_bias = {{0, 5.0F}};
    SampleRequest request;
    request.params = &params;
    request.given = 1;
    request.top_logprobs = 5;
    const SampleResult result = sample(logits, request);
    EXPECT_EQ(result.token, 1);
    EXPECT_NEAR(static_cast<double>(result.logprob), static_cast<double>(logits[1]) - std::log(total), 2e-6);
    std::vector<TokenId> order(logits.size());
    std::iota(order.begin(), order.end(), 0);
    std::stable_sort(order.begin(), order.end(), [&](TokenId a, TokenId b) {
      return logits[static_cast<std::size_t>(a)] > logits[static_cast<std::size_t>(b)];
    });
    ASSERT_EQ(result.top.size(), static_cast<std::size_t>(std::min(5, vocab)));
    for (std::size_t i = 0; i < result.top.size(); ++i) {
      EXPECT_EQ(result.top[i].token, order[i]);
      EXPECT_NEAR(static_cast<double>(result.top[i].logprob),
                  static_cast<double>(logits[static_cast<std::size_t>(order[i])]) - std::log(total), 2e-6);
    }
    request.given = -1;
    request.top_logprobs = -1;
    EXPECT_EQ(sample(logits, request).logprob, 0.0F);
    EXPECT_TRUE(sample(logits, request).top.empty());
    request.top_logprobs = vocab + 5;
    if (vocab < 1000) {
      EXPECT_EQ(sample(logits, request).top.size(), logits.size());
    }
  }
}

TEST(Sampling, ExtremeParametersDrawAToken) {
  const std::vector<float> logits = {1e30F, -1e30F, 5.0F, -std::numeric_limits<float>::max()};
  const TokenId history[] = {0, 1, 2, 3, 3};
  for (const float temperature : {1e-40F, 1e-6F, 1e6F, 3e38F}) {
    for (const float penalty : {1e-30F, 1e30F}) {
      SamplingParams params;
      params.temperature = temperature;
      params.repetition_penalty = penalty;
      params.frequency_penalty = 1e38F;
      params.logit_bias = {{2, 3e38F}};
      params.top_p = 1e-9F;
      SampleRequest request;
      request.params = &params;
      request.generated_history = {history};
      const TokenId token = sample(logits, request).token;
      EXPECT_TRUE(token >= 0 && token < 4);
    }
  }
}

TEST(Sampling, KnowsBrokenLogits) {
  const float nan = std::numeric_limits<float>::quiet_NaN(), inf = std::numeric_limits<float>::infinity();
  EXPECT_TRUE(row_of({1.0F, -inf}).valid());
  EXPECT_FALSE(row_of({1.0F, nan}).valid());
  EXPECT_FALSE(row_of({nan, 1.0F}).valid());
  EXPECT_FALSE(row_of({inf, 1.0F}).valid());
  EXPECT_FALSE(row_of({-inf, -inf}).valid());
}

}  // namespace
}  // namespace multiverse

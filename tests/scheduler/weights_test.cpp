// New weights while requests run: what is computed again, what goes on, and what the prefix index may still find.
#include <gtest/gtest.h>

#include <random>

#include "multiverse/scheduler/scheduler.h"

#include "tests/support/event_text.h"
#include "tests/support/fake_dialect.h"
#include "tests/support/fake_executor.h"
#include "tests/support/manual_clock.h"
#include "tests/support/run_scheduler.h"
#include "tests/support/test_seed.h"

namespace multiverse::testing {
namespace {

struct Server {
  explicit Server(std::int32_t pages) : executor(pages, structured_policy(Habits{.noise = 0.01, .block = 0.06})) {
    SchedulerConfig config;
    config.max_rows = 64;
    config.tree = {1 << 20, 1'000'000, {kEndOfText}, 0};
    scheduler = std::make_unique<Scheduler>(executor, &dialect, config, clock);
  }
  void add(RequestId id, std::uint64_t seed, std::int32_t prompt_top_logprobs = -1) {
    GenerateRequest request;
    for (TokenId token = 0; token < 40; ++token) request.prompt.push_back(32 + token % 9);
    request.seed = seed;
    request.n = 1 + static_cast<std::int32_t>(seed % 2);
    request.max_tokens = 1000;
    request.prompt_top_logprobs = prompt_top_logprobs;
    scheduler->add(id, std::move(request));
  }
  // Uses other weights, as the engine does.
  std::int32_t reload(bool keep) {
    executor.weights = static_cast<int>(++version);
    return scheduler->weights_changed(version, keep);
  }

  const Dialect dialect = fake_dialect();
  FakeExecutor executor;
  const ManualClock clock;
  std::uint64_t version = 1;
  std::unique_ptr<Scheduler> scheduler;
};

std::vector<TokenId> text_of(const CanonicalSample& sample) {
  std::vector<TokenId> text;
  for (const TokenEvent& token : sample.tokens) text.push_back(token.token);
  return text;
}

std::vector<std::uint64_t> versions_of(const std::vector<Event>& events) {
  std::vector<std::uint64_t> versions;
  for (const Event& event : events) {
    if (const auto* end = std::get_if<SampleEndEvent>(&event)) versions = end->weights_versions;
  }
  return versions;
}

TEST(Weights, ReloadsAtRandomTimesChangeNothingButTheKeysAndValues) {
  // The fake's draws depend on what is seen alone, so the texts must be those of a run without reloads; and it knows
  // which weights wrote each slot, so none of earlier weights may be seen.
  constexpr RequestId kRequests = 12;
  const std::uint64_t seed = test_seed();
  for (const std::int32_t pages : {4000, 150}) {  // the latter with preemptions for lack of pages
    Server plain(pages), reloaded(pages);
    for (RequestId id = 1; id <= kRequests; ++id) {
      plain.add(id, id);
      reloaded.add(id, id);
    }
    const auto expected = run_all(*plain.scheduler);
    std::mt19937_64 random(seed);
    std::int32_t recomputed = 0;
    const auto outcomes = run_all(*reloaded.scheduler, [&] {
      if (random() % 20 == 0) recomputed += reloaded.reload(/*keep=*/false);
    });
    EXPECT_GT(recomputed, 0) << "seed " << seed;
    EXPECT_EQ(reloaded.executor.stale_slots, 0) << "seed " << seed;
    int compared = 0;
    for (const auto& [id, events] : expected) {
      for (std::int32_t sample = 0; sample < 1 + static_cast<std::int32_t>(id % 2); ++sample) {
        // Where max_tokens ends a sample, which branch had the last ones hangs on the order of the steps.
        const CanonicalSample mine = canonical_sample(outcomes.at(id), sample),
                              other = canonical_sample(events, sample);
        if (mine.ends.at(0).reason != FinishReason::kStop || other.ends.at(0).reason != FinishReason::kStop) continue;
        EXPECT_EQ(text_of(mine), text_of(other)) << "request " << id << ", seed " << seed;
        ++compared;
      }
      EXPECT_EQ(versions_of(events), std::vector<std::uint64_t>{1});
      const std::vector<std::uint64_t> versions = versions_of(outcomes.at(id));
      EXPECT_FALSE(versions.empty());
      EXPECT_TRUE(std::is_sorted(versions.begin(), versions.end()));
    }
    EXPECT_GT(compared, 6) << "seed " << seed;
  }
}

TEST(Weights, KeptRequestsGoOnAndNameBothWhileLaterOnesSeeTheNewWeightsAlone) {
  Server server(4000);
  server.add(1, 2);
  for (int i = 0; i < 8; ++i) server.scheduler->step();
  EXPECT_EQ(server.reload(/*keep=*/true), 1);
  server.scheduler->step();
  EXPECT_GT(server.executor.stale_slots, 0);
  EXPECT_EQ(server.scheduler->counters().preemptions, 0);
  const auto first = run_all(*server.scheduler);
  EXPECT_EQ(versions_of(first.at(1)), (std::vector<std::uint64_t>{1, 2}));

  // The same prompt again: nothing of what the first left is found.
  const std::int64_t stale = server.executor.stale_slots;
  server.add(2, 2);
  const auto second = run_all(*server.scheduler);
  EXPECT_EQ(std::get<FinishedEvent>(second.at(2).back()).cached_tokens, 0);
  EXPECT_EQ(server.executor.stale_slots, stale);
  EXPECT_EQ(versions_of(second.at(2)), std::vector<std::uint64_t>{2});
  // What the second left is.
  server.add(3, 2);
  EXPECT_GT(std::get<FinishedEvent>(run_all(*server.scheduler).at(3).back()).cached_tokens, 0);
}

TEST(Weights, AReloadEmptiesThePrefixIndex) {
  Server server(4000);
  server.add(1, 2);
  run_all(*server.scheduler);
  EXPECT_GT(server.scheduler->pages().cached, 0);
  EXPECT_EQ(server.reload(/*keep=*/false), 0);
  EXPECT_EQ(server.scheduler->pages().cached, 0);
}

TEST(Weights, APromptsLogProbabilitiesAreAllByTheSameWeights) {
  Server server(4000);
  SchedulerConfig config;
  config.max_rows = 64;
  config.max_prefill_tokens = 8;  // several steps for the prompt
  config.tree = {1 << 20, 1'000'000, {kEndOfText}, 0};
  server.scheduler = std::make_unique<Scheduler>(server.executor, &server.dialect, config, server.clock);
  server.add(1, 2, /*prompt_top_logprobs=*/0);
  for (int i = 0; i < 2; ++i) server.scheduler->step();
  const std::int64_t rows = server.scheduler->counters().rows;
  EXPECT_EQ(server.reload(/*keep=*/false), 1);
  const auto events = run_all(*server.scheduler).at(1);
  const auto* prompt = std::get_if<PromptEvent>(&events.front());
  ASSERT_NE(prompt, nullptr);
  EXPECT_EQ(prompt->logprobs.size(), 40U);
  EXPECT_EQ(rows, 16);
  EXPECT_EQ(server.executor.stale_slots, 0);
  for (std::size_t i = 1; i < prompt->logprobs.size(); ++i) EXPECT_TRUE(prompt->logprobs[i]);
}

}  // namespace
}  // namespace multiverse::testing

// A machine whose steps take so much for each row: how many prompt tokens ride along.
#include "multiverse/scheduler/prefill_pace.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <random>
#include <vector>

#include "multiverse/scheduler/scheduler.h"

#include "tests/support/fake_dialect.h"
#include "tests/support/fake_executor.h"
#include "tests/support/manual_clock.h"
#include "tests/support/test_seed.h"

namespace multiverse::testing {
namespace {

// Microseconds of a step.
struct Machine {
  double step = 0.0, decode_row = 0.0, prompt_row = 0.0;
  double time(std::int32_t decoding, std::int32_t prompt) const {
    return step + decode_row * decoding + prompt_row * prompt;
  }
};

// One prompt beside requests of one branch each.
PrefillLoad streams(std::int32_t decoding) {
  return {decoding, decoding, 1};
}

Nanoseconds microseconds(double time) {
  return Nanoseconds{static_cast<std::int64_t>(time * 1e3)};
}

struct Outcome {
  double longest = 0.0;  // step ÷ a step without prompts, after the first steps
  std::int64_t prompt_tokens = 0;
  std::int32_t probes = 0;
};

Outcome run(PrefillPace& pace, const Machine& machine, std::int32_t decoding, int steps, int settled = 20) {
  Outcome outcome;
  for (int step = 0; step < steps; ++step) {
    const std::int32_t tokens = pace.budget(streams(decoding));
    const double time = machine.time(decoding, tokens);
    pace.after_step(decoding, tokens, microseconds(time));
    outcome.prompt_tokens += tokens;
    if (tokens == 0) ++outcome.probes;
    if (step >= settled) outcome.longest = std::max(outcome.longest, time / machine.time(decoding, 0));
  }
  return outcome;
}

TEST(PrefillPace, TakesAllWhereNothingDecodesOrNoPaceIsWanted) {
  PrefillPace pace(256, 2.0);
  EXPECT_EQ(pace.budget(streams(0)), 256);
  PrefillPace off(256, 0.0);
  off.after_step(8, 0, microseconds(100));
  EXPECT_EQ(off.budget(streams(8)), 256);
}

TEST(PrefillPace, AClockThatStandsStillSetsNoPace) {
  PrefillPace pace(256, 2.0);
  EXPECT_EQ(pace.budget(streams(4)), 0) << "nothing is known yet: a probe";
  pace.after_step(4, 0, Nanoseconds{0});
  EXPECT_EQ(pace.budget(streams(4)), 256);
}

TEST(PrefillPace, StaysWithinTheStretchAndUsesIt) {
  // A small model on a CPU, where each row costs; a large one on a GPU, where the weights are most of a step.
  const Machine cpu{300.0, 220.0, 220.0}, gpu{23'000.0, 15.0, 180.0};
  for (const Machine& machine : {cpu, gpu}) {
    for (const std::int32_t decoding : {1, 8, 64}) {
      PrefillPace pace(256, 2.0);
      const Outcome outcome = run(pace, machine, decoding, 1000);
      EXPECT_LE(outcome.longest, 2.0);
      EXPECT_LE(outcome.probes, static_cast<std::int32_t>(PrefillPace::kProbes) + 1000 / PrefillPace::kProbeEvery);
      const double most = std::min(256.0, machine.time(decoding, 0) / machine.prompt_row);
      EXPECT_GE(static_cast<double>(outcome.prompt_tokens), std::max(1.0, std::floor(0.75 * most)) * 900) << decoding;
    }
  }
}

TEST(PrefillPace, KnowsWhatTokensCostInSteps) {
  const Machine gpu{23'000.0, 15.0, 20.0};
  PrefillPace pace(256, 2.0);
  EXPECT_EQ(pace.cost_in_steps(100, 8), std::nullopt);
  run(pace, gpu, 8, 200);
  EXPECT_NEAR(pace.cost_in_steps(11'560, 8).value(), 10.0, 0.1);
  EXPECT_EQ(pace.cost_in_steps(100, 0), std::nullopt);
}

TEST(PrefillPace, OneTokenAStepWhereThatAloneIsTooMuch) {
  PrefillPace pace(256, 2.0);
  const Outcome outcome = run(pace, {100.0, 10.0, 5'000.0}, 4, 1000);
  const auto probes = static_cast<std::int64_t>(PrefillPace::kProbes) + 1000 / PrefillPace::kProbeEvery;
  EXPECT_GE(outcome.prompt_tokens, 1000 - probes);
  EXPECT_LE(outcome.prompt_tokens, 1020);
}

// Fifteen prompts don't wait until one stream's end: each request has its share of the time.
TEST(PrefillPace, SharesTimeByRequestsWhereMoreHavePromptsThanDecode) {
  const Machine machine{300.0, 220.0, 220.0};
  for (const std::int32_t waiting : {1, 3, 15}) {
    PrefillPace pace(4096, 2.0);
    double with = 0.0, without = 0.0;
    for (int step = 0; step < 1000; ++step) {
      const std::int32_t tokens = pace.budget({1, 1, waiting});
      pace.after_step(1, tokens, microseconds(machine.time(1, tokens)));
      if (step < 200 || tokens == 0) continue;
      with += machine.time(1, tokens);
      without += machine.time(1, 0);
    }
    EXPECT_LE(with / without, 1.0 + waiting) << waiting;
    EXPECT_GE(with / without, 1.0 + 0.4 * waiting) << waiting;
  }
}

// What other processes do to the times, on a machine as busy as those of CI: spikes, and scatter.
TEST(PrefillPace, ScatteredTimesDoNotWidenTheStretch) {
  const std::uint64_t seed = test_seed();
  SCOPED_TRACE("MULTIVERSE_TEST_SEED=" + std::to_string(seed));
  std::mt19937_64 random(seed);
  std::lognormal_distribution<double> scatter(0.0, 0.2);
  std::uniform_real_distribution<double> uniform(0.0, 1.0);
  const Machine machine{300.0, 220.0, 600.0};
  PrefillPace pace(256, 2.0);
  std::vector<double> stretches;  // undisturbed
  for (int step = 0; step < 10'000; ++step) {
    const std::int32_t tokens = pace.budget(streams(16));
    const double spike = uniform(random) < 0.05 ? 1.5 + 2.5 * uniform(random) : 1.0;
    pace.after_step(16, tokens, microseconds(machine.time(16, tokens) * scatter(random) * spike));
    if (step >= 100) stretches.push_back(machine.time(16, tokens) / machine.time(16, 0));
  }
  std::sort(stretches.begin(), stretches.end());
  const double median = stretches[stretches.size() / 2], p99 = stretches[stretches.size() * 99 / 100];
  std::printf("seed %llu: stretch %.2f, 99th percentile %.2f\n", static_cast<unsigned long long>(seed), median, p99);
  EXPECT_LE(p99, 2.3);
  EXPECT_GE(median, 1.4);
  EXPECT_LE(median, 2.0);
}

TEST(PrefillPace, FollowsAPromptWhoseTokensCostMoreAndMore) {
  PrefillPace pace(256, 2.0);
  double longest = 0.0;
  std::int64_t prompt = 0;
  for (int step = 0; prompt < 20'000; ++step) {
    const Machine machine{300.0, 220.0, 220.0 + 0.1 * static_cast<double>(prompt)};
    const std::int32_t tokens = pace.budget(streams(16));
    const double time = machine.time(16, tokens);
    pace.after_step(16, tokens, microseconds(time));
    prompt += tokens;
    if (step > 20) longest = std::max(longest, time / machine.time(16, 0));
    ASSERT_LT(step, 100'000);
  }
  EXPECT_LE(longest, 2.0);
}

TEST(PrefillPace, NoLoadKeepsPromptsOut) {
  // Rows that decode jump about, and times are off by half.
  const std::uint64_t seed = test_seed();
  SCOPED_TRACE("MULTIVERSE_TEST_SEED=" + std::to_string(seed));
  std::mt19937_64 random(seed);
  const Machine machine{300.0, 220.0, 220.0};
  PrefillPace pace(256, 2.0);
  std::int32_t without = 0, longest = 0;
  for (int step = 0; step < 10'000; ++step) {
    const auto decoding = static_cast<std::int32_t>(1 + random() % 200);
    const std::int32_t tokens = pace.budget(streams(decoding));
    without = tokens == 0 ? without + 1 : 0;
    longest = std::max(longest, without);
    const double noise = 0.5 + static_cast<double>(random() % 1000) / 1000.0;
    pace.after_step(decoding, tokens, microseconds(machine.time(decoding, tokens) * noise));
  }
  EXPECT_LE(longest, 1);
}

// ── In the scheduler ──

struct Disturbed {
  double longest = 0.0;                     // step ÷ what it would take without prompts, beside what decodes
  std::int64_t prompt_rows = 0, after = 0;  // in such steps; of these after the preemption
  std::int64_t preemptions = 0;
};

// A request of a long prompt beside eight of one stream each, in a pool that holds them all only for a while: it is
// preempted, and computed again when some have ended.
Disturbed beside_streams(double stretch) {
  ManualClock clock;
  SchedulerConfig config;
  config.prefix_cache = false;
  config.prefill_stretch = stretch;
  config.tree = {100'000, 1'000'000, {kEndOfText}, 0};
  FakeExecutor executor(250, [](const std::vector<SeenToken>&, const RandomKey&) { return TokenId{40}; });
  Scheduler scheduler(executor, nullptr, config, clock);
  const Machine machine{300.0, 220.0, 220.0};
  Disturbed out;
  int step = 0;
  executor.before_step = [&](const StepPlan& plan) {
    const auto draws = static_cast<std::int32_t>(plan.samples.size());
    const std::int32_t prompt = static_cast<std::int32_t>(plan.rows.size()) - draws;
    clock.time += microseconds(machine.time(draws, prompt));
    if (draws == 0 || prompt == 0 || step < 60 || scheduler.num_running() == 1) return;
    out.prompt_rows += prompt;
    if (scheduler.counters().preemptions > 0) out.after += prompt;
    out.longest = std::max(out.longest, machine.time(draws, prompt) / machine.time(draws, 0));
  };
  const auto request = [](std::size_t prompt, std::int32_t tokens) {
    GenerateRequest made;
    made.prompt.assign(prompt, TokenId{41});
    made.max_tokens = tokens;
    made.ignore_eos = true;
    return made;
  };
  for (RequestId id = 1; id <= 8; ++id) scheduler.add(id, request(16, id <= 4 ? 370 : 620));
  for (; !scheduler.idle(); ++step) {
    if (step == 50) scheduler.add(9, request(1'000, 300));
    scheduler.step();
    scheduler.check_integrity();
    scheduler.take_events([](RequestId, std::vector<Event>&) {});
  }
  out.preemptions = scheduler.counters().preemptions;
  return out;
}

TEST(PrefillPace, HoldsForPromptsAndForWhatIsComputedAgain) {
  const Disturbed paced = beside_streams(2.0);
  EXPECT_EQ(paced.preemptions, 1);
  EXPECT_GT(paced.after, 750) << "recomputed beside streams";
  EXPECT_GT(paced.prompt_rows, paced.after + 900);
  EXPECT_LE(paced.longest, 2.0);
  EXPECT_GT(beside_streams(0.0).longest, 10.0) << "it is the pace that does it";
}

}  // namespace
}  // namespace multiverse::testing

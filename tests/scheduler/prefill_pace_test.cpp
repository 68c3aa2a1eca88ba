// A machine whose steps take so much for each row: how many prompt tokens ride along.
#include "multiverse/scheduler/prefill_pace.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <random>

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
    const std::int32_t tokens = pace.budget(decoding);
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
  EXPECT_EQ(pace.budget(0), 256);
  PrefillPace off(256, 0.0);
  off.after_step(8, 0, microseconds(100));
  EXPECT_EQ(off.budget(8), 256);
}

TEST(PrefillPace, AClockThatStandsStillSetsNoPace) {
  PrefillPace pace(256, 2.0);
  EXPECT_EQ(pace.budget(4), 0) << "nothing is known yet: a probe";
  pace.after_step(4, 0, Nanoseconds{0});
  EXPECT_EQ(pace.budget(4), 256);
}

TEST(PrefillPace, StaysWithinTheStretchAndUsesIt) {
  // A small model on a CPU, where each row costs; a large one on a GPU, where the weights are most of a step.
  const Machine cpu{300.0, 220.0, 220.0}, gpu{23'000.0, 15.0, 180.0};
  for (const Machine& machine : {cpu, gpu}) {
    for (const std::int32_t decoding : {1, 8, 64}) {
      PrefillPace pace(256, 2.0);
      const Outcome outcome = run(pace, machine, decoding, 1000);
      EXPECT_LE(outcome.longest, 2.0);
      EXPECT_LE(outcome.probes, 1 + 1000 / PrefillPace::kProbeEvery);
      const double most = std::min(256.0, machine.time(decoding, 0) / machine.prompt_row);
      EXPECT_GE(static_cast<double>(outcome.prompt_tokens), std::max(1.0, std::floor(0.75 * most)) * 900) << decoding;
    }
  }
}

TEST(PrefillPace, OneTokenAStepWhereThatAloneIsTooMuch) {
  PrefillPace pace(256, 2.0);
  const Outcome outcome = run(pace, {100.0, 10.0, 5'000.0}, 4, 1000);
  EXPECT_GE(outcome.prompt_tokens, 1000 - 1 - 1000 / PrefillPace::kProbeEvery);
  EXPECT_LE(outcome.prompt_tokens, 1020);
}

TEST(PrefillPace, FollowsAPromptWhoseTokensCostMoreAndMore) {
  PrefillPace pace(256, 2.0);
  double longest = 0.0;
  std::int64_t prompt = 0;
  for (int step = 0; prompt < 20'000; ++step) {
    const Machine machine{300.0, 220.0, 220.0 + 0.1 * static_cast<double>(prompt)};
    const std::int32_t tokens = pace.budget(16);
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
    const std::int32_t tokens = pace.budget(decoding);
    without = tokens == 0 ? without + 1 : 0;
    longest = std::max(longest, without);
    const double noise = 0.5 + static_cast<double>(random() % 1000) / 1000.0;
    pace.after_step(decoding, tokens, microseconds(machine.time(decoding, tokens) * noise));
  }
  EXPECT_LE(longest, 1);
}

}  // namespace
}  // namespace multiverse::testing

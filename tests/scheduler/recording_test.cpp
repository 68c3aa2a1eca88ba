// Recorded answers are written again token for token, in as many steps as their longest chain of draws.
#include "multiverse/scheduler/recording.h"

#include <gtest/gtest.h>

#include <cstdio>
#include <random>

#include "multiverse/scheduler/scheduler.h"

#include "tests/support/event_text.h"
#include "tests/support/fake_dialect.h"
#include "tests/support/fake_executor.h"
#include "tests/support/manual_clock.h"
#include "tests/support/seen_text.h"
#include "tests/support/test_seed.h"

namespace multiverse::testing {
namespace {

// Draws only what it is given: a replay asks for nothing else.
TokenId never(const std::vector<SeenToken>& /*seen*/, const RandomKey& /*key*/) {
  CHECK(false, "a replay drew a token");
  return -1;
}

Result<Recording> record(const std::vector<TokenId>& text, std::int32_t prompt, const Dialect& dialect) {
  return Recording::read(text, prompt, &dialect, StructureLimits{});
}

std::vector<Event> replay(const Recording& recording, Mode mode, const Dialect& dialect) {
  const ManualClock clock;
  SchedulerConfig config;
  config.tree = {1 << 20, 100'000, {kEndOfText}, 0};
  FakeExecutor executor(4000, never);
  Scheduler scheduler(executor, &dialect, config, clock);
  GenerateRequest request;
  const auto prompt = recording.text().begin() + recording.prompt_tokens();
  request.prompt.assign(recording.text().begin(), prompt);
  request.max_tokens = static_cast<std::int32_t>(recording.text().end() - prompt);
  request.ignore_eos = true;
  request.mode = mode;
  request.top_logprobs = 0;
  request.recording = std::make_shared<Recording>(recording);
  scheduler.add(1, std::move(request));
  std::vector<Event> events;
  for (int step = 0; !scheduler.idle(); ++step) {
    CHECK(step < 100'000, "no end");
    scheduler.step();
    scheduler.check_integrity();
    scheduler.take_events([&events](RequestId, std::vector<Event>& taken) {
      for (Event& event : taken) events.push_back(std::move(event));
    });
  }
  return events;
}

// Answers of the random policy: every kind of structure that a generation can leave.
std::vector<TokenId> random_answer(std::uint64_t seed, double noise, const Dialect& dialect) {
  const ManualClock clock;
  SchedulerConfig config;
  config.tree = {4096, 100'000, {kEndOfText}, 0};
  FakeExecutor executor(4000, structured_policy(noise));
  Scheduler scheduler(executor, &dialect, config, clock);
  GenerateRequest request;
  request.prompt = {kWord, kWord + 1, kWord + 2};
  request.seed = seed;
  request.max_tokens = 400;
  scheduler.add(1, request);
  std::vector<Event> events;
  while (!scheduler.idle()) {
    scheduler.step();
    scheduler.take_events([&events](RequestId, std::vector<Event>& taken) {
      for (Event& event : taken) events.push_back(std::move(event));
    });
  }
  const CanonicalSample sample = canonical_sample(events, 0);
  std::vector<TokenId> text = request.prompt;
  for (std::size_t i = 0; i < sample.well_ordered; ++i) text.push_back(sample.tokens[i].token);
  return text;
}

TEST(Recording, IsWrittenAgainInParallelAndSerially) {
  const std::uint64_t base = test_seed();
  std::int64_t paths = 0;
  for (int program = 0; program < 1000; ++program) {
    const std::uint64_t seed = base + static_cast<std::uint64_t>(program);
    SCOPED_TRACE("MULTIVERSE_TEST_SEED=" + std::to_string(seed));
    const Dialect dialect = program % 2 == 0 ? fake_dialect() : flat_dialect();
    const std::vector<TokenId> text = random_answer(seed, program % 4 < 2 ? 0.0 : 0.05, dialect);
    if (text.size() < 4) continue;
    const Result<Recording> recording = record(text, 3, dialect);
    ASSERT_TRUE(recording.ok()) << recording.error().message;
    const Structure structure = read_structure(text, dialect, StructureLimits{}, 3);
    for (const Mode mode : {Mode::kParallel, Mode::kSerial}) {
      const CanonicalSample written = canonical_sample(replay(recording.value(), mode, dialect), 0);
      ASSERT_EQ(written.tokens.size() + 3, text.size());
      for (std::size_t i = 0; i < written.tokens.size(); ++i) {
        ASSERT_EQ(written.tokens[i].token, text[i + 3]) << "token " << i;
        ASSERT_EQ(written.tokens[i].forced, structure.forced[i + 3]) << "token " << i;
        if (written.tokens[i].forced) continue;
        ASSERT_EQ(written.tokens[i].logprob, fake_logprob(seen_by(structure, text, i + 2), text[i + 3])) << i;
      }
      const TreeStatistics& counted = written.ends.at(0).parallel;
      ASSERT_EQ(counted.critical_path_tokens, structure.statistics.critical_path_tokens);
      if (mode == Mode::kParallel) {
        ASSERT_EQ(counted.steps, structure.statistics.steps);
      }
      paths += counted.paths;
    }
  }
  std::printf("seed %llu: %lld paths\n", static_cast<unsigned long long>(base), static_cast<long long>(paths));
  EXPECT_GT(paths, 1000);
}

const std::vector<TokenId> kTwoLabels = {kWord,  kParallel, kGoal,      kOutline, kDigit + 1,
                                         kColon, kOutline,  kDigit + 2, kColon,   kEndGoal};

std::vector<TokenId> with(std::vector<TokenId> text, const std::vector<TokenId>& more) {
  text.insert(text.end(), more.begin(), more.end());
  return text;
}

TEST(Recording, KeepsWhatTheTextHasOfAFork) {
  const Dialect dialect = fake_dialect();
  // No separators, no label, fewer paths than labels; the end inside the first path, at the goal, and after it.
  const std::vector<std::vector<TokenId>> answers = {
      {kPath, kWord, kEndPath, kConclusion, kWord + 1},
      {kNewline, kPath, kNewline, kDigit + 7, kColon, kWord, kEndPath, kNewline, kConclusion, kNewline, kWord},
      {kNewline, kPath, kNewline, kDigit + 1, kColon, kWord},
      {kNewline},
      {},
  };
  for (const std::vector<TokenId>& answer : answers) {
    const std::vector<TokenId> text = with(kTwoLabels, answer);
    const Result<Recording> recording = record(text, 1, dialect);
    ASSERT_TRUE(recording.ok()) << recording.error().message;
    const CanonicalSample written = canonical_sample(replay(recording.value(), Mode::kParallel, dialect), 0);
    std::vector<TokenId> tokens = {kWord};
    for (const TokenEvent& token : written.tokens) tokens.push_back(token.token);
    EXPECT_EQ(tokens, text);
    EXPECT_EQ(written.ends.at(0).parallel.steps, recording.value().statistics().steps);
  }
}

TEST(Recording, RefusesWhatNoGenerationCanHaveLeft) {
  const Dialect dialect = fake_dialect();
  const std::vector<TokenId> between = with(kTwoLabels, {kPath, kWord, kEndPath, kWord, kPath, kWord, kEndPath});
  const Result<Recording> interloper = record(between, 1, dialect);
  ASSERT_FALSE(interloper.ok());
  EXPECT_EQ(interloper.error().message,
            "token 12 of the answer stands after path 1.1 and before the block's next path or conclusion: no engine "
            "that runs paths at once can have written it");
  const Result<Recording> inside = record(with(kTwoLabels, {kPath, kWord, kEndPath}), 11, dialect);
  ASSERT_FALSE(inside.ok());
  EXPECT_EQ(inside.error().message, "the prompt of 11 tokens ends inside the paths of a block");
}

}  // namespace
}  // namespace multiverse::testing

// "strict": whatever the model draws and wherever its budget ends, the text is well formed.
#include <gtest/gtest.h>

#include <cstdio>
#include <random>

#include "multiverse/scheduler/scheduler.h"

#include "tests/support/event_text.h"
#include "tests/support/fake_dialect.h"
#include "tests/support/fake_executor.h"
#include "tests/support/manual_clock.h"
#include "tests/support/test_seed.h"

namespace multiverse::testing {
namespace {

GenerateRequest strict_request(std::mt19937_64& random) {
  GenerateRequest request;
  request.prompt = {kWord, kWord + 1};
  request.strict = true;
  request.seed = random();
  request.max_tokens = 1 + static_cast<std::int32_t>(random() % 300);
  request.limits.max_depth = static_cast<std::int32_t>(random() % 4);
  request.limits.max_paths = 1 + static_cast<std::int32_t>(random() % 5);
  request.limits.max_running_paths = static_cast<std::int32_t>(random() % 3);
  if (random() % 3 == 0) request.limits.max_path_tokens = 5 + static_cast<std::int32_t>(random() % 40);
  if (random() % 4 == 0) request.mode = Mode::kSerial;
  return request;
}

TEST(Strict, EveryTextIsWellFormedHoweverItEnds) {
  const ManualClock clock;
  const std::uint64_t base = test_seed();
  std::int64_t blocks = 0, ended_open = 0;
  for (int program = 0; program < 2000; ++program) {
    const std::uint64_t seed = base + static_cast<std::uint64_t>(program);
    SCOPED_TRACE("MULTIVERSE_TEST_SEED=" + std::to_string(seed));
    std::mt19937_64 random(seed);
    const Dialect dialect = program % 2 == 0 ? fake_dialect() : flat_dialect();
    SchedulerConfig config;
    config.tree = {random() % 8 == 0 ? 60 : 4096, random() % 8 == 0 ? 100 : 100'000, {kEndOfText}, 0};
    // From sensible structure to any token at all.
    FakeExecutor executor(400, structured_policy(0.25 * static_cast<double>(random() % 5)));
    Scheduler scheduler(executor, &dialect, config, clock);
    const GenerateRequest request = strict_request(random);
    scheduler.add(1, request);
    std::vector<Event> events;
    while (!scheduler.idle()) {
      scheduler.step();
      scheduler.check_integrity();
      scheduler.take_events([&events](RequestId, std::vector<Event>& taken) {
        for (Event& event : taken) events.push_back(std::move(event));
      });
    }
    const CanonicalSample sample = canonical_sample(events, 0);
    std::vector<TokenId> text = request.prompt;
    for (const TokenEvent& token : sample.tokens) text.push_back(token.token);
    const SampleEndEvent& end = sample.ends.at(0);
    const auto prompt = static_cast<std::int32_t>(request.prompt.size());
    const Structure structure = read_structure(text, dialect, request.limits, prompt);
    ASSERT_EQ(structure.malformed, std::vector<std::int32_t>());
    ASSERT_EQ(structure.open.size(), 1U) << "a path is left open";
    ASSERT_EQ(sample.well_ordered, sample.tokens.size());
    const TreeStatistics& counted = end.parallel;
    const bool stopped = end.reason == FinishReason::kStop;
    ASSERT_EQ(counted.blocks, structure.statistics.blocks);
    ASSERT_EQ(counted.paths, structure.statistics.paths);
    ASSERT_EQ(counted.max_width, structure.statistics.max_width);
    ASSERT_EQ(counted.max_depth, structure.statistics.max_depth);
    ASSERT_EQ(counted.malformed, 0);
    ASSERT_EQ(counted.critical_path_tokens, structure.statistics.critical_path_tokens + (stopped ? 1 : 0));
    ASSERT_EQ(end.completion_tokens, static_cast<std::int64_t>(sample.tokens.size()) + (stopped ? 1 : 0));
    blocks += counted.blocks;
    if (!stopped && structure.open.front().grammar.in_block()) ++ended_open;
  }
  std::printf("seed %llu: %lld blocks, %lld texts ended inside one\n", static_cast<unsigned long long>(base),
              static_cast<long long>(blocks), static_cast<long long>(ended_open));
  EXPECT_GT(blocks, 200);
  EXPECT_GT(ended_open, 100);
}

}  // namespace
}  // namespace multiverse::testing

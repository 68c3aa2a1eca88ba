// Random fork/join programs against the sequential reading of the text that they made: whatever the schedule, memory
// and neighbours, each token must be what the policy draws from exactly what the semantics let it see.
#include <gtest/gtest.h>

#include <algorithm>
#include <chrono>
#include <cstdlib>
#include <limits>
#include <map>
#include <random>
#include <string>
#include <vector>

#include "multiverse/scheduler/scheduler.h"

#include "tests/support/event_text.h"
#include "tests/support/fake_dialect.h"
#include "tests/support/fake_executor.h"
#include "tests/support/manual_clock.h"
#include "tests/support/run_scheduler.h"
#include "tests/support/seen_text.h"
#include "tests/support/test_seed.h"

namespace multiverse::testing {
namespace {

std::vector<TokenId> random_prompt(std::mt19937_64& random, std::size_t most) {
  std::vector<TokenId> prompt(1 + random() % most);
  for (TokenId& token : prompt) token = kWord + static_cast<TokenId>(random() % (kVocabulary - kWord));
  return prompt;
}

GenerateRequest random_request(std::mt19937_64& random) {
  GenerateRequest request;
  request.prompt = random_prompt(random, random() % 4 == 0 ? 800 : 60);
  request.seed = random();
  request.n = random() % 5 == 0 ? 1 + static_cast<std::int32_t>(random() % 3) : 1;
  request.max_tokens = 1 + static_cast<std::int32_t>(random() % 400);
  request.top_logprobs = 0;
  if (random() % 50 == 0) request.max_tokens = 1500;
  request.priority = static_cast<std::int32_t>(random() % 3);
  request.limits.max_depth = static_cast<std::int32_t>(random() % 7);
  request.limits.max_paths = random() % 4 == 0 ? 128 : 1 + static_cast<std::int32_t>(random() % 12);
  if (random() % 4 == 0) request.limits.max_total_paths = 1 + static_cast<std::int32_t>(random() % 30);
  request.limits.max_running_paths = static_cast<std::int32_t>(random() % 4);
  if (random() % 4 == 0) request.limits.max_path_tokens = 5 + static_cast<std::int32_t>(random() % 40);
  return request;
}

// The text that was generated, read back in order, must explain every token.
void expect_explained(const GenerateRequest& request, std::int32_t sample, const std::vector<Event>& events,
                      const Policy& policy, const Dialect& dialect) {
  const CanonicalSample generated = canonical_sample(events, sample);
  ASSERT_EQ(generated.ends.size(), 1U);
  std::vector<TokenId> text = request.prompt;
  for (std::size_t i = 0; i < generated.well_ordered; ++i) text.push_back(generated.tokens[i].token);
  const auto prompt = static_cast<std::int32_t>(request.prompt.size());
  const Structure structure = read_structure(text, dialect, request.limits, prompt);
  EXPECT_LE(generated.ends[0].completion_tokens, request.max_tokens);
  for (std::size_t i = request.prompt.size(); i < text.size(); ++i) {
    const TokenEvent& token = generated.tokens[i - request.prompt.size()];
    if (token.forced) continue;
    ASSERT_FALSE(structure.forced[i]) << "token " << i << " was drawn, but reads as forced";
    const std::vector<SeenToken> seen = seen_by(structure, text, i - 1);
    ASSERT_EQ(policy(seen, RandomKey{request.seed, 0, 0}), token.token) << "token " << i;
    ASSERT_EQ(fake_logprob(seen, token.token), token.logprob) << "token " << i;
  }
  if (generated.ends[0].reason == FinishReason::kStop) {
    const TreeStatistics& counted = generated.ends[0].parallel;
    EXPECT_EQ(counted.blocks, structure.statistics.blocks);
    EXPECT_EQ(counted.paths, structure.statistics.paths);
    EXPECT_EQ(counted.max_depth, structure.statistics.max_depth);
    EXPECT_EQ(counted.max_width, structure.statistics.max_width);
    EXPECT_EQ(counted.malformed, structure.statistics.malformed);
    EXPECT_EQ(counted.critical_path_tokens, structure.statistics.critical_path_tokens + 1);  // end-of-text itself
  }
}

// A fork or a join costs no decode step: a request that runs alone needs as many as its longest chain of draws.
void expect_no_step_lost(const GenerateRequest& request, const std::vector<Event>& events, const Dialect& dialect) {
  if (request.n > 1) return;
  const CanonicalSample generated = canonical_sample(events, 0);
  if (generated.ends[0].reason != FinishReason::kStop) return;
  std::vector<TokenId> text = request.prompt;
  for (const TokenEvent& token : generated.tokens) text.push_back(token.token);
  const auto prompt = static_cast<std::int32_t>(request.prompt.size());
  const Structure structure = read_structure(text, dialect, request.limits, prompt);
  const std::int64_t steps = structure.statistics.steps + 1;  // end-of-text took one
  // A </Path> that the engine wrote itself (a limit, end-of-text in a path) reads as drawn and may save its step.
  const bool engine_closed = std::any_of(generated.tokens.begin(), generated.tokens.end(), [](const TokenEvent& token) {
    return token.forced && token.token == kEndPath;
  });
  if (engine_closed) {
    EXPECT_LE(generated.ends[0].parallel.steps, steps);
  } else {
    EXPECT_EQ(generated.ends[0].parallel.steps, steps);
  }
}

// The programs of one test: so many of MULTIVERSE_TEST_PROGRAMS (10,000 for all tests of this file together), or as
// many as fit its share of MULTIVERSE_TEST_SECONDS. Seeds count up from a printed one.
class Programs {
 public:
  explicit Programs(double share) : base_(test_seed()) {
    const char* programs = std::getenv("MULTIVERSE_TEST_PROGRAMS");
    const char* seconds = std::getenv("MULTIVERSE_TEST_SECONDS");
    const double all = programs != nullptr ? std::strtod(programs, nullptr) : 10'000.0;
    most_ = std::max<std::int64_t>(1, static_cast<std::int64_t>(all * share));
    if (seconds == nullptr) return;
    most_ = std::numeric_limits<std::int64_t>::max();
    until_ += std::chrono::duration_cast<Time::duration>(std::chrono::duration<double>(share * std::atof(seconds)));
    timed_ = true;
  }
  bool next() {
    if (::testing::Test::HasFailure() || done_ == most_) return false;
    if (timed_ && std::chrono::steady_clock::now() >= until_) return false;
    ++done_;
    return true;
  }
  std::uint64_t seed() const { return base_ + static_cast<std::uint64_t>(done_ - 1); }
  std::string to_repeat() const {
    return "MULTIVERSE_TEST_SEED=" + std::to_string(seed()) + " MULTIVERSE_TEST_PROGRAMS=1";
  }
  void print(const std::string& what) const {
    std::printf("seed %llu: %lld programs, %s\n", static_cast<unsigned long long>(base_), static_cast<long long>(done_),
                what.c_str());
  }

 private:
  using Time = std::chrono::steady_clock::time_point;
  std::uint64_t base_;
  std::int64_t most_ = 0, done_ = 0;
  Time until_ = std::chrono::steady_clock::now();
  bool timed_ = false;
};

// One in ten nests deep; half break the grammar. `wide`: forks of a hundred paths.
Policy random_policy(std::mt19937_64& random, bool wide = false) {
  Habits habits;
  if (random() % 2 == 0) habits.noise = wide ? 0.002 : 0.05;
  if (random() % 10 == 0) habits.block = 0.15;
  if (wide) habits.more_outlines = 0.99;
  return structured_policy(habits);
}

// Room for forks of a hundred paths.
void widen(GenerateRequest& request) {
  request.n = 1;
  request.max_tokens = 3000;
  request.limits.max_paths = 128;
  request.limits.max_total_paths = 1024;
  request.limits.max_depth = std::max(request.limits.max_depth, 1);
}

// Multiverse's kind, NPR's, and a third that is but a file, which no code knows.
Dialect random_dialect(std::mt19937_64& random) {
  switch (random() % 3) {
    case 0:
      return fake_dialect();
    case 1:
      return flat_dialect();
    default:
      return third_dialect();
  }
}

TEST(RandomPrograms, EveryTokenIsExplainedByTheTextBeforeIt) {
  Programs programs(0.6);
  std::int64_t forks = 0, widest = 0, deepest = 0, preemptions = 0, hits = 0;
  while (programs.next()) {
    SCOPED_TRACE(programs.to_repeat());
    std::mt19937_64 random(programs.seed());
    const Dialect dialect = random_dialect(random);
    const bool wide = random() % 150 == 0;
    const Policy policy = random_policy(random, wide);
    SchedulerConfig config;
    config.max_rows = random() % 3 == 0 ? 8 : 512;
    config.max_prefill_tokens = 4 + static_cast<std::int32_t>(random() % 64);
    config.prefix_cache = random() % 4 != 0;
    config.tree = {4096, 1'000'000, {kEndOfText}, 0};
    // From barely enough for one request to ample.
    FakeExecutor executor(20 + static_cast<std::int32_t>(random() % (random() % 2 == 0 ? 60 : 2000)), policy);
    if (random() % 8 == 0) config.tree.max_model_len = 300;
    ManualClock clock;
    // Half of them take time, by which prompts are paced: as long as it has rows, and as chance will have it.
    if (random() % 2 == 0) {
      executor.before_step = [&clock, times = std::mt19937_64(random())](const StepPlan& plan) mutable {
        clock.time += Nanoseconds(1 + static_cast<std::int64_t>(times() % 1000 * plan.rows.size()));
      };
    }
    Scheduler scheduler(executor, &dialect, config, clock);
    std::map<RequestId, GenerateRequest> requests;
    for (RequestId id = 1; id <= 1 + random() % 5; ++id) {
      requests[id] = random_request(random);
      if (wide) widen(requests[id]);
      if (id > 1 && random() % 2 == 0) requests[id].prompt = requests[1].prompt;
      if (requests[id].prompt.size() >= 280 && config.tree.max_model_len == 300) requests[id].prompt.resize(100);
      scheduler.add(id, requests[id]);
    }
    const auto outcomes = run_all(scheduler);
    for (const auto& [id, request] : requests) {
      for (std::int32_t sample = 0; sample < request.n; ++sample) {
        const std::vector<Event>& events = outcomes.at(id);
        expect_explained(request, sample, events, policy, dialect);
        const TreeStatistics tree = canonical_sample(events, sample).ends.at(0).parallel;
        widest = std::max(widest, tree.max_width);
        deepest = std::max(deepest, tree.max_depth);
      }
      const bool alone = requests.size() == 1 && config.max_rows == 512 && request.limits.max_running_paths == 0;
      if (alone && scheduler.counters().preemptions == 0) {
        expect_no_step_lost(request, outcomes.at(id), dialect);
      }
    }
    forks += scheduler.counters().forks;
    preemptions += scheduler.counters().preemptions;
    hits += scheduler.counters().cached_prompt_tokens;
    EXPECT_EQ(scheduler.pages().referenced, 0);
  }
  programs.print(std::to_string(forks) + " forks, up to " + std::to_string(widest) + " wide and " +
                 std::to_string(deepest) + " deep, " + std::to_string(preemptions) + " preemptions, " +
                 std::to_string(hits) + " prefix hit tokens");
}

// A text that was generated, cut anywhere, is a prompt that goes on under the same rules.
TEST(RandomPrograms, GoOnFromAnyPlaceOfAGeneratedText) {
  const ManualClock clock;
  Programs programs(0.2);
  std::int64_t structured = 0;
  while (programs.next()) {
    SCOPED_TRACE(programs.to_repeat());
    std::mt19937_64 random(programs.seed());
    const Dialect dialect = random_dialect(random);
    const Policy policy = random_policy(random);
    SchedulerConfig config;
    config.max_prefill_tokens = 4 + static_cast<std::int32_t>(random() % 64);
    config.tree = {4096, 1'000'000, {kEndOfText}, 0};
    FakeExecutor executor(2000, policy);
    Scheduler scheduler(executor, &dialect, config, clock);
    GenerateRequest first = random_request(random);
    first.n = 1;
    first.limits.max_path_tokens = 0;
    scheduler.add(1, first);
    const CanonicalSample generated = canonical_sample(run_all(scheduler).at(1), 0);
    GenerateRequest second = first;
    const std::size_t kept = random() % (generated.well_ordered + 1);
    for (std::size_t i = 0; i < kept; ++i) second.prompt.push_back(generated.tokens[i].token);
    second.prompt_top_logprobs = random() % 2 == 0 ? 0 : -1;
    structured += static_cast<std::int64_t>(read_structure(second.prompt, dialect, second.limits).open.size()) - 1;
    scheduler.add(2, second);
    const std::vector<Event> events = run_all(scheduler).at(2);
    expect_explained(second, 0, events, policy, dialect);
  }
  programs.print(std::to_string(structured) + " prompts ended inside paths");
}

// Cancels and cuts end what they name, leak nothing, and change no other request's text.
TEST(RandomPrograms, CancelsAndCutsTouchNoOtherRequest) {
  const ManualClock clock;
  Programs programs(0.2);
  std::int64_t preemptions = 0;
  while (programs.next()) {
    SCOPED_TRACE(programs.to_repeat());
    std::mt19937_64 random(programs.seed());
    const Dialect dialect = random_dialect(random);
    const Policy policy = structured_policy(0.02);
    SchedulerConfig config;
    config.tree = {4096, 1'000'000, {kEndOfText}, 0};
    FakeExecutor executor(40 + static_cast<std::int32_t>(random() % 400), policy);
    Scheduler scheduler(executor, &dialect, config, clock);
    std::map<RequestId, GenerateRequest> requests;
    for (RequestId id = 1; id <= 4; ++id) {
      requests[id] = random_request(random);
      scheduler.add(id, requests[id]);
    }
    const auto outcomes = run_all(scheduler, [&] {
      if (random() % 20 == 0) scheduler.cancel(1);
      if (random() % 10 == 0) {
        scheduler.cut(2, static_cast<std::int32_t>(random() % 2), static_cast<std::int32_t>(random() % 6));
      }
    });
    for (const RequestId untouched : {RequestId{3}, RequestId{4}}) {
      for (std::int32_t sample = 0; sample < requests[untouched].n; ++sample) {
        expect_explained(requests[untouched], sample, outcomes.at(untouched), policy, dialect);
      }
    }
    EXPECT_EQ(scheduler.pages().referenced, 0);
    preemptions += scheduler.counters().preemptions;
  }
  programs.print(std::to_string(preemptions) + " preemptions");
}

}  // namespace
}  // namespace multiverse::testing

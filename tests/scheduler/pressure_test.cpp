// Too little memory, too few rows, too many clients: who runs, who waits, who leaves, and that all of them end with the
// text that they would have made alone.
#include <gtest/gtest.h>

#include <map>
#include <memory>
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

const Dialect& dialect() {
  static const Dialect dialect = fake_dialect();
  return dialect;
}

SchedulerConfig config_of(std::int32_t max_rows = 512) {
  SchedulerConfig config;
  config.max_rows = max_rows;
  config.tree = {100'000, 1'000'000, {kEndOfText}, 0};
  return config;
}

Policy words() {
  return [](const std::vector<SeenToken>&, const RandomKey&) { return TokenId{40}; };
}

GenerateRequest request_of(std::size_t prompt, std::int32_t max_tokens, TokenId word = 41) {
  GenerateRequest request;
  request.prompt.assign(prompt, word);
  request.max_tokens = max_tokens;
  request.ignore_eos = true;
  return request;
}

// A prompt that ends in a plan of so many paths, which the engine forks at once.
GenerateRequest forking_request(std::int32_t paths, std::int32_t max_tokens) {
  GenerateRequest request = request_of(8, max_tokens);
  request.prompt.insert(request.prompt.end(), {kParallel, kGoal});
  for (std::int32_t path = 1; path <= paths; ++path) {
    request.prompt.push_back(kOutline);
    for (const TokenId token : fake_dialect().encode(std::to_string(path) + ":")) request.prompt.push_back(token);
  }
  request.prompt.push_back(kEndGoal);
  return request;
}

std::vector<TokenId> text_of(const std::vector<Event>& events) {
  std::vector<TokenId> text;
  for (const TokenEvent& token : canonical_sample(events, 0).tokens) text.push_back(token.token);
  return text;
}

// Pages that the request holds at most when it runs alone, and what it writes.
struct Alone {
  std::int32_t pages = 0;
  std::vector<TokenId> text;
  FinishReason reason = FinishReason::kStop;
};
Alone alone(const GenerateRequest& request, const Policy& policy) {
  const ManualClock clock;
  FakeExecutor executor(5000, policy);
  Scheduler scheduler(executor, &dialect(), config_of(), clock);
  Alone out;
  executor.before_step = [&](const StepPlan&) { out.pages = std::max(out.pages, scheduler.pages().referenced); };
  scheduler.add(1, request);
  const std::vector<Event> events = run_all(scheduler).at(1);
  out.text = text_of(events);
  out.reason = canonical_sample(events, 0).ends.at(0).reason;
  return out;
}

TEST(Pressure, FiftyClientsInAPoolForOneAllEndAndSomethingHappensAllTheTime) {
  const std::uint64_t base = test_seed();
  std::int64_t preemptions = 0, tokens = 0, preempted_tokens = 0;
  for (std::uint64_t seed = base; seed < base + 8; ++seed) {
    SCOPED_TRACE("MULTIVERSE_TEST_SEED=" + std::to_string(seed));
    std::mt19937_64 random(seed);
    const Policy policy = structured_policy(Habits{.noise = 0.02});
    std::map<RequestId, GenerateRequest> requests;
    std::map<RequestId, Alone> wanted;
    std::int32_t most = 0;
    for (RequestId id = 1; id <= 50; ++id) {
      // One that ends by itself: where a budget ends depends on the schedule.
      GenerateRequest& request = requests[id];
      do {
        request = request_of(20 + random() % 200, 600);
        request.ignore_eos = false;
        request.min_tokens = 50;
        request.seed = random();
        request.prompt.back() = kWord + static_cast<TokenId>(random() % 20);
        wanted[id] = alone(request, policy);
      } while (wanted[id].reason != FinishReason::kStop);
      most = std::max(most, wanted[id].pages);
    }
    const ManualClock clock;
    FakeExecutor executor((most * 11 + 9) / 10, policy);
    SchedulerConfig config = config_of();
    config.prefix_cache = random() % 2 == 0;
    Scheduler scheduler(executor, &dialect(), config, clock);
    for (const auto& [id, request] : requests) scheduler.add(id, request);
    const auto outcomes = run_all(scheduler);
    for (const auto& [id, request] : requests) ASSERT_EQ(text_of(outcomes.at(id)), wanted[id].text) << "request " << id;
    EXPECT_EQ(scheduler.pages().referenced, 0);
    preemptions += scheduler.counters().preemptions;
    preempted_tokens += scheduler.counters().preempted_tokens;
    tokens += scheduler.counters().generation_tokens;
  }
  EXPECT_GT(preemptions, 0) << "the pool was never short";
  std::printf("seed %llu: %lld preemptions, %lld tokens computed again for %lld generated\n",
              static_cast<unsigned long long>(base), static_cast<long long>(preemptions),
              static_cast<long long>(preempted_tokens), static_cast<long long>(tokens));
}

TEST(Pressure, ThePreemptedRequestIsTheYoungestAndComesBackWhenOneHasEnded) {
  // Pages for about three such requests; each grows from 2 pages to 7.
  const ManualClock clock;
  FakeExecutor executor(14, words());
  SchedulerConfig config = config_of();
  config.prefix_cache = false;
  Scheduler scheduler(executor, nullptr, config, clock);
  for (RequestId id = 1; id <= 4; ++id) scheduler.add(id, request_of(20, 90));
  std::vector<RequestId> preempted, finished;
  std::int64_t ends = 0, ends_then = 0;
  while (!scheduler.idle()) {
    const std::int32_t running_before = scheduler.num_running();
    scheduler.step();
    if (!preempted.empty() && ends == ends_then) {
      EXPECT_LE(scheduler.num_running(), running_before) << "a preempted request came back before another ended";
    }
    for (const RequestId id : scheduler.preempted()) {
      preempted.push_back(id);
      ends_then = ends;
    }
    scheduler.take_events([&](RequestId id, const std::vector<Event>& events) {
      if (!std::holds_alternative<FinishedEvent>(events.back())) return;
      finished.push_back(id);
      ++ends;
    });
  }
  ASSERT_FALSE(preempted.empty());
  EXPECT_EQ(preempted.front(), 4U);
  EXPECT_EQ(finished, (std::vector<RequestId>{1, 2, 3, 4}));
}

TEST(Pressure, AWideForkInASmallPoolRunsInWaves) {
  // 40 paths, one page each, and the shared tokens: 30 pages hold a part of the paths at a time, and those that ended
  // keep theirs; the request ends with length when nothing more fits.
  const ManualClock clock;
  FakeExecutor executor(30, structured_policy(0.0));
  Scheduler scheduler(executor, &dialect(), config_of(), clock);
  scheduler.add(1, forking_request(40, 4000));
  const auto outcomes = run_all(scheduler);
  EXPECT_EQ(canonical_sample(outcomes.at(1), 0).ends.at(0).reason, FinishReason::kLength);
  EXPECT_EQ(scheduler.pages().referenced, 0);
}

TEST(Pressure, WavesOfRowsWriteTheSameText) {
  GenerateRequest request = forking_request(100, 5000);
  request.ignore_eos = false;
  const Policy policy = structured_policy(Habits{.block = 0.01});
  ASSERT_EQ(alone(request, policy).reason, FinishReason::kStop);
  const std::vector<TokenId> wanted = alone(request, policy).text;
  for (const std::int32_t rows : {7, 64}) {
    const ManualClock clock;
    FakeExecutor executor(5000, policy);
    Scheduler scheduler(executor, &dialect(), config_of(rows), clock);
    std::size_t most = 0;
    executor.before_step = [&](const StepPlan& plan) { most = std::max(most, plan.rows.size()); };
    scheduler.add(1, request);
    EXPECT_EQ(text_of(run_all(scheduler).at(1)), wanted) << rows;
    EXPECT_LE(most, static_cast<std::size_t>(rows));
  }
}

TEST(Pressure, ARequestOfAHundredPathsTakesItsShareAndNoMore) {
  // 32 rows, one request of 100 paths and four of one branch: these draw a token in every step.
  const ManualClock clock;
  FakeExecutor executor(5000, words());
  Scheduler scheduler(executor, &dialect(), config_of(32), clock);
  scheduler.add(1, forking_request(100, 6000));
  while (scheduler.branches_running() < 32) scheduler.step();
  std::map<RequestId, int> tokens;
  const auto count = [&](RequestId id, const std::vector<Event>& events) {
    for (const Event& event : events) tokens[id] += std::holds_alternative<TokenEvent>(event) ? 1 : 0;
  };
  for (RequestId id = 2; id <= 5; ++id) scheduler.add(id, request_of(4, 1000));
  for (int i = 0; i < 4; ++i) scheduler.step();
  scheduler.take_events(count);
  tokens.clear();
  const std::int64_t rows = scheduler.counters().rows;
  for (int i = 0; i < 100; ++i) {
    scheduler.step();
    scheduler.take_events(count);
  }
  for (RequestId id = 2; id <= 5; ++id) EXPECT_EQ(tokens[id], 100) << id;
  EXPECT_EQ(scheduler.counters().rows - rows, 100 * 32);
}

TEST(Pressure, ShortPromptsPassALongOne) {
  const ManualClock clock;
  FakeExecutor executor(20'000, words());
  SchedulerConfig config = config_of();
  config.max_prefill_tokens = 64;
  config.tree.max_model_len = 200'000;
  Scheduler scheduler(executor, nullptr, config, clock);
  scheduler.add(1, request_of(20'000, 4));
  scheduler.step();
  scheduler.add(2, request_of(100, 4, 42));
  std::int64_t steps = 0;
  bool answered = false;
  while (!answered) {
    scheduler.step();
    ++steps;
    scheduler.take_events([&](RequestId id, const std::vector<Event>&) { answered = answered || id == 2; });
  }
  EXPECT_LE(steps, 4) << "100 tokens at 32 a step";
}

TEST(Pressure, RunningStreamsDrawInEveryStepOfALongPrompt) {
  const ManualClock clock;
  FakeExecutor executor(3'000, words());
  SchedulerConfig config = config_of();
  config.max_prefill_tokens = 256;
  Scheduler scheduler(executor, nullptr, config, clock);
  scheduler.add(1, request_of(4, 10'000));
  scheduler.step();
  scheduler.add(2, request_of(20'000, 4, 42));
  for (std::size_t prefilled = 0; prefilled < 20'000; prefilled += 256) {
    std::size_t rows = 0, draws = 0;
    executor.before_step = [&](const StepPlan& plan) {
      rows = plan.rows.size();
      draws = plan.samples.size();
    };
    scheduler.step();
    EXPECT_GE(draws, 1U);
    EXPECT_LE(rows, 257U);
  }
}

// ── Admission ──

TEST(Admission, ALowerPriorityComesInFirstUntilTheOtherHasWaitedLongEnough) {
  ManualClock clock;
  FakeExecutor executor(200, words());
  SchedulerConfig config = config_of(1);  // one request at a time
  config.priority_step = std::chrono::seconds(10);
  const auto order = [&](std::vector<std::pair<std::int64_t, std::int32_t>> arrivals) {  // second, priority
    Scheduler scheduler(executor, nullptr, config, clock);
    RequestId id = 0;
    clock.time = Nanoseconds{0};
    scheduler.add(++id, request_of(4, 2));
    for (const auto& [second, priority] : arrivals) {
      clock.time = std::chrono::seconds(second);
      GenerateRequest request = request_of(4, 2);
      request.priority = priority;
      scheduler.add(++id, std::move(request));
    }
    std::vector<RequestId> finished;
    while (!scheduler.idle()) {
      scheduler.step();
      scheduler.take_events([&](RequestId done, const std::vector<Event>& events) {
        if (std::holds_alternative<FinishedEvent>(events.back())) finished.push_back(done);
      });
    }
    return finished;
  };
  using Order = std::vector<RequestId>;
  EXPECT_EQ(order({{0, 1}, {1, 0}}), (Order{1, 3, 2}));   // lower first
  EXPECT_EQ(order({{1, 0}, {2, 0}}), (Order{1, 2, 3}));   // then who came first
  EXPECT_EQ(order({{1, 1}, {10, 0}}), (Order{1, 3, 2}));  // nine seconds later still goes first
  EXPECT_EQ(order({{1, 1}, {12, 0}}), (Order{1, 2, 3}));  // ten are a step's worth
  EXPECT_EQ(order({{1, 2}, {20, 0}, {22, 0}}), (Order{1, 3, 2, 4}));
  // No priority puts anybody off for longer than that of 20 steps.
  EXPECT_EQ(order({{1, 1'000'000}, {200, -1'000'000}, {202, -1'000'000}}), (Order{1, 3, 2, 4}));
}

TEST(Admission, NoRequestWaitsLongerThanItsPriorityAllows) {
  // One of the lowest priority, while two of the highest come every second to a server that serves one a second.
  ManualClock clock;
  FakeExecutor executor(200, words());
  SchedulerConfig config = config_of(1);
  config.priority_step = std::chrono::seconds(1);
  Scheduler scheduler(executor, nullptr, config, clock);
  GenerateRequest low = request_of(1, 1);
  low.priority = kMostPriority;
  scheduler.add(1, low);
  RequestId id = 1;
  bool served = false;
  int second = 0;
  for (; second < 200 && !served; ++second) {
    clock.time = std::chrono::seconds(second);
    for (int i = 0; i < 2; ++i) {
      GenerateRequest high = request_of(1, 1);
      high.priority = -kMostPriority;
      scheduler.add(++id, high);
    }
    scheduler.step();
    scheduler.take_events([&](RequestId done, const std::vector<Event>&) { served = served || done == 1; });
  }
  EXPECT_TRUE(served);
  // Those that came within 20 steps of priority after it go first: 2 a second for 20 seconds, served in 40.
  EXPECT_LE(second, 2 * 2 * kMostPriority + 2);
  EXPECT_GT(second, 2 * kMostPriority);
}

TEST(Admission, LeavesPagesForTheBranchesThatRun) {
  const ManualClock clock;
  FakeExecutor executor(20, words());
  Scheduler scheduler(executor, nullptr, config_of(), clock);
  scheduler.add(1, request_of(16 * 10 - 4, 1000));
  scheduler.step();
  EXPECT_EQ(scheduler.pages().referenced, 10);
  scheduler.add(2, request_of(16 * 10, 1000, 42));  // ten pages are free, one of them is the first one's to grow into
  scheduler.step();
  EXPECT_EQ(scheduler.num_running(), 1);
  scheduler.cancel(2);
  scheduler.add(3, request_of(16 * 9, 1000, 42));
  scheduler.step();
  EXPECT_EQ(scheduler.num_running(), 2);
}

// Forty requests that grow from 2 pages to 20, in 60 pages, where steps and rows take so long.
std::int64_t preemptions_where(Nanoseconds step, Nanoseconds row) {
  ManualClock clock;
  FakeExecutor executor(60, words());
  SchedulerConfig config = config_of();
  config.prefix_cache = false;
  Scheduler scheduler(executor, nullptr, config, clock);
  executor.before_step = [&](const StepPlan& plan) {
    clock.time += step + row * static_cast<std::int64_t>(plan.rows.size());
  };
  for (RequestId id = 1; id <= 40; ++id) scheduler.add(id, request_of(20, 300));
  run_all(scheduler);
  return scheduler.counters().preemptions;
}

TEST(Admission, LeavesMorePagesWhereComputingAgainCostsMore) {
  using std::chrono::microseconds;
  const std::int64_t cheap = preemptions_where(microseconds(23'000), microseconds(1));
  const std::int64_t costly = preemptions_where(microseconds(300), microseconds(200));
  EXPECT_GT(costly, 0);
  EXPECT_GT(cheap, costly * 3 / 2);
}

TEST(Admission, ADeadlineThatPassesInTheQueueCostsNoStep) {
  ManualClock clock;
  FakeExecutor executor(200, words());
  Scheduler scheduler(executor, nullptr, config_of(1), clock);
  scheduler.add(1, request_of(4, 100));
  scheduler.step();
  GenerateRequest late = request_of(4, 100, 43);
  late.deadline = std::chrono::seconds(1);
  scheduler.add(2, late);
  clock.time = std::chrono::seconds(1);
  bool saw = false;
  executor.before_step = [&](const StepPlan& plan) {
    for (const Row& row : plan.rows) saw = saw || row.token == 43;
  };
  scheduler.step();
  std::optional<Error> error;
  scheduler.take_events([&](RequestId id, const std::vector<Event>& events) {
    if (id == 2) error = std::get<FinishedEvent>(events.back()).error;
  });
  ASSERT_TRUE(error.has_value());
  EXPECT_EQ(error->code, ErrorCode::kDeadline);
  EXPECT_FALSE(saw);
  EXPECT_EQ(scheduler.num_waiting(), 0);
}

}  // namespace
}  // namespace multiverse::testing

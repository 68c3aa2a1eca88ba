#include "multiverse/engine/engine.h"

#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <csignal>
#include <fstream>
#include <future>
#include <nlohmann/json.hpp>
#include <thread>

#include "multiverse/engine/step_trace.h"

#include "tests/support/event_text.h"
#include "tests/support/fake_dialect.h"
#include "tests/support/fake_executor.h"

namespace multiverse::testing {
namespace {

constexpr Nanoseconds kLong = std::chrono::seconds(10);

EngineConfig small_config() {
  EngineConfig config;
  config.eos_tokens = {kEndOfText};
  config.max_queued_requests = 4;
  return config;
}

std::unique_ptr<Engine> start(EngineConfig config = small_config(), Policy policy = structured_policy(0.02),
                              std::function<void(const StepPlan&)> before_step = nullptr) {
  auto executor = std::make_unique<FakeExecutor>(2000, std::move(policy), /*max_position=*/2000);
  executor->before_step = std::move(before_step);
  return Engine::start(std::move(executor), fake_dialect(), std::move(config));
}

GenerateRequest request_of(std::vector<TokenId> prompt, std::int32_t max_tokens = 200) {
  GenerateRequest request;
  request.prompt = std::move(prompt);
  request.max_tokens = max_tokens;
  return request;
}

std::vector<Event> drain(RequestStream& stream) {
  std::vector<Event> events;
  while (stream.wait(kLong, events)) {
  }
  return events;
}

// Draws words for ever.
Policy endless() {
  return [](const std::vector<SeenToken>&, const RandomKey&) { return TokenId{40}; };
}

// So that a request lasts long enough to be looked at: two seconds for all 2,000 positions.
void slow_step(const StepPlan&) {
  std::this_thread::sleep_for(std::chrono::milliseconds(1));
}

TEST(Engine, AnswersManyClientsAtOnceAsItAnswersOne) {
  EngineConfig config = small_config();
  config.max_queued_requests = 100;
  const auto engine = start(config);
  const auto ask = [&](TokenId first) {
    auto stream = engine->submit(request_of({first, 41}));
    EXPECT_TRUE(stream.ok());
    const std::vector<Event> events = drain(*stream.value());
    std::vector<TokenId> text;
    for (const TokenEvent& token : canonical_sample(events, 0).tokens) text.push_back(token.token);
    EXPECT_TRUE(std::holds_alternative<FinishedEvent>(events.back()));
    return text;
  };
  std::vector<std::vector<TokenId>> alone;
  for (TokenId first = 32; first < 48; ++first) alone.push_back(ask(first));
  std::vector<std::vector<TokenId>> together(alone.size());
  std::vector<std::thread> clients;
  for (std::size_t i = 0; i < together.size(); ++i) {
    clients.emplace_back([&, i] { together[i] = ask(static_cast<TokenId>(32 + i)); });
  }
  for (std::thread& client : clients) client.join();
  EXPECT_EQ(together, alone);
  EXPECT_EQ(engine->stats().pages_used, 0);
}

TEST(Engine, ChecksPrompts) {
  const auto engine = start();
  EXPECT_EQ(engine->submit(request_of({})).error().param, "prompt");
  EXPECT_EQ(engine->submit(request_of({64})).error().message,
            "token id 64 in the prompt is out of range; the model has ids 0 to 63");
  EXPECT_EQ(engine->submit(request_of({-1})).error().code, ErrorCode::kInvalidArgument);
  const Result<std::unique_ptr<RequestStream>> too_long = engine->submit(request_of(std::vector<TokenId>(2000, 40)));
  EXPECT_EQ(too_long.error().code_name, "context_length_exceeded");
  EXPECT_EQ(too_long.error().message, "the prompt takes 2000 positions, but the context has 2000; shorten the prompt");
}

TEST(Engine, TakesAPromptWhosePathsFitThoughItsTokensExceedTheContext) {
  std::vector<TokenId> prompt = {40, kParallel, kGoal};
  for (int path = 1; path <= 3; ++path) prompt.insert(prompt.end(), {kOutline, kDigit + path, kColon});
  prompt.insert(prompt.end(), {kEndGoal, kNewline});
  for (int path = 1; path <= 3; ++path) {
    prompt.insert(prompt.end(), {kPath, kNewline, kDigit + path, kColon});
    prompt.insert(prompt.end(), 800, 41);
    prompt.insert(prompt.end(), {kEndPath, kNewline});
  }
  prompt.insert(prompt.end(), {kConclusion, kNewline});
  ASSERT_GT(prompt.size(), 2000U);
  const auto engine = start();
  auto stream = engine->submit(request_of(prompt, 3));
  ASSERT_TRUE(stream.ok()) << stream.error().message;
  EXPECT_EQ(canonical_sample(drain(*stream.value()), 0).ends.at(0).completion_tokens, 3);
}

TEST(Engine, RefusesWhatItsQueueCannotHold) {
  std::atomic<bool> go = false;
  const auto engine = start(small_config(), endless(), [&go](const StepPlan&) {
    while (!go) std::this_thread::sleep_for(std::chrono::milliseconds(1));
  });
  std::vector<std::unique_ptr<RequestStream>> streams;
  Result<std::unique_ptr<RequestStream>> refused = invalid_argument("");
  for (int i = 0; i < 10; ++i) {
    auto stream = engine->submit(request_of({40}, 5));
    if (!stream.ok()) {
      EXPECT_EQ(stream.error().code, ErrorCode::kOverloaded);
      break;
    }
    streams.push_back(std::move(stream).value());
  }
  EXPECT_GE(streams.size(), 4U);
  EXPECT_LT(streams.size(), 10U);
  EXPECT_EQ(engine->stats().rejected_total, 1);
  go = true;
  for (const auto& stream : streams) EXPECT_EQ(canonical_sample(drain(*stream), 0).tokens.size(), 5U);
}

TEST(Engine, RefusesWhatMayNeedMorePagesThanItsQueueMayHold) {
  EngineConfig config = small_config();
  config.max_queued_requests = 100;
  config.max_queued_pages = 20;
  config.max_rows = 1;  // one runs, the others wait
  const auto engine = start(config, endless(), slow_step);
  auto running = engine->submit(request_of({40}, 0));
  std::vector<Event> events;
  running.value()->wait(kLong, events);
  auto first = engine->submit(request_of({40}, 159));  // ten pages
  EXPECT_TRUE(first.ok());
  auto large = engine->submit(request_of({40}, 176));  // twelve
  ASSERT_FALSE(large.ok());
  EXPECT_EQ(large.error().code, ErrorCode::kOverloaded);
  EXPECT_EQ(large.error().message,
            "the queue is full: 1 requests with 1 prompt tokens wait that may need 10 pages, this one 12 (at most 100, "
            "1000000 and 20); try again later, or with a smaller max_tokens");
  auto small = engine->submit(request_of({40}, 100));
  EXPECT_TRUE(small.ok());
}

// Chrome's trace-event format, as far as the trace uses it: the JSON array form, whose closing bracket may be missing.
// Its phases here: M (metadata), X (a slice), C (counters), i (an instant).
void expect_trace_events(const nlohmann::json& events) {
  ASSERT_TRUE(events.is_array());
  for (const nlohmann::json& event : events) {
    SCOPED_TRACE(event.dump());
    const std::string phase = event.at("ph");
    EXPECT_TRUE(event.at("name").is_string() && event.at("pid").is_number_integer());
    ASSERT_TRUE(phase == "M" || phase == "X" || phase == "C" || phase == "i");
    if (phase == "M") continue;
    EXPECT_GE(event.at("ts").get<double>(), 0.0);
    EXPECT_TRUE(event.at("args").is_object());
    EXPECT_TRUE(phase != "X" || event.at("dur").get<double>() >= 0.0);
    EXPECT_TRUE(phase == "C" || event.at("tid").is_number_integer());
    EXPECT_TRUE(phase != "i" || event.at("s") == "t");
    if (phase != "C") continue;
    for (const auto& counter : event.at("args")) EXPECT_TRUE(counter.is_number());
  }
}

TEST(Engine, WritesATraceOfItsSteps) {
  const std::string file = ::testing::TempDir() + "multiverse_step_trace.json";
  std::int64_t steps = 0;
  {
    EngineConfig config = small_config();
    auto trace = StepTrace::open(file, 1 << 20);
    ASSERT_TRUE(trace.ok()) << trace.error().message;
    config.trace = std::move(trace).value();
    const auto engine = start(config);
    auto stream = engine->submit(request_of({40, 41}));
    drain(*stream.value());
    stream.value().reset();
    engine->stop();
    steps = engine->stats().steps_total;
  }
  std::ifstream text(file);
  const nlohmann::json events = nlohmann::json::parse(text);
  expect_trace_events(events);
  std::int64_t seen = 0, rows = 0;
  for (const nlohmann::json& event : events) {
    if (event["ph"] != "X") continue;
    ++seen;
    rows += event["args"]["rows"].get<std::int64_t>();
    EXPECT_GE(event["dur"].get<double>(), event["args"]["execution_us"].get<double>());
  }
  EXPECT_EQ(seen, steps);
  EXPECT_GT(rows, steps);
}

TEST(Engine, ATraceEndsWholeAtItsSize) {
  const std::string file = ::testing::TempDir() + "multiverse_full_trace.json";
  {
    auto trace = StepTrace::open(file, 4096);
    ASSERT_TRUE(trace.ok());
    for (int step = 0; step < 1000; ++step) trace.value()->add(StepRecord{});
  }
  std::ifstream text(file);
  const std::string content(std::istreambuf_iterator<char>(text), {});
  EXPECT_LE(content.size(), 4096U);
  EXPECT_GT(nlohmann::json::parse(content).size(), 10U);
  EXPECT_EQ(StepTrace::open("/nowhere/trace.json", 4096).error().param, "trace_file");
}

TEST(Engine, ATraceOpensThoughTheProcessWasKilled) {
  const std::string file = ::testing::TempDir() + "multiverse_killed_trace.json";
  constexpr int kSteps = 5000;
  const pid_t child = fork();
  ASSERT_GE(child, 0);
  if (child == 0) {
    auto trace = StepTrace::open(file, 1 << 30);
    const std::vector<RequestId> preempted = {7, 8};
    for (int step = 0; step < kSteps; ++step) {
      StepRecord record;
      record.begin = std::chrono::milliseconds(step);
      record.rows = step;
      record.preempted = preempted;
      trace.value()->add(record);
    }
    raise(SIGKILL);
  }
  int status = 0;
  ASSERT_EQ(waitpid(child, &status, 0), child);
  ASSERT_TRUE(WIFSIGNALED(status));
  std::ifstream text(file);
  std::string content(std::istreambuf_iterator<char>(text), {});
  ASSERT_NE(content.back(), ']');
  const nlohmann::json events = nlohmann::json::parse(content + "]");  // as viewers read it
  expect_trace_events(events);
  // All but what the last second held, five events a step.
  EXPECT_GT(events.size(), std::size_t{5} * (kSteps - 1001));
}

TEST(Engine, ADroppedStreamCancelsItsRequest) {
  const auto engine = start(small_config(), endless(), slow_step);
  auto stream = engine->submit(request_of({40}, 0));
  std::vector<Event> events;
  stream.value()->wait(kLong, events);
  EXPECT_EQ(engine->stats().requests_running, 1);
  { const auto dropped = std::move(stream).value(); }
  for (int i = 0; i < 5000 && engine->stats().pages_used > 0; ++i) {
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }
  EXPECT_EQ(engine->stats().pages_used, 0);
  EXPECT_EQ(engine->stats().requests_running, 0);
  EXPECT_EQ(engine->stats().cancelled_total, 1);
}

TEST(Engine, EndsWithAWordToThoseThatWait) {
  auto engine = start(small_config(), endless(), slow_step);
  auto stream = engine->submit(request_of({40}, 0));
  std::vector<Event> events;
  stream.value()->wait(kLong, events);
  engine->submit(request_of({41}, 0)).value()->cancel();
  std::thread consumer([&] {
    while (stream.value()->wait(kLong, events)) {
    }
  });
  std::this_thread::sleep_for(std::chrono::milliseconds(20));
  // The stream must not outlive the engine, so it is read to its end first.
  std::thread stopper([&] { engine->stop(); });
  consumer.join();
  stopper.join();
  const auto& finished = std::get<FinishedEvent>(events.back());
  ASSERT_TRUE(finished.error.has_value());
  EXPECT_EQ(finished.error->code, ErrorCode::kUnavailable);
  EXPECT_EQ(engine->submit(request_of({40})).error().code, ErrorCode::kUnavailable);
}

TEST(Engine, SurvivesAFailingStep) {
  std::atomic<int> steps = 0;
  const auto engine = start(small_config(), endless(), [&steps](const StepPlan&) {
    if (++steps == 3) throw ExecutionError("injected");
  });
  auto first = engine->submit(request_of({40}, 50));
  const std::vector<Event> events = drain(*first.value());
  EXPECT_EQ(std::get<FinishedEvent>(events.back()).error->message, "injected");
  auto second = engine->submit(request_of({40}, 50));
  EXPECT_FALSE(std::get<FinishedEvent>(drain(*second.value()).back()).error.has_value());
}

// What liveness looks at: work that waits behind a step that doesn't end, even the very first.
TEST(Engine, AStepThatHangsShows) {
  std::atomic<bool> hang = true;
  const auto engine = start(small_config(), endless(), [&](const StepPlan&) {
    while (hang) std::this_thread::sleep_for(std::chrono::milliseconds(1));
  });
  std::this_thread::sleep_for(std::chrono::milliseconds(50));
  EXPECT_EQ(engine->stats().last_step_age_seconds, 0.0);  // idle
  const auto stream = engine->submit(request_of({32}, 2));
  ASSERT_TRUE(stream.ok());
  const double age = engine->stats().last_step_age_seconds;
  EXPECT_LT(age, 0.05);  // of the work, not of the idle time before it
  std::this_thread::sleep_for(std::chrono::milliseconds(60));
  EXPECT_GE(engine->stats().last_step_age_seconds, age + 0.06);
  hang = false;
  drain(*stream.value());
  EXPECT_EQ(engine->stats().last_step_age_seconds, 0.0);
}

// ── Other weights ──

// An engine over a fake whose weights have numbers; `loading` is called on the thread that loads.
std::unique_ptr<Engine> start_reloadable(std::function<void()> loading = nullptr) {
  auto executor = std::make_unique<FakeExecutor>(2000, endless(), /*max_position=*/2000);
  executor->before_step = slow_step;
  executor->before_load = std::move(loading);
  return Engine::start(std::move(executor), fake_dialect(), small_config());
}

std::vector<std::uint64_t> versions_of(const std::vector<Event>& events) {
  for (const Event& event : events) {
    if (const auto* end = std::get_if<SampleEndEvent>(&event)) return end->weights_versions;
  }
  return {};
}

TEST(EngineReload, ExchangesWeightsWhileRequestsRun) {
  const auto engine = start_reloadable();
  EXPECT_EQ(engine->stats().weights_version, 1);
  for (const ReloadMode mode : {ReloadMode::kRecompute, ReloadMode::kKeep}) {
    auto stream = engine->submit(request_of({40}, 300));
    ASSERT_TRUE(stream.ok());
    std::vector<Event> events;
    stream.value()->wait(kLong, events);  // it runs
    const auto before = static_cast<std::uint64_t>(engine->stats().weights_version);
    const Result<WeightsReload> reload = engine->reload_weights("7", mode);
    ASSERT_TRUE(reload.ok()) << reload.error().message;
    EXPECT_EQ(reload.value().previous + 1, reload.value().version);
    EXPECT_EQ(reload.value().requests, 1);
    for (Event& event : drain(*stream.value())) events.push_back(std::move(event));
    EXPECT_EQ(versions_of(events), (std::vector<std::uint64_t>{before, before + 1}));
    EXPECT_EQ(canonical_sample(events, 0).tokens.size(), 300U);  // none lost, none twice
  }
  EXPECT_EQ(engine->stats().weight_reloads_total, 2);
  EXPECT_EQ(engine->stats().preemptions_total, 1);
}

TEST(EngineReload, AFailureLeavesTheWeightsAsTheyWere) {
  std::atomic<int> kind = 0;
  const auto engine = start_reloadable([&kind] {
    if (kind == 1) throw std::bad_alloc();
    if (kind == 2) throw std::runtime_error("the disk is gone");
  });
  EXPECT_EQ(engine->reload_weights("nothing", ReloadMode::kRecompute).error().message, "no weights are in 'nothing'");
  kind = 1;
  EXPECT_EQ(engine->reload_weights("7", ReloadMode::kRecompute).error().code, ErrorCode::kInternal);
  kind = 2;
  EXPECT_EQ(engine->reload_weights("7", ReloadMode::kRecompute).error().message,
            "loading the weights failed: the disk is gone");
  EXPECT_EQ(engine->stats().weights_version, 1);
  EXPECT_EQ(engine->stats().weight_reloads_total, 0);
  EXPECT_EQ(engine->stats().weight_reloads_failed_total, 3);
  auto stream = engine->submit(request_of({40}, 5));
  ASSERT_TRUE(stream.ok());
  EXPECT_EQ(versions_of(drain(*stream.value())), std::vector<std::uint64_t>{1});
}

TEST(EngineReload, OneAtATimeWhileStepsGoOnAndNoneOnceItStops) {
  std::promise<void> loading, may_end;
  const auto engine = start_reloadable([&] {
    loading.set_value();
    may_end.get_future().wait();
  });
  auto first = std::async(std::launch::async, [&] { return engine->reload_weights("7", ReloadMode::kRecompute); });
  loading.get_future().wait();
  EXPECT_EQ(engine->reload_weights("8", ReloadMode::kRecompute).error().code_name, "reload_in_progress");
  auto stream = engine->submit(request_of({40}, 5));  // the weights are still being loaded
  ASSERT_TRUE(stream.ok());
  EXPECT_EQ(versions_of(drain(*stream.value())), std::vector<std::uint64_t>{1});
  engine->stop();
  may_end.set_value();
  EXPECT_EQ(first.get().error().code, ErrorCode::kUnavailable);
}

}  // namespace
}  // namespace multiverse::testing

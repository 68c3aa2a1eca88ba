// What a step holds at forks and joins, limits, cuts, cancels and failures, with scripted branches.
#include "multiverse/scheduler/scheduler.h"

#include <gtest/gtest.h>

#include <map>
#include <string>

#include "tests/support/event_text.h"
#include "tests/support/fake_dialect.h"
#include "tests/support/fake_executor.h"
#include "tests/support/manual_clock.h"
#include "tests/support/seen_text.h"

namespace multiverse::testing {
namespace {

// Writes a fixed text as if the model had drawn it: after what is seen comes the next drawn token of the text.
class Script {
 public:
  Script(std::vector<TokenId> prompt, std::vector<TokenId> completion, const Dialect& dialect)
      : text_(std::move(prompt)) {
    prompt_ = text_.size();
    text_.insert(text_.end(), completion.begin(), completion.end());
    structure_ = read_structure(text_, dialect, StructureLimits{}, static_cast<std::int32_t>(prompt_));
    for (std::size_t i = prompt_; i < text_.size(); ++i) {
      if (!structure_.forced[i]) next_[text_of(seen_by(structure_, text_, i - 1))] = text_[i];
    }
  }

  Policy policy() const {
    return [this](const std::vector<SeenToken>& seen, const RandomKey&) {
      const auto found = next_.find(text_of(seen));
      return found == next_.end() ? TokenId{kEndOfText} : found->second;
    };
  }
  std::vector<TokenId> prompt() const { return {text_.begin(), text_.begin() + static_cast<std::ptrdiff_t>(prompt_)}; }
  std::vector<TokenId> completion() const {
    return {text_.begin() + static_cast<std::ptrdiff_t>(prompt_), text_.end()};
  }
  const TreeStatistics& statistics() const { return structure_.statistics; }

 private:
  static std::string text_of(const std::vector<SeenToken>& seen) {
    std::string text;
    for (const SeenToken& slot : seen) text += std::to_string(slot.token) + "@" + std::to_string(slot.position) + " ";
    return text;
  }
  std::vector<TokenId> text_;
  std::size_t prompt_ = 0;
  Structure structure_;
  std::map<std::string, TokenId> next_;
};

// Two paths of 3 and 5 drawn tokens (their </Path> included) and a conclusion.
std::vector<TokenId> two_paths() {
  return {40,
          kParallel,
          kGoal,
          kOutline,
          kDigit + 1,
          kColon,
          41,
          kEndOutline,
          kOutline,
          kDigit + 2,
          kColon,
          42,
          kEndOutline,
          kEndGoal,
          kNewline,
          kPath,
          kNewline,
          kDigit + 1,
          kColon,
          43,
          44,
          kEndPath,
          kNewline,
          kPath,
          kNewline,
          kDigit + 2,
          kColon,
          45,
          46,
          47,
          48,
          kEndPath,
          kNewline,
          kConclusion,
          kNewline,
          49,
          kEndConclusion,
          kEndParallel,
          50};
}

struct Bench {
  explicit Bench(std::vector<TokenId> completion, std::int32_t num_pages = 200)
      : script({32, 33, 34}, std::move(completion), dialect), executor(num_pages, script.policy()) {
    config.tree = {1000, 100'000, {kEndOfText}, 0};
    request.prompt = script.prompt();
  }
  void start() { scheduler = std::make_unique<Scheduler>(executor, &dialect, config, clock); }
  void step() {
    scheduler->step();
    scheduler->check_integrity();
    scheduler->take_events([this](RequestId id, std::vector<Event>& new_events) {
      for (Event& event : new_events) events[id].push_back(std::move(event));
    });
  }
  std::vector<Event>& run() {
    start();
    scheduler->add(1, request);
    for (int i = 0; i < 10'000 && !scheduler->idle(); ++i) step();
    return events[1];
  }
  std::vector<TokenId> text(RequestId id = 1, std::int32_t sample = 0) {
    std::vector<TokenId> tokens;
    for (const TokenEvent& token : canonical_sample(events[id], sample).tokens) tokens.push_back(token.token);
    return tokens;
  }
  SampleEndEvent end(RequestId id = 1) { return canonical_sample(events[id], 0).ends.at(0); }
  const FinishedEvent& finished(RequestId id = 1) { return std::get<FinishedEvent>(events.at(id).back()); }

  const Dialect dialect = fake_dialect();
  Script script;
  FakeExecutor executor;
  ManualClock clock;
  SchedulerConfig config;
  GenerateRequest request;
  std::unique_ptr<Scheduler> scheduler;
  std::map<RequestId, std::vector<Event>> events;
};

TEST(Scheduler, AForkAndAJoinCostNoStep) {
  Bench bench(two_paths());
  std::vector<std::pair<std::size_t, std::size_t>> shape;  // rows and draws of each step
  bench.executor.before_step = [&](const StepPlan& plan) { shape.emplace_back(plan.rows.size(), plan.samples.size()); };
  bench.run();
  EXPECT_EQ(bench.text(), bench.script.completion());
  // 14 draws up to </Goal>, the first from the prompt. Then the fork's step: </Goal> ⏎ and two headers of 4 rows.
  ASSERT_EQ(shape.size(), 24U);
  for (std::size_t i = 1; i < 14; ++i) EXPECT_EQ(shape[i], (std::pair<std::size_t, std::size_t>{1, 1})) << i;
  EXPECT_EQ(shape[14], (std::pair<std::size_t, std::size_t>{2 + 4 + 4, 2}));
  EXPECT_EQ(shape[15], (std::pair<std::size_t, std::size_t>{2, 2}));
  EXPECT_EQ(shape[16], (std::pair<std::size_t, std::size_t>{2, 2}));
  EXPECT_EQ(shape[17], (std::pair<std::size_t, std::size_t>{2 + 1, 1}));  // path 1 ended: its </Path> ⏎ ride along
  EXPECT_EQ(shape[18], (std::pair<std::size_t, std::size_t>{1, 1}));
  // The join's step: </Path> ⏎ of path 2, <Conclusion> ⏎, and the conclusion's first token is drawn.
  EXPECT_EQ(shape[19], (std::pair<std::size_t, std::size_t>{2 + 2, 1}));
  EXPECT_EQ(bench.end().parallel.steps, bench.script.statistics().steps + 1);  // and one for end-of-text
  EXPECT_EQ(bench.end().parallel.steps, static_cast<std::int64_t>(shape.size()));
  EXPECT_EQ(bench.end().parallel.blocks, 1);
  EXPECT_EQ(bench.end().parallel.paths, 2);
}

TEST(Scheduler, SerialAndWavesGiveTheSameText) {
  for (const std::int32_t most : {0, 1, 2}) {
    Bench bench(two_paths());
    bench.request.limits.max_running_paths = most;
    bench.run();
    EXPECT_EQ(bench.text(), bench.script.completion()) << most;
    // One at a time, each drawn token costs a step: 3 + 5 instead of 5.
    EXPECT_EQ(bench.end().parallel.steps, most == 1 ? 24 + 3 : 24) << most;
  }
  Bench bench(two_paths());
  bench.request.mode = Mode::kSerial;
  bench.run();
  EXPECT_EQ(bench.text(), bench.script.completion());
  EXPECT_EQ(bench.end().parallel.steps, 27);
}

TEST(Scheduler, ModeOffTakesControlTokensAsOrdinaryOnes) {
  Bench bench({40, kParallel, kGoal, kOutline, kDigit + 1, kColon, kEndOutline, kEndGoal, 41});
  bench.request.mode = Mode::kOff;
  bench.run();
  EXPECT_EQ(bench.end().parallel.blocks, 0);
  EXPECT_EQ(bench.end().parallel.malformed, 0);
}

TEST(Scheduler, WhatMayForkDependsOnNoOtherPath) {
  // Two paths that would each fork into three. Six may begin: 2, and of the 4 that are left 2 in each path: none forks,
  // in whatever order they run. With eight, both do; what a path leaves is the root's again.
  const auto plan = [](std::int32_t paths) {
    std::vector<TokenId> tokens = {kParallel, kGoal};
    for (std::int32_t path = 1; path <= paths; ++path) tokens.insert(tokens.end(), {kOutline, kDigit + path, kColon});
    tokens.push_back(kEndGoal);
    return tokens;
  };
  for (const std::int32_t most : {6, 8, 9}) {
    for (const std::int32_t at_once : {1, 0}) {
      std::map<std::uint64_t, std::vector<TokenId>> scripts;
      const std::vector<TokenId> three = plan(3);
      std::vector<TokenId> root = plan(2);
      root.push_back(kEndConclusion);
      root.push_back(kEndParallel);
      root.insert(root.end(), three.begin(), three.end());  // forks where at least three may still begin
      scripts[branch_random_key(0, {})] = root;
      for (const std::int32_t path : {1, 2}) scripts[branch_random_key(0, {1, path})] = three;
      std::map<std::uint64_t, std::size_t> drawn;
      FakeExecutor executor(200, [&](const std::vector<SeenToken>&, const RandomKey& key) {
        const std::vector<TokenId>& script = scripts[key.branch];
        const std::size_t next = drawn[key.branch]++;
        return next < script.size() ? script[next] : TokenId{kEndOfText};
      });
      const Dialect dialect = fake_dialect();
      const ManualClock clock;
      SchedulerConfig config;
      config.tree = {1000, 100'000, {kEndOfText}, 0};
      Scheduler scheduler(executor, &dialect, config, clock);
      GenerateRequest request;
      request.prompt = {40};
      request.limits.max_total_paths = most;
      request.limits.max_running_paths = at_once;
      scheduler.add(1, request);
      std::vector<Event> events;
      while (!scheduler.idle()) {
        scheduler.step();
        scheduler.take_events([&](RequestId, std::vector<Event>& taken) {
          for (Event& event : taken) events.push_back(std::move(event));
        });
      }
      // Six: 2, then 3 of the 4 left. Eight: 2 + 3 + 3. Nine: one is left, too few for the last.
      EXPECT_EQ(canonical_sample(events, 0).ends.at(0).parallel.paths, most == 6 ? 5 : 8) << most << " " << at_once;
    }
  }
}

TEST(Scheduler, MaxTokensEndsTheSampleWithLength) {
  for (std::int32_t most = 1; most < 39; ++most) {
    Bench bench(two_paths());
    bench.request.max_tokens = most;
    bench.run();
    EXPECT_EQ(bench.end().reason, FinishReason::kLength);
    EXPECT_EQ(bench.end().completion_tokens, most);
    EXPECT_EQ(bench.text().size(), static_cast<std::size_t>(most));
  }
}

TEST(Scheduler, EndOfTextInAPathClosesIt) {
  std::vector<TokenId> text = two_paths();
  // The script knows no token after 44: the model says end-of-text there.
  const auto end_path = std::find(text.begin(), text.end(), TokenId{44}) + 1;
  Bench bench(std::vector<TokenId>(text.begin(), end_path));
  bench.run();
  const std::vector<TokenId> made = bench.text();
  const auto after = std::find(made.begin(), made.end(), TokenId{44}) + 1;
  ASSERT_GE(made.end() - after, 3);
  EXPECT_EQ(after[0], kEndPath);
  EXPECT_EQ(after[1], kNewline);
  EXPECT_EQ(after[2], kPath);
  EXPECT_EQ(bench.end().reason, FinishReason::kStop);
}

TEST(Scheduler, ACutEndsWhatFollowsAndLetsWhatPrecedesFinish) {
  Bench bench(two_paths());
  bench.start();
  bench.scheduler->add(1, bench.request);
  while (bench.scheduler->branches_running() < 2) bench.step();
  bench.step();
  bench.scheduler->cut(1, 0, 2);  // path 2
  EXPECT_EQ(bench.scheduler->branches_running(), 1);
  while (!bench.scheduler->idle()) bench.step();
  EXPECT_EQ(bench.end().reason, FinishReason::kStop);
  const std::vector<TokenId> made = bench.text();
  EXPECT_TRUE(std::find(made.begin(), made.end(), TokenId{44}) != made.end()) << "path 1 was not finished";
  EXPECT_TRUE(std::find(made.begin(), made.end(), TokenId{kConclusion}) == made.end()) << "the parent went on";
}

TEST(Scheduler, CancelFreesAllPagesAtOnce) {
  Bench bench(two_paths());
  bench.start();
  bench.scheduler->add(1, bench.request);
  for (int i = 0; i < 16; ++i) bench.step();
  EXPECT_GT(bench.scheduler->pages().referenced, 0);
  bench.scheduler->cancel(1);
  EXPECT_EQ(bench.scheduler->pages().referenced, 0);
  bench.step();
  EXPECT_TRUE(bench.scheduler->idle());
  EXPECT_EQ(bench.end().reason, FinishReason::kCancelled);
}

TEST(Scheduler, AFailedStepFailsItsRequestsAndNoOthers) {
  Bench bench(two_paths());
  bench.start();
  bench.scheduler->add(1, bench.request);
  bench.step();
  bench.executor.before_step = [](const StepPlan&) { throw ExecutionError("out of memory in attention"); };
  bench.step();
  EXPECT_TRUE(bench.scheduler->idle());
  ASSERT_TRUE(bench.finished().error.has_value());
  EXPECT_EQ(bench.finished().error->message, "out of memory in attention");
  EXPECT_EQ(bench.scheduler->pages().referenced, 0);
  bench.executor.before_step = nullptr;
  bench.scheduler->add(2, bench.request);
  while (!bench.scheduler->idle()) bench.step();
  EXPECT_EQ(bench.text(2), bench.script.completion());
}

TEST(Scheduler, ARequestThatCannotFitAloneEndsWithLength) {
  Bench bench(two_paths(), /*num_pages=*/3);
  bench.run();
  EXPECT_EQ(bench.end().reason, FinishReason::kLength);
  EXPECT_EQ(bench.scheduler->pages().referenced, 0);
}

TEST(Scheduler, PreemptedRequestsMakeTheSameText) {
  Bench bench(two_paths(), /*num_pages=*/9);
  bench.config.prefix_cache = false;
  bench.start();
  for (RequestId id = 1; id <= 3; ++id) bench.scheduler->add(id, bench.request);
  while (!bench.scheduler->idle()) bench.step();
  EXPECT_GT(bench.scheduler->counters().preemptions, 0);
  for (RequestId id = 1; id <= 3; ++id) EXPECT_EQ(bench.text(id), bench.script.completion()) << id;
}

TEST(Scheduler, ReadsAStructuredPromptAndGoesOnFromAnywhere) {
  const std::vector<TokenId> whole = two_paths();
  for (std::size_t cut = 1; cut < whole.size(); ++cut) {
    SCOPED_TRACE("prompt ends after token " + std::to_string(cut) + " of the text");
    Bench bench(whole);
    bench.request.prompt.insert(bench.request.prompt.end(), whole.begin(),
                                whole.begin() + static_cast<std::ptrdiff_t>(cut));
    bench.run();
    const std::vector<TokenId> rest(whole.begin() + static_cast<std::ptrdiff_t>(cut), whole.end());
    EXPECT_EQ(bench.text(), rest);
    EXPECT_EQ(bench.end().reason, FinishReason::kStop);
  }
}

TEST(Scheduler, PromptLogprobsComeFromTheRowBeforeEachDrawnToken) {
  const std::vector<TokenId> whole = two_paths();
  Bench bench(whole);
  bench.request.prompt.insert(bench.request.prompt.end(), whole.begin(), whole.end());
  bench.request.prompt_top_logprobs = 0;
  bench.config.max_prefill_tokens = 7;
  bench.run();
  const auto& prompt = std::get<PromptEvent>(bench.events[1].front());
  const Structure structure = read_structure(bench.request.prompt, bench.dialect, StructureLimits{});
  ASSERT_EQ(prompt.logprobs.size(), bench.request.prompt.size());
  for (std::size_t i = 0; i < prompt.logprobs.size(); ++i) {
    EXPECT_EQ(prompt.logprobs[i].has_value(), i > 0 && !structure.forced[i]) << i;
  }
}

TEST(Scheduler, PromptLogprobsComeThoughTheSampleEndsWithItsForcedTokens) {
  const std::vector<TokenId> whole = two_paths();
  for (std::size_t cut = 1; cut < whole.size(); ++cut) {
    SCOPED_TRACE("prompt ends after token " + std::to_string(cut) + " of the text");
    Bench bench(whole);
    bench.request.prompt.insert(bench.request.prompt.end(), whole.begin(),
                                whole.begin() + static_cast<std::ptrdiff_t>(cut));
    bench.request.prompt_top_logprobs = 0;
    bench.request.max_tokens = 1;
    bench.run();
    ASSERT_TRUE(bench.scheduler->idle());
    const auto& prompt = std::get<PromptEvent>(bench.events[1].front());
    const Structure structure = read_structure(bench.request.prompt, bench.dialect, StructureLimits{});
    for (std::size_t i = 1; i < prompt.logprobs.size(); ++i) {
      EXPECT_EQ(prompt.logprobs[i].has_value(), !structure.forced[i]) << i;
    }
    EXPECT_EQ(bench.end().completion_tokens, 1);
  }
}

TEST(Scheduler, AStopTokenInAPathCutsTheTextThere) {
  Bench bench(two_paths());
  bench.request.stop_tokens = {46};  // in path 2
  bench.run();
  EXPECT_EQ(bench.end().reason, FinishReason::kStop);
  std::vector<TokenEvent> ends;
  for (const Event& event : bench.events[1]) {
    if (const auto* token = std::get_if<TokenEvent>(&event); token != nullptr && token->end_of_text)
      ends.push_back(*token);
  }
  ASSERT_EQ(ends.size(), 1U);
  EXPECT_EQ(ends[0].token, 46);
  EXPECT_EQ(ends[0].branch, 2);
  const std::vector<TokenId> made = bench.text();
  EXPECT_TRUE(std::find(made.begin(), made.end(), TokenId{44}) != made.end()) << "path 1 was not finished";
  EXPECT_TRUE(std::find(made.begin(), made.end(), TokenId{kConclusion}) == made.end()) << "the parent went on";
}

TEST(Scheduler, ASecondRequestFindsThePrefixOfTheFirst) {
  Bench bench(two_paths());
  bench.request.prompt.assign(200, 35);
  bench.run();
  const std::int64_t rows = bench.executor.rows;
  bench.scheduler->add(2, bench.request);
  while (!bench.scheduler->idle()) bench.step();
  EXPECT_EQ(bench.finished(2).cached_tokens, 192);
  EXPECT_LT(bench.executor.rows - rows, 20);
  EXPECT_EQ(bench.text(2), bench.text(1));
}

TEST(Scheduler, SharedTokensAreReadOnce) {
  // Four samples of one prompt: its full pages are in one item over all rows.
  Bench bench({40, 41, 42, 43});
  bench.request.prompt.assign(161, 35);
  bench.request.ignore_eos = true;
  bench.request.n = 4;
  bench.start();
  bench.scheduler->add(1, bench.request);
  bench.step();  // prefill and the first draws
  const std::int64_t before = bench.executor.seen_slots;
  bench.step();
  EXPECT_EQ(bench.executor.seen_slots - before, 160 + 4 * 2);
}

TEST(Scheduler, RequestsWithACommonPrefixReadItOnce) {
  Bench bench({40, 41, 42, 43});
  bench.request.prompt.assign(600, 35);
  bench.request.ignore_eos = true;
  bench.request.max_tokens = 10;
  bench.run();
  for (RequestId id = 2; id <= 4; ++id) bench.scheduler->add(id, bench.request);
  bench.step();
  const std::int64_t before = bench.executor.seen_slots;
  bench.step();
  // 512 tokens (whole chunks) once; of the other 80 full-page tokens and the tail each its own.
  EXPECT_EQ(bench.executor.seen_slots - before, 512 + 3 * (80 + 8 + 1));
}

TEST(Scheduler, DeadlinesEndRequests) {
  Bench bench(two_paths());
  bench.request.deadline = std::chrono::seconds(1);
  bench.start();
  bench.scheduler->add(1, bench.request);
  bench.step();
  bench.clock.time = std::chrono::seconds(2);
  bench.step();
  EXPECT_TRUE(bench.scheduler->idle());
  EXPECT_EQ(bench.end().reason, FinishReason::kLength);
}

// Allows 44 and 45 for five tokens, then the end alone, or nothing.
class FiveTokens final : public Constraint {
 public:
  explicit FiveTokens(bool may_end) : may_end_(may_end) {}
  std::unique_ptr<ConstraintState> start() const override { return std::make_unique<State>(may_end_); }

 private:
  class State final : public ConstraintState {
   public:
    explicit State(bool may_end) : may_end_(may_end) {}
    bool accept(std::int32_t token) override {
      EXPECT_TRUE(token == 44 || token == 45) << token;
      if (++count_ == 5) mask_[0] = 1U << static_cast<unsigned>(kEndOfText);
      return count_ < 5 || may_end_;
    }
    std::span<const std::uint64_t> allowed() const override { return mask_; }

   private:
    const bool may_end_;
    int count_ = 0;
    std::vector<std::uint64_t> mask_{(1ULL << 44U) | (1ULL << 45U)};
  };
  const bool may_end_;
};

TEST(Scheduler, AConstraintDecidesWhatIsDrawn) {
  for (const bool may_end : {true, false}) {
    Bench bench(two_paths());  // would fork
    bench.request.constraint = std::make_shared<const FiveTokens>(may_end);
    bench.request.n = 2;
    bench.run();
    for (const std::int32_t sample : {0, 1}) {
      const std::vector<TokenId> text = bench.text(1, sample);
      EXPECT_EQ(text.size(), 5U);
      EXPECT_EQ(canonical_sample(bench.events[1], sample).ends.at(0).reason,
                may_end ? FinishReason::kStop : FinishReason::kLength);
    }
    EXPECT_EQ(bench.end().parallel.blocks, 0);
  }
}

// What decoded in the step before paces a prompt only while it still decodes.
TEST(Scheduler, APromptThatFindsTheServerEmptyTakesWholeSteps) {
  ManualClock clock;
  FakeExecutor executor(200, [](const std::vector<SeenToken>&, const RandomKey&) { return TokenId{41}; });
  executor.before_step = [&](const StepPlan&) { clock.time += std::chrono::milliseconds(1); };
  SchedulerConfig config;
  config.tree = {1000, 100'000, {kEndOfText}, 0};
  Scheduler scheduler(executor, nullptr, config, clock);
  for (const TokenId first : {40, 42, 43}) {
    GenerateRequest request;
    request.prompt.assign(100, 40);
    request.prompt[0] = first;  // nothing is found in the cache
    request.max_tokens = 5;
    scheduler.add(static_cast<RequestId>(first), request);
    const std::int64_t before = executor.steps;
    while (!scheduler.idle()) {
      scheduler.step();
      scheduler.take_events([](RequestId, std::vector<Event>&) {});
    }
    EXPECT_EQ(executor.steps - before, 5) << "request " << first;
  }
}

}  // namespace
}  // namespace multiverse::testing

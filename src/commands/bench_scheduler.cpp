// `multiverse bench scheduler`: what the scheduler itself costs, with an executor that computes nothing.
#include <malloc.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <filesystem>
#include <string>
#include <utility>
#include <vector>

#include "multiverse/base/check.h"
#include "multiverse/engine/step_trace.h"
#include "multiverse/scheduler/scheduler.h"

#include "commands/bench.h"
#include "commands/synthetic_trees.h"

namespace multiverse {
namespace {

constexpr const char* kHelp = R"(Usage: multiverse bench scheduler

What the scheduler costs beside the forward pass, with an executor that computes nothing: microseconds to plan and commit a
step, to fork, to admit, to trace; bytes that a request and a branch take. Beside each figure stands the one that is wanted.
)";

// Draws ordinary tokens, or the token that forks where it is told to.
class NoExecutor final : public Executor {
 public:
  explicit NoExecutor(std::int32_t num_pages)
      : info_{"none", kSyntheticVocabulary, num_pages, 1 << 16, 1 << 24, 0, 0} {}
  const ExecutorInfo& info() const override { return info_; }
  void execute(const StepPlan& plan, StepResult& result) override {
    result.samples.resize(plan.samples.size());
    for (SampleResult& sample : result.samples) sample.token = next;
  }
  TokenId next = kSyntheticWord;

 private:
  const ExecutorInfo info_;
};

double microseconds(Nanoseconds time) {
  return std::chrono::duration<double, std::micro>(time).count();
}

double median(std::vector<double> values) {
  const auto middle = values.begin() + static_cast<std::ptrdiff_t>(values.size() / 2);
  std::nth_element(values.begin(), middle, values.end());
  return *middle;
}

std::size_t bytes_in_use() {
  const struct mallinfo2 info = mallinfo2();
  return info.uordblks + info.hblkhd;
}

// A scheduler over many pages, and the time that its steps take without the executor's.
struct Bench {
  explicit Bench(std::int32_t max_rows) : executor(1 << 18) {
    config.max_rows = max_rows;
    config.max_prefill_tokens = max_rows;
    config.tree = {1 << 24, std::int64_t{1} << 40, {}, 0};
    scheduler.emplace(executor, &dialect, config, clock);
  }

  // Microseconds of one step.
  double step() {
    const Nanoseconds begin = clock.now(), execution = scheduler->counters().execution;
    scheduler->step();
    scheduler->take_events([](RequestId, std::vector<Event>&) {});
    return microseconds(clock.now() - begin - (scheduler->counters().execution - execution));
  }
  // Until `branches` draw in every step.
  void run_up(std::int32_t branches) {
    std::int64_t draws = 0;
    do {
      draws = scheduler->counters().draws;
      step();
    } while (scheduler->counters().draws - draws < branches);
    step();
  }
  // Until the request has forked into so many paths.
  void fork(RequestId id, std::int32_t context, std::int32_t paths) {
    GenerateRequest request;
    request.limits.max_paths = request.limits.max_total_paths = 4096;
    request.prompt = synthetic_plan(context, paths, static_cast<std::int32_t>(id), dialect);
    executor.next = dialect.fork;
    scheduler->add(id, std::move(request));
    while (scheduler->counters().forks == forks) last_step = step();
    forks = scheduler->counters().forks;
    executor.next = kSyntheticWord;
  }

  const Dialect dialect = synthetic_dialect();
  NoExecutor executor;
  const SteadyClock clock;
  SchedulerConfig config;
  std::optional<Scheduler> scheduler;
  std::int64_t forks = 0;
  double last_step = 0.0;
};

enum class Shape { kPaths, kRequests };

double step_time(std::int32_t branches, Shape shape) {
  Bench bench(2048);
  if (shape == Shape::kPaths) {
    bench.fork(1, 2000, branches);
  } else {
    for (std::int32_t id = 1; id <= branches; ++id) {
      GenerateRequest request;
      request.prompt = synthetic_plan(500, 0, id, bench.dialect);
      bench.scheduler->add(static_cast<RequestId>(id), std::move(request));
    }
  }
  bench.run_up(branches);
  std::vector<double> times(400);
  for (double& time : times) time = bench.step();
  return median(std::move(times));
}

void print_step_times() {
  std::printf("plan and commit of a decode step, microseconds (median of 400)\n");
  for (const Shape shape : {Shape::kPaths, Shape::kRequests}) {
    for (const std::int32_t branches : {1, 16, 64, 256, 1024}) {
      const double time = step_time(branches, shape);
      const char* wanted = branches == 64 ? "   wanted <= 50" : branches == 1024 ? "   wanted <= 400" : "";
      std::printf("  %5d %-28s %8.1f   %6.3f a row%s\n", branches,
                  shape == Shape::kPaths ? "paths over 2,000 tokens" : "requests of 500 tokens", time, time / branches,
                  wanted);
    }
  }
}

void print_fork_time() {
  std::vector<double> forking, after;
  Bench bench(2048);
  for (RequestId id = 1; id <= 50; ++id) {
    bench.fork(id, 1000, 100);
    forking.push_back(bench.last_step);
    after.push_back(bench.step());
    bench.scheduler->cancel(id);
    bench.step();
  }
  std::printf("fork into 100 paths, microseconds (median of 50)\n");
  std::printf("  the step that draws the fork %8.1f   wanted <= 200\n", median(std::move(forking)));
  std::printf("  the next, 500 header rows    %8.1f\n", median(std::move(after)));
}

void print_admission_time() {
  std::printf("admission, from the queue to the end of a request of 16 + 1 tokens\n");
  for (const std::int32_t requests : {2'500, 10'000, 40'000}) {
    Bench bench(512);
    for (std::int32_t id = 1; id <= requests; ++id) {
      GenerateRequest request;
      request.prompt = synthetic_plan(16, 0, id, bench.dialect);
      request.max_tokens = 1;
      bench.scheduler->add(static_cast<RequestId>(id), std::move(request));
    }
    double time = 0.0;
    while (!bench.scheduler->idle()) time += bench.step();
    std::printf("  %6d queued %10.1f ms %8.2f microseconds each\n", requests, time / 1000.0, time / requests);
  }
}

void print_memory() {
  constexpr std::int32_t kMany = 1000;
  Bench bench(2048);
  bench.fork(1, 1000, kMany);
  const std::size_t before_requests = bytes_in_use();
  for (std::int32_t id = 2; id < 2 + kMany; ++id) {
    GenerateRequest request;
    request.prompt = synthetic_plan(100, 0, id, bench.dialect);
    bench.scheduler->add(static_cast<RequestId>(id), std::move(request));
  }
  const std::size_t waiting = bytes_in_use() - before_requests;
  bench.run_up(2 * kMany);
  const std::size_t running = bytes_in_use() - before_requests;
  Bench other(2048);
  other.fork(1, 1000, 2);
  other.run_up(2);
  const std::size_t before_paths = bytes_in_use();
  other.scheduler->cancel(1);
  other.step();
  other.fork(2, 1000, kMany);
  other.run_up(kMany);
  const std::size_t paths = bytes_in_use() - before_paths;
  std::printf(
      "memory\n  a request of 100 tokens that waits %8zu bytes, that runs %8zu\n  a path of a running request %15zu\n",
      waiting / kMany, running / kMany, paths / kMany);
}

// What --trace-file costs a step, beside the shortest step that there is: one row of the model that ships.
void print_trace_time() {
  constexpr int kBatches = 500, kSteps = 200;  // a batch writes to the file about once
  constexpr double kShortestStep = 430.0;
  const std::string file =
      (std::filesystem::temp_directory_path() / concat("multiverse_trace_", getpid(), ".json")).string();
  auto trace = StepTrace::open(file, std::int64_t{1} << 30);
  if (!trace.ok()) {
    std::printf("trace: %s\n", trace.error().message.c_str());
    return;
  }
  const SteadyClock clock;
  StepRecord step;
  step.duration = step.execution = std::chrono::microseconds(430);
  step.rows = step.draws = 64;
  step.requests_running = 16;
  step.pages = {10'000, 2'000, 5'000, 3'000, 1'000};
  std::vector<double> times;
  for (int batch = 0; batch < kBatches; ++batch) {
    const Nanoseconds begin = clock.now();
    for (int i = 0; i < kSteps; ++i) {
      step.begin += step.duration;
      trace.value()->add(step);
    }
    times.push_back(microseconds(clock.now() - begin) / kSteps);
  }
  const double time = median(std::move(times));
  trace.value().reset();
  std::filesystem::remove(file);
  std::printf("trace, microseconds a step %26.2f   %.2f %% of a step of %.2f ms, wanted <= 2 %%\n", time,
              100.0 * time / kShortestStep, kShortestStep / 1000.0);
}

}  // namespace

int bench_scheduler(std::span<const std::string_view> args) {
  if (!args.empty()) {
    const bool asked = args[0] == "--help" || args[0] == "-h";
    std::fputs(kHelp, asked ? stdout : stderr);
    return asked ? 0 : 2;
  }
  print_step_times();
  print_fork_time();
  print_admission_time();
  print_memory();
  print_trace_time();
  return 0;
}

}  // namespace multiverse

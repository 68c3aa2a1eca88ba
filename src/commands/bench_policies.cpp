// `multiverse bench policies`: which way of admitting requests and of sharing rows answers the most of them in time, in
// simulation: the real scheduler, recorded answers, and a clock that moves by what a step would take.
#include <algorithm>
#include <cstdio>
#include <limits>
#include <map>
#include <random>
#include <string>
#include <vector>

#include "multiverse/scheduler/scheduler.h"

#include "commands/bench.h"
#include "commands/synthetic_trees.h"

namespace multiverse {
namespace {

constexpr const char* kHelp =
    R"(Usage: multiverse bench policies [--requests N] [--seed N] [--seeds N] [--machine N] [--all-loads]

Simulates a server under Poisson load with answers drawn like recorded ones (a quarter as long, and so is the cache), and
prints for each policy the requests a minute that end within three times the time that they would take alone: least, median
and most of so many seeds (default 5), counted up from --seed. Without --all-loads, the heaviest of each machine's; --machine takes
the first, second or third alone.
)";

constexpr double kScale = 0.25;
constexpr double kInTime = 3.0;

struct Options {
  std::int32_t requests = 200;
  std::uint32_t seed = 1, seeds = 5;
  std::uint32_t machine = 0;  // from 1; 0: all
  bool all_loads = false;
};

// What a step takes: a part for the weights, one for each row, one for each token of context that is read.
struct Machine {
  const char* name;
  std::int32_t pages, rows;
  double step_ms, row_ms, token_ms;
  std::vector<double> loads;  // requests a minute
};

// Multiverse-32B on one H100, from its measured linear layers and read rate. The others' figures are assumed: a smaller
// model whose rows run out before its pages do, and one on a CPU, where every row costs.
const std::vector<Machine>& machines() {
  static const std::vector<Machine> machines = {
      {"32B, 11,400 tokens of cache, 512 rows", 715, 512, 22.9, 0.0156, 8.6e-5, {4, 5, 6}},
      {"4B, 122,000 tokens of cache, 24 rows", 7600, 24, 4.0, 0.01, 4.8e-5, {60, 75, 90}},
      {"10 M on two CPU cores, 11,400 tokens of cache, 64 rows", 715, 64, 0.3, 0.06, 0.0, {150, 200, 250}},
  };
  return machines;
}

struct Policy {
  const char* name;
  RowSharing sharing;
  GrowthReserve reserve;
  Mode mode = Mode::kParallel;
  double stretch = 2.0;  // see PrefillPace
};

const std::vector<Policy>& policies() {
  // The first two are what servers do that know nothing of branches: first come, first served, a page kept free for
  // each request; one without paths at once, one that takes a request's rows as they come.
  static const std::vector<Policy> policies = {
      {"first come, one row each", RowSharing::kOldestFirst, {1, 1, 1, true}, Mode::kSerial},
      {"first come, blind", RowSharing::kOldestFirst, {1, 1, 1, true}},
      {"oldest first", RowSharing::kOldestFirst, {}},
      {"by branches", RowSharing::kByBranches, {}},
      {"least served", RowSharing::kLeastServed, {}},
      {"equal shares", RowSharing::kEqual, {}},
      {"equal, prompts unpaced", RowSharing::kEqual, {}, Mode::kParallel, 0.0},
      {"equal, reserve 1", RowSharing::kEqual, {1, 1, 1}},
      {"equal, reserve 16", RowSharing::kEqual, {16, 16, 1}},
      {"equal, reserve 1 to 32", RowSharing::kEqual, {1, 32, 250}},
  };
  return policies;
}

class VirtualClock final : public Clock {
 public:
  Nanoseconds now() const override { return time; }
  Nanoseconds time{0};
};

Nanoseconds of_ms(double ms) {
  return Nanoseconds{static_cast<std::int64_t>(ms * 1e6)};
}

class SimulatedExecutor final : public Executor {
 public:
  SimulatedExecutor(const Machine& machine, VirtualClock& clock)
      : info_{"simulated", kSyntheticVocabulary, machine.pages, 1 << 14, 1 << 24, 0, 0},
        machine_(machine),
        clock_(clock) {}
  const ExecutorInfo& info() const override { return info_; }
  void execute(const StepPlan& plan, StepResult& result) override {
    double tokens = 0.0;
    for (const AttentionItem& item : plan.items) tokens += item.num_tokens;
    clock_.time +=
        of_ms(machine_.step_ms + machine_.row_ms * static_cast<double>(plan.rows.size()) + machine_.token_ms * tokens);
    result.samples.clear();
    for (const SampleRequest& sample : plan.samples) result.samples.push_back({sample.given, 0.0F, {}});
  }

 private:
  const ExecutorInfo info_;
  const Machine& machine_;
  VirtualClock& clock_;
};

struct Arrival {
  Nanoseconds time{0};
  GenerateRequest request;
  double alone_ms = 0.0;
};

std::vector<Arrival> draw_arrivals(std::uint64_t seed, std::int32_t requests, const Machine& machine, double per_minute,
                                   const Dialect& dialect) {
  std::mt19937_64 random(seed);
  std::exponential_distribution<double> gap(per_minute / 60'000.0);
  std::vector<Arrival> arrivals;
  double ms = 0.0;
  for (std::int32_t i = 0; i < requests; ++i) {
    ms += gap(random);
    Arrival& arrival = arrivals.emplace_back();
    arrival.time = of_ms(ms);
    arrival.request = synthetic_answer(random, kScale, dialect);
    arrival.alone_ms = machine.step_ms * static_cast<double>(arrival.request.recording->statistics().steps + 1);
  }
  return arrivals;
}

struct Outcome {
  double in_time_per_minute = 0.0, ended_per_minute = 0.0, in_time = 0.0;
  double median_slowdown = 0.0, late_slowdown = 0.0;  // time taken ÷ time alone, median and 95th percentile
  std::int64_t preemptions = 0;
  double wasted = 0.0;  // tokens computed again ÷ tokens generated
};

Outcome simulate(const Machine& machine, const Policy& policy, const std::vector<Arrival>& arrivals,
                 const Dialect& dialect) {
  VirtualClock clock;
  SimulatedExecutor executor(machine, clock);
  SchedulerConfig config;
  config.max_rows = machine.rows;
  config.max_prefill_tokens = 256;
  config.prefill_stretch = policy.stretch;
  config.tree = {1 << 24, std::int64_t{machine.pages} * kPageTokens, {}, 0};
  config.sharing = policy.sharing;
  config.reserve = policy.reserve;
  Scheduler scheduler(executor, &dialect, config, clock);
  std::vector<double> slowdowns;
  std::size_t arrived = 0;
  while (arrived < arrivals.size() || !scheduler.idle()) {
    if (scheduler.idle()) clock.time = std::max(clock.time, arrivals[arrived].time);
    while (arrived < arrivals.size() && arrivals[arrived].time <= clock.time) {
      GenerateRequest request = arrivals[arrived].request;
      request.mode = policy.mode;
      scheduler.add(arrived, std::move(request));
      ++arrived;
    }
    scheduler.step();
    scheduler.take_events([&](RequestId id, const std::vector<Event>& events) {
      if (!std::holds_alternative<FinishedEvent>(events.back())) return;
      const Arrival& arrival = arrivals[static_cast<std::size_t>(id)];
      slowdowns.push_back(std::chrono::duration<double, std::milli>(clock.time - arrival.time).count() /
                          arrival.alone_ms);
    });
  }
  const double minutes = std::chrono::duration<double>(clock.time).count() / 60.0;
  std::sort(slowdowns.begin(), slowdowns.end());
  const auto in_time = std::upper_bound(slowdowns.begin(), slowdowns.end(), kInTime) - slowdowns.begin();
  const auto all = static_cast<double>(slowdowns.size());
  Outcome outcome;
  outcome.in_time = static_cast<double>(in_time) / all;
  outcome.in_time_per_minute = static_cast<double>(in_time) / minutes;
  outcome.ended_per_minute = all / minutes;
  outcome.median_slowdown = slowdowns[slowdowns.size() / 2];
  outcome.late_slowdown = slowdowns[slowdowns.size() * 95 / 100];
  outcome.preemptions = scheduler.counters().preemptions;
  outcome.wasted = static_cast<double>(scheduler.counters().preempted_tokens) /
                   static_cast<double>(scheduler.counters().generation_tokens);
  return outcome;
}

Result<Options> parse(std::span<const std::string_view> args) {
  Options options;
  for (std::size_t i = 0; i < args.size(); ++i) {
    if (args[i] == "--all-loads") {
      options.all_loads = true;
      continue;
    }
    if (args[i] != "--requests" && args[i] != "--seed" && args[i] != "--seeds" && args[i] != "--machine") {
      return invalid_argument(concat("unknown option ", args[i], "; see multiverse bench policies --help"));
    }
    if (i + 1 == args.size()) return invalid_argument(concat(args[i], " needs a value"));
    const std::string_view name = args[i];
    const Result<std::size_t> count = count_option(name, args[++i], 100'000);
    if (!count.ok()) return count.error();
    const auto number = static_cast<std::uint32_t>(count.value());
    if (name == "--requests") {
      options.requests = static_cast<std::int32_t>(number);
    } else if (name == "--machine") {
      if (number > machines().size()) return invalid_argument(concat("there are ", machines().size(), " machines"));
      options.machine = number;
    } else {
      (name == "--seed" ? options.seed : options.seeds) = number;
    }
  }
  return options;
}

// Of the outcomes of all seeds.
template <class Value>
Value median_of(const std::vector<Outcome>& outcomes, Value Outcome::*value) {
  std::vector<Value> values;
  values.reserve(outcomes.size());
  for (const Outcome& outcome : outcomes) values.push_back(outcome.*value);
  std::sort(values.begin(), values.end());
  return values[values.size() / 2];
}

void print(const Policy& policy, const std::vector<Outcome>& outcomes) {
  const auto [least, most] = std::minmax_element(
      outcomes.begin(), outcomes.end(),
      [](const Outcome& a, const Outcome& b) { return a.in_time_per_minute < b.in_time_per_minute; });
  std::printf(
      "  %-24s in time %6.2f %6.2f %6.2f a minute (%3.0f %%)  ended %6.2f  slowdown %5.2f, 95th %6.2f  "
      "preempted %4lld  wasted %.2f\n",
      policy.name, least->in_time_per_minute, median_of(outcomes, &Outcome::in_time_per_minute),
      most->in_time_per_minute, median_of(outcomes, &Outcome::in_time) * 100.0,
      median_of(outcomes, &Outcome::ended_per_minute), median_of(outcomes, &Outcome::median_slowdown),
      median_of(outcomes, &Outcome::late_slowdown), static_cast<long long>(median_of(outcomes, &Outcome::preemptions)),
      median_of(outcomes, &Outcome::wasted));
  std::fflush(stdout);
}

void bench_load(const Options& options, const Machine& machine, double load, const Dialect& dialect) {
  std::printf("%s: %.0f a minute\n", machine.name, load);
  std::vector<std::vector<Arrival>> arrivals;
  for (std::uint32_t seed = 0; seed < options.seeds; ++seed) {
    arrivals.push_back(draw_arrivals(options.seed + seed, options.requests, machine, load, dialect));
  }
  for (const Policy& policy : policies()) {
    std::vector<Outcome> outcomes;
    outcomes.reserve(arrivals.size());
    for (const std::vector<Arrival>& drawn : arrivals) outcomes.push_back(simulate(machine, policy, drawn, dialect));
    print(policy, outcomes);
  }
}

Status bench(const Options& options) {
  const Dialect dialect = synthetic_dialect();
  std::printf("%d requests, seeds %u to %u; in time: within %.0f x the time alone; least, median, most\n",
              options.requests, options.seed, options.seed + options.seeds - 1, kInTime);
  for (const Machine& machine : machines()) {
    if (options.machine > 0 && &machine != &machines()[options.machine - 1]) continue;
    for (const double load : machine.loads) {
      if (options.all_loads || load == machine.loads.back()) bench_load(options, machine, load, dialect);
    }
  }
  return ok_status();
}

}  // namespace

int bench_policies(std::span<const std::string_view> args) {
  return run_benchmark("policies", kHelp, args, parse, bench);
}

}  // namespace multiverse

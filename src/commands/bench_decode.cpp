// `multiverse bench decode`: what a decode step takes, beside the floor of the bytes that it must read.
#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <string>
#include <thread>
#include <vector>

#include "multiverse/model/torch_executor.h"
#include "multiverse/scheduler/scheduler.h"

#include "commands/bench.h"
#include "commands/places.h"

namespace multiverse {
namespace {

constexpr const char* kHelp = R"(Usage: multiverse bench decode [options]

Milliseconds a decode step through scheduler and model, beside the floor: the weights and the keys and values that the
step must read (shared ones once), at the read rate that this machine reaches. Without --rows, a table of cases.

  --model DIR      default: the model that ships
  --rows N         branches that decode at once
  --context N      tokens that each sees
  --shared         all rows are paths of one fork over the same context (default: a request each)
  --steps N        steps to measure (default 100)
  --threads N      default: all cores
  --dtype auto|bfloat16|float32
)";

struct Options {
  TorchExecutorOptions executor;
  std::int32_t rows = 0, context = 512, steps = 100;
  bool shared = false;
};

struct Case {
  std::int32_t rows = 1, context = 512;
  bool shared = false;
};

Result<Options> parse(std::span<const std::string_view> args) {
  Options options;
  options.executor.model_dir = shipped_model_dir();
  for (std::size_t i = 0; i < args.size(); ++i) {
    const std::string_view name = args[i];
    if (name == "--shared") {
      options.shared = true;
      continue;
    }
    if (i + 1 == args.size()) return invalid_argument(concat(name, " is unknown or needs a value; see --help"));
    const std::string value(args[++i]);
    const auto number = [&value] {
      return static_cast<std::int32_t>(std::clamp(std::atol(value.c_str()), 0L, 1L << 24));
    };
    if (name == "--model") {
      options.executor.model_dir = value;
    } else if (name == "--dtype") {
      options.executor.dtype = value;
    } else if (name == "--rows") {
      options.rows = number();
    } else if (name == "--context") {
      options.context = number();
    } else if (name == "--steps") {
      options.steps = number();
    } else if (name == "--threads") {
      options.executor.threads = number();
    } else {
      return invalid_argument(concat("unknown option ", name, "; see multiverse bench decode --help"));
    }
  }
  return options;
}

// Bytes a second that all cores read from memory together: the best of several passes over far more than the caches.
double measure_read_rate() {
  const std::size_t words = (256U << 20U) / sizeof(std::uint64_t);
  const std::vector<std::uint64_t> data(words, 1);
  const std::size_t threads = std::max(1U, std::thread::hardware_concurrency());
  double best = 0.0;
  std::vector<std::uint64_t> sums(threads * 8);
  for (int pass = 0; pass < 5; ++pass) {
    const auto begin = std::chrono::steady_clock::now();
    std::vector<std::thread> readers;
    for (std::size_t t = 0; t < threads; ++t) {
      readers.emplace_back([&, t] {
        std::uint64_t sum = 0;
        for (std::size_t i = words * t / threads; i < words * (t + 1) / threads; ++i) sum += data[i];
        sums[t * 8] = sum;
      });
    }
    for (std::thread& reader : readers) reader.join();
    const std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - begin;
    best = std::max(best, static_cast<double>(words * sizeof(std::uint64_t)) / seconds.count());
  }
  CHECK(sums[0] > 0, "the reads were optimised away");
  return best;
}

// Ordinary tokens; those of different requests differ from the first on, so that nothing is shared by chance.
std::vector<TokenId> ordinary_tokens(std::int32_t count, std::int32_t salt, const Dialect* dialect) {
  std::vector<TokenId> tokens;
  for (std::int32_t i = 0; static_cast<std::int32_t>(tokens.size()) < count; ++i) {
    const TokenId token = 40 + (i * 37 + salt * 101) % 200;
    const bool control =
        dialect != nullptr && std::binary_search(dialect->control_tokens.begin(), dialect->control_tokens.end(), token);
    if (!control && token != (dialect != nullptr ? dialect->separator : -1)) tokens.push_back(token);
  }
  return tokens;
}

// A context that ends in a plan of `paths` paths, which the engine forks at once.
std::vector<TokenId> forking_prompt(std::int32_t context, std::int32_t paths, const Dialect& dialect) {
  std::vector<TokenId> plan = {dialect.block_open, dialect.separator, dialect.goal_open};
  for (std::int32_t path = 1; path <= paths; ++path) {
    plan.push_back(dialect.outline_open);
    const std::vector<TokenId> label = dialect.encode(std::to_string(path) + ":");
    plan.insert(plan.end(), label.begin(), label.end());
  }
  plan.push_back(dialect.fork);
  std::vector<TokenId> prompt =
      ordinary_tokens(std::max(1, context - static_cast<std::int32_t>(plan.size())), 0, &dialect);
  prompt.insert(prompt.end(), plan.begin(), plan.end());
  return prompt;
}

class DecodeBench {
 public:
  DecodeBench(Executor& executor, const Dialect* dialect, double read_rate)
      : executor_(executor), dialect_(dialect), read_rate_(read_rate) {}

  // Median milliseconds a step.
  Result<double> run(const Case& wanted, std::int32_t steps) {
    if (wanted.shared && dialect_ == nullptr) return invalid_argument("--shared needs a model with a dialect");
    if (wanted.context + steps + 64 > executor_.info().max_position) {
      return invalid_argument(concat("context ", wanted.context, " and ", steps, " steps exceed the model's ",
                                     executor_.info().max_position, " positions"));
    }
    SchedulerConfig config;
    config.max_rows = executor_.info().max_rows;
    config.max_prefill_tokens = config.max_rows;
    config.tree = {executor_.info().max_position, std::int64_t{1} << 40, {}, 0};
    const SteadyClock clock;
    Scheduler scheduler(executor_, dialect_, config, clock);
    const std::int32_t requests = wanted.shared ? 1 : wanted.rows;
    for (std::int32_t id = 0; id < requests; ++id) scheduler.add(static_cast<RequestId>(id), request(wanted, id));
    while (scheduler.branches_running() < wanted.rows ||
           scheduler.counters().generation_tokens < std::int64_t{2} * wanted.rows) {
      scheduler.step();
      scheduler.take_events([](RequestId, const std::vector<Event>&) {});
      if (scheduler.idle())
        return invalid_argument("the requests ended before they decoded; is the KV pool too small?");
    }
    std::vector<double> milliseconds;
    for (std::int32_t step = 0; step < steps; ++step) {
      const Nanoseconds begin = clock.now();
      scheduler.step();
      milliseconds.push_back(std::chrono::duration<double, std::milli>(clock.now() - begin).count());
      scheduler.take_events([](RequestId, const std::vector<Event>&) {});
    }
    std::sort(milliseconds.begin(), milliseconds.end());
    return milliseconds[milliseconds.size() / 2];
  }

  void print(const Case& measured, double milliseconds) const {
    const ExecutorInfo& info = executor_.info();
    const double token_bytes = static_cast<double>(info.kv_bytes) / (static_cast<double>(info.num_pages) * kPageTokens);
    const double contexts = measured.shared ? 1.0 : measured.rows;
    const double bytes = static_cast<double>(info.weight_bytes) + token_bytes * contexts * measured.context;
    const double floor = bytes / read_rate_ * 1e3;
    std::printf("%5d x %-6d %-7s %9.3f ms a step  %9.0f tokens/s   floor %7.3f ms (%6.1f MB)  x %.2f\n", measured.rows,
                measured.context, measured.shared ? "shared" : "apart", milliseconds,
                measured.rows / milliseconds * 1e3, floor, bytes / 1e6, milliseconds / floor);
  }

 private:
  GenerateRequest request(const Case& wanted, std::int32_t id) const {
    GenerateRequest request;
    request.prompt = wanted.shared ? forking_prompt(wanted.context, wanted.rows, *dialect_)
                                   : ordinary_tokens(wanted.context, id, dialect_);
    request.sampling.temperature = 0.0F;
    request.ignore_eos = true;
    // No structure but the fork that is asked for.
    if (dialect_ != nullptr) {
      for (const TokenId token : dialect_->control_tokens) request.sampling.logit_bias.emplace_back(token, -1e4F);
    }
    return request;
  }

  Executor& executor_;
  const Dialect* dialect_;
  const double read_rate_;
};

Status bench(const Options& options) {
  Result<std::unique_ptr<Executor>> executor = make_torch_executor(options.executor);
  if (!executor.ok()) return executor.error();
  Result<std::shared_ptr<const Tokenizer>> tokenizer = Tokenizer::load(options.executor.model_dir);
  if (!tokenizer.ok()) return tokenizer.error();
  Result<std::optional<Dialect>> dialect = load_dialect("auto", *tokenizer.value());
  if (!dialect.ok()) return dialect.error();
  const double read_rate = measure_read_rate();
  std::printf("weights %.1f MB, KV pool %.1f MB, read ceiling %.1f GB/s (measured)\n",
              static_cast<double>(executor.value()->info().weight_bytes) / 1e6,
              static_cast<double>(executor.value()->info().kv_bytes) / 1e6, read_rate / 1e9);
  DecodeBench decode(*executor.value(), dialect.value() ? &*dialect.value() : nullptr, read_rate);
  std::vector<Case> cases = {{1, 512, false},  {16, 512, false}, {64, 512, false},
                             {1, 3900, false}, {8, 3900, true},  {32, 3900, true}};
  if (options.rows > 0) cases = {{options.rows, options.context, options.shared}};
  for (const Case& wanted : cases) {
    const Result<double> milliseconds = decode.run(wanted, options.steps);
    if (!milliseconds.ok()) return milliseconds.error();
    decode.print(wanted, milliseconds.value());
  }
  return ok_status();
}

}  // namespace

int bench_decode(std::span<const std::string_view> args) {
  if (!args.empty() && (args[0] == "--help" || args[0] == "-h")) {
    std::fputs(kHelp, stdout);
    return 0;
  }
  const Result<Options> options = parse(args);
  if (!options.ok()) {
    std::fprintf(stderr, "multiverse bench decode: %s\n", options.error().message.c_str());
    return 2;
  }
  const Status done = bench(options.value());
  if (done.ok()) return 0;
  std::fprintf(stderr, "multiverse bench decode: %s\n", done.error().message.c_str());
  return 1;
}

}  // namespace multiverse

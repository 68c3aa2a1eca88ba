// `multiverse bench decode`: what a decode step takes, beside the floor of the bytes that it must read.
#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "multiverse/model/torch_executor.h"
#include "multiverse/scheduler/scheduler.h"

#include "commands/bench.h"
#include "commands/bench_floor.h"
#include "commands/places.h"

namespace multiverse {
namespace {

constexpr const char* kHelp = R"(Usage: multiverse bench decode [options]

Milliseconds a decode step through scheduler and model, beside the floor: the greater of what the step must read (weights,
keys and values, shared ones once) at the rate at which this machine reads so many bytes, and what it must multiply at the
rate that it reaches. Without --rows, a table of cases.

  --model DIR      default: the model that ships
  --shape 0.5b|7b|32b   random weights of a Qwen2.5 size, on cuda:0
  --all            with shapes: the cases of docs/performance.md for --shape, or for all three
  --device cpu|cuda:N
  --rows N         branches that decode at once
  --context N      tokens that each sees
  --shared         all rows are paths of one fork over the same context (default: a request each)
  --fork           the step that opens --rows paths over a context already computed, beside a plain one of as many rows
  --deterministic  as serve's
  --steps N        steps to measure (default 100)
  --threads N      default: all cores
  --dtype auto|bfloat16|float32
  --kv-cache-dtype auto|bfloat16|float16|fp8   on a GPU
)";

struct Options {
  TorchExecutorOptions executor;
  std::string shape;
  std::int32_t rows = 0, context = 512, steps = 100;
  bool shared = false, all = false, fork = false;
};

struct Case {
  std::int32_t rows = 1, context = 512;
  bool shared = false;
};

// step, host: medians, in milliseconds a step. host: what a GPU does not work during, so that nothing hides it; 0 on a
// CPU. prefill: milliseconds to the first draw.
struct Times {
  double step = 0.0, host = 0.0, prefill = 0.0;
};

// A step that forks: its median in milliseconds, and its rows.
struct ForkTimes {
  double step = 0.0;
  std::int32_t rows = 0;
};

double median(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  return values[values.size() / 2];
}

double milliseconds_between(Nanoseconds begin, Nanoseconds end) {
  return std::chrono::duration<double, std::milli>(end - begin).count();
}

// Passes all on, and keeps what the last step was.
class WatchedExecutor final : public Executor {
 public:
  explicit WatchedExecutor(Executor& executor) : executor_(executor) {}
  const ExecutorInfo& info() const override { return executor_.info(); }
  void execute(const StepPlan& plan, StepResult& result) override {
    executor_.execute(plan, result);
    device_seconds_ = result.device_seconds;
    rows_ = static_cast<std::int32_t>(plan.rows.size());
  }
  double device_seconds() const { return device_seconds_; }
  std::int32_t rows() const { return rows_; }

 private:
  Executor& executor_;
  double device_seconds_ = 0.0;
  std::int32_t rows_ = 0;
};

// What GPUs are measured with: sizes of models, and for each the work that docs/performance.md compares.
struct Shape {
  const char* name;
  std::vector<Case> cases;
};
const std::vector<Shape>& shapes() {
  static const std::vector<Shape> all = {{"0.5b", {{1, 1000, false}, {64, 512, false}, {64, 8000, true}}},
                                         {"7b",
                                          {{1, 1000, false},
                                           {16, 512, false},
                                           {64, 512, false},
                                           {128, 512, false},
                                           {1, 8000, true},
                                           {8, 8000, true},
                                           {32, 8000, true},
                                           {64, 8000, true}}},
                                         {"32b",
                                          {{1, 1000, false},
                                           {16, 512, false},
                                           {64, 512, false},
                                           {1, 8000, true},
                                           {8, 8000, true},
                                           {32, 8000, true},
                                           {64, 8000, true}}}};
  return all;
}

// Bytes a second that one H100 80GB reads, as measured: the floor's rate for GPUs (docs/performance.md).
constexpr double kGpuReadRate = 3.05e12;

Result<Options> parse(std::span<const std::string_view> args) {
  Options options;
  options.executor.model_dir = shipped_model_dir();
  for (std::size_t i = 0; i < args.size(); ++i) {
    const std::string_view name = args[i];
    if (name == "--shared") {
      options.shared = true;
      continue;
    }
    if (name == "--fork") {
      options.fork = options.shared = true;
      continue;
    }
    if (name == "--all") {
      options.all = true;
      continue;
    }
    if (name == "--deterministic") {
      options.executor.deterministic = true;
      continue;
    }
    if (i + 1 == args.size()) return invalid_argument(concat(name, " is unknown or needs a value; see --help"));
    const std::string value(args[++i]);
    const auto number = [&value] {
      return static_cast<std::int32_t>(std::clamp(std::atol(value.c_str()), 0L, 1L << 24));
    };
    if (name == "--model") {
      options.executor.model_dir = value;
    } else if (name == "--shape") {
      options.shape = value;
    } else if (name == "--device") {
      options.executor.device = value;
    } else if (name == "--dtype") {
      options.executor.dtype = value;
    } else if (name == "--kv-cache-dtype") {
      options.executor.kv_cache_dtype = value;
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
  // flop_rate: of the CPU, for its floor; 0 on a GPU, whose floor is that of reading.
  DecodeBench(Executor& executor, const Dialect* dialect, ModelConfig model, double flop_rate)
      : executor_(executor), dialect_(dialect), model_(std::move(model)), flop_rate_(flop_rate) {}

  Result<Times> run(const Case& wanted, std::int32_t steps) {
    if (wanted.shared && dialect_ == nullptr) return invalid_argument("--shared needs a model with a dialect");
    if (wanted.context + steps + 64 > executor_.info().max_position) {
      return invalid_argument(concat("context ", wanted.context, " and ", steps, " steps exceed the model's ",
                                     executor_.info().max_position, " positions"));
    }
    const SteadyClock clock;
    Scheduler scheduler(executor_, dialect_, scheduler_config(), clock);
    const std::int32_t requests = wanted.shared ? 1 : wanted.rows;
    for (std::int32_t id = 0; id < requests; ++id) scheduler.add(static_cast<RequestId>(id), request(wanted, id));
    // Until each row is a branch that has drawn twice: no prefill is left then.
    std::map<std::pair<RequestId, std::int32_t>, int> draws;
    const auto count_draws = [&draws](RequestId id, const std::vector<Event>& events) {
      for (const Event& event : events) {
        const auto* token = std::get_if<TokenEvent>(&event);
        if (token != nullptr && !token->forced) ++draws[{id, token->branch}];
      }
    };
    const auto decoding = [&draws] {
      return std::count_if(draws.begin(), draws.end(), [](const auto& branch) { return branch.second >= 2; });
    };
    Times times;
    const Nanoseconds begin = clock.now();
    while (decoding() < wanted.rows) {
      scheduler.step();
      const bool first_draw = draws.empty();
      scheduler.take_events(count_draws);
      if (first_draw && !draws.empty()) times.prefill = milliseconds_between(begin, clock.now());
      if (scheduler.idle())
        return invalid_argument("the requests ended before they decoded; is the KV pool too small?");
    }
    std::vector<double> milliseconds, host;
    for (std::int32_t step = 0; step < steps; ++step) {
      const Nanoseconds step_begin = clock.now();
      scheduler.step();
      milliseconds.push_back(milliseconds_between(step_begin, clock.now()));
      const double device = executor_.device_seconds() * 1e3;
      host.push_back(device > 0.0 ? milliseconds.back() - device : 0.0);
      scheduler.take_events([](RequestId, const std::vector<Event>&) {});
    }
    times.step = median(milliseconds);
    times.host = median(host);
    return times;
  }

  // The first is not measured: it computes the context, which the others find in the prefix index.
  Result<ForkTimes> run_forks(const Case& wanted, std::int32_t forks) {
    if (dialect_ == nullptr) return invalid_argument("--fork needs a model with a dialect");
    const SteadyClock clock;
    Scheduler scheduler(executor_, dialect_, scheduler_config(), clock);
    std::vector<double> milliseconds;
    ForkTimes times;
    for (std::int32_t id = 0; id <= forks; ++id) {
      scheduler.add(static_cast<RequestId>(id), request(wanted, 0));
      for (bool drawn = false; !drawn;) {
        const Nanoseconds begin = clock.now();
        scheduler.step();
        const double took = milliseconds_between(begin, clock.now());
        scheduler.take_events([&drawn](RequestId, const std::vector<Event>& events) {
          for (const Event& event : events) {
            const auto* token = std::get_if<TokenEvent>(&event);
            drawn = drawn || (token != nullptr && !token->forced);
          }
        });
        if (drawn && id > 0) milliseconds.push_back(took);
        if (!drawn && scheduler.idle()) return invalid_argument("the request ended before it forked");
      }
      times.rows = executor_.rows();
      scheduler.cancel(static_cast<RequestId>(id));
      scheduler.step();
      scheduler.take_events([](RequestId, const std::vector<Event>&) {});
    }
    times.step = median(milliseconds);
    return times;
  }

  void print(const Case& measured, const Times& times) const {
    const ExecutorInfo& info = executor_.info();
    const double token_bytes = static_cast<double>(info.kv_bytes) / (static_cast<double>(info.num_pages) * kPageTokens);
    const double contexts = measured.shared ? 1.0 : measured.rows;
    const bool gpu = flop_rate_ <= 0.0;
    // A step reads of an embedding of its own only its rows'.
    const double embedding =
        model_.tie_word_embeddings ? 0.0 : 2.0 * static_cast<double>(model_.vocab_size * model_.hidden_size);
    const double bytes =
        static_cast<double>(info.weight_bytes) - (gpu ? embedding : 0.0) + token_bytes * contexts * measured.context;
    const double read = bytes / (gpu ? kGpuReadRate : measure_read_rate(bytes)) * 1e3;
    const double multiply = gpu ? 0.0 : measured.rows * row_flops(model_, measured.context) / flop_rate_ * 1e3;
    const double floor = std::max(read, multiply);
    std::printf(
        "%5d x %-5d %-7s %8.3f ms a step %7.0f tokens/s   floor %6.3f ms (read %.1f MB %.3f, multiply %.3f)  x %.2f",
        measured.rows, measured.context, measured.shared ? "shared" : "apart", times.step,
        measured.rows / times.step * 1e3, floor, bytes / 1e6, read, multiply, times.step / floor);
    if (gpu) std::printf("   host %.3f ms", times.host);
    if (measured.shared) {
      const double flops = measured.context * layer_flops(model_, measured.context / 2.0);
      std::printf("   prefill %.1f ms (%.1f TFLOP/s)", times.prefill, flops / times.prefill / 1e9);
    }
    std::printf("\n");
  }

 private:
  SchedulerConfig scheduler_config() const {
    SchedulerConfig config;
    config.max_rows = executor_.info().max_rows;
    config.max_prefill_tokens = config.max_rows;
    config.tree = {executor_.info().max_position, std::int64_t{1} << 40, {}, 0};
    return config;
  }

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

  WatchedExecutor executor_;
  const Dialect* dialect_;
  const ModelConfig model_;
  const double flop_rate_;
};

// Forks over a computed context, and plain steps of as many rows over the same.
Status bench_forks(DecodeBench& decode, const Case& wanted, std::int32_t steps) {
  const Result<ForkTimes> fork = decode.run_forks(wanted, std::min(steps, 30));
  if (!fork.ok()) return fork.error();
  const Result<Times> plain = decode.run({fork.value().rows, wanted.context, true}, steps);
  if (!plain.ok()) return plain.error();
  std::printf("a fork into %d paths over %d tokens: %d rows, %.3f ms; a plain step of %d rows %.3f ms   x %.3f\n",
              wanted.rows, wanted.context, fork.value().rows, fork.value().step, fork.value().rows, plain.value().step,
              fork.value().step / plain.value().step);
  std::fflush(stdout);
  return ok_status();
}

// The tokenizer is that of the shipped model where the measured one has none.
Status bench_model(const Options& options, const std::string& texts_dir, const std::vector<Case>& cases) {
  const SteadyClock clock;
  const Nanoseconds begin = clock.now();
  Result<std::unique_ptr<Executor>> executor = make_torch_executor(options.executor);
  if (!executor.ok()) return executor.error();
  Result<std::shared_ptr<const Tokenizer>> tokenizer = Tokenizer::load(texts_dir);
  if (!tokenizer.ok()) return tokenizer.error();
  Result<std::optional<Dialect>> dialect = load_dialect("auto", *tokenizer.value());
  if (!dialect.ok()) return dialect.error();
  Result<ModelConfig> model = ModelConfig::load(options.executor.model_dir);
  if (!model.ok()) return model.error();
  const double flop_rate = options.executor.device == "cpu" ? measure_flop_rate() : 0.0;
  std::printf("%s: loaded in %.1f s, weights %.1f MB, KV pool %.1f MB\n", options.executor.model_dir.c_str(),
              milliseconds_between(begin, clock.now()) / 1e3,
              static_cast<double>(executor.value()->info().weight_bytes) / 1e6,
              static_cast<double>(executor.value()->info().kv_bytes) / 1e6);
  if (flop_rate > 0.0) std::printf("measured ceiling %.0f GFLOP/s\n", flop_rate / 1e9);
  DecodeBench decode(*executor.value(), dialect.value() ? &*dialect.value() : nullptr, model.value(), flop_rate);
  for (const Case& wanted : cases) {
    if (options.fork) {
      if (Status done = bench_forks(decode, wanted, options.steps); !done.ok()) return done;
      continue;
    }
    const Result<Times> times = decode.run(wanted, options.steps);
    if (!times.ok()) return times.error();
    decode.print(wanted, times.value());
    std::fflush(stdout);
  }
  return ok_status();
}

Status bench_shapes(Options options) {
  options.executor.random_weights = true;
  if (options.executor.device == "cpu") options.executor.device = "cuda:0";
  bool known = options.shape.empty();
  for (const Shape& shape : shapes()) {
    if (!options.shape.empty() && options.shape != shape.name) continue;
    known = true;
    options.executor.model_dir = concat(checkout_dir(), "/configs/shapes/", shape.name);
    const std::vector<Case> one = {{options.rows, options.context, options.shared}};
    Status done = bench_model(options, shipped_model_dir(), options.rows > 0 ? one : shape.cases);
    if (!done.ok()) return done;
  }
  if (!known) return invalid_argument(concat("shape is '", options.shape, "'; known: 0.5b, 7b, 32b"), "shape");
  return ok_status();
}

Status bench(const Options& options) {
  if (options.all || !options.shape.empty()) return bench_shapes(options);
  std::vector<Case> cases = {{1, 512, false},  {16, 512, false}, {64, 512, false},
                             {1, 3900, false}, {8, 3900, true},  {32, 3900, true}};
  if (options.rows > 0) cases = {{options.rows, options.context, options.shared}};
  return bench_model(options, options.executor.model_dir, cases);
}

}  // namespace

int bench_decode(std::span<const std::string_view> args) {
  return run_benchmark("decode", kHelp, args, parse, bench);
}

}  // namespace multiverse

// `multiverse bench prefill`: what a long prompt does to the streams that run beside it, through the real engine.
#include <algorithm>
#include <atomic>
#include <charconv>
#include <chrono>
#include <cstdio>
#include <memory>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "multiverse/engine/engine.h"
#include "multiverse/model/torch_executor.h"

#include "commands/bench.h"
#include "commands/places.h"

namespace multiverse {
namespace {

constexpr const char* kHelp = R"(Usage: multiverse bench prefill [options]

Streams that decode, first alone, then beside one long prompt: the time between a stream's tokens as its reader sees it,
median and 99th percentile, and the second beside the first. By how far the prompt was, since each of its tokens costs more
the more stand before it.

  --model DIR      default: the tiny shape with 131,072 positions and random weights (configs/shapes/tiny-long)
  --streams N      default 16
  --context N      tokens of each stream's prompt (default 512)
  --prompt N       tokens of the long one (default 100000)
  --head N         of these, computed before the streams begin (default 0)
  --seconds N      that the long prompt may take (default 120); what is left then is told
  --stretch X      prefill_stretch of the engine (default 2; 0: none)
  --threads N      default: all cores
)";

constexpr std::int64_t kCacheBytes = std::int64_t{3} << 29;
constexpr std::int64_t kDepths = 5;  // lines of the table

struct Options {
  TorchExecutorOptions executor;
  std::int32_t streams = 16, context = 512, prompt = 100'000, head = 0, seconds = 120, stretch = 2;
};

Result<Options> parse(std::span<const std::string_view> args) {
  Options options;
  options.executor.model_dir = concat(checkout_dir(), "/configs/shapes/tiny-long");
  options.executor.random_weights = true;
  options.executor.kv_cache_bytes = kCacheBytes;
  const std::pair<std::string_view, std::int32_t*> numbers[] = {
      {"--streams", &options.streams},         {"--context", &options.context},
      {"--prompt", &options.prompt},           {"--head", &options.head},
      {"--seconds", &options.seconds},         {"--stretch", &options.stretch},
      {"--threads", &options.executor.threads}};
  for (std::size_t i = 0; i < args.size(); i += 2) {
    const auto known = std::find_if(std::begin(numbers), std::end(numbers),
                                    [&](const auto& number) { return number.first == args[i]; });
    if (known == std::end(numbers) && args[i] != "--model") {
      return invalid_argument(concat("unknown option ", args[i], "; see multiverse bench prefill --help"));
    }
    if (i + 1 == args.size()) return invalid_argument(concat(args[i], " needs a value"));
    const std::string_view value = args[i + 1];
    if (args[i] == "--model") {
      options.executor.model_dir = value;
      options.executor.random_weights = false;
      continue;
    }
    constexpr std::int32_t kMost = 10'000'000;
    std::int32_t& number = *known->second;
    const auto [end, error] = std::from_chars(value.data(), value.data() + value.size(), number);
    if (error != std::errc() || end != value.data() + value.size() || number < 0 || number > kMost) {
      return invalid_argument(concat(args[i], " is '", value, "'; it takes a number from 0 to ", kMost));
    }
  }
  if (options.streams < 1 || options.context < 1 || options.prompt < 1 || options.head >= options.prompt) {
    return invalid_argument("--streams, --context and --prompt are at least 1, --head is less than --prompt");
  }
  return options;
}

using SteadyTime = std::chrono::steady_clock::time_point;

struct Gap {
  double ms = 0.0;
  std::int64_t prompt_tokens = 0;  // of the long prompt that were computed when it ended
};

// Prompt tokens computed so far: rows that drew nothing. Right to a step, which is enough to tell depths apart.
std::int64_t prompt_rows(const EngineStats& stats) {
  return static_cast<std::int64_t>(stats.step_rows.sum) - stats.generation_tokens_total;
}

// A stream's reader, on a thread of its own: the time between two tokens.
class Reader {
 public:
  Reader(const Engine& engine, std::unique_ptr<RequestStream> stream)
      : engine_(engine), stream_(std::move(stream)), thread_([this] { read(); }) {}
  ~Reader() {
    stop_ = true;
    thread_.join();
  }
  std::int64_t tokens() const { return tokens_; }
  // Gaps that end from now on are kept.
  void start(std::vector<Gap>& gaps) { gaps_ = &gaps; }
  void pause() { gaps_ = nullptr; }

 private:
  void read() {
    std::vector<Event> events;
    SteadyTime last = std::chrono::steady_clock::now();
    while (!stop_ && stream_->wait(std::chrono::milliseconds(100), events)) {
      const bool token = std::any_of(events.begin(), events.end(),
                                     [](const Event& event) { return std::holds_alternative<TokenEvent>(event); });
      events.clear();
      if (!token) continue;
      const SteadyTime now = std::chrono::steady_clock::now();
      if (std::vector<Gap>* gaps = gaps_; gaps != nullptr && tokens_ > 0) {
        gaps->push_back({std::chrono::duration<double, std::milli>(now - last).count(), prompt_rows(engine_.stats())});
      }
      last = now;
      ++tokens_;
    }
  }

  const Engine& engine_;
  const std::unique_ptr<RequestStream> stream_;
  std::atomic<std::vector<Gap>*> gaps_ = nullptr;  // this thread's alone to write while set
  std::atomic<std::int64_t> tokens_ = 0;
  std::atomic<bool> stop_ = false;
  std::thread thread_;  // last: it uses all of the above
};

GenerateRequest request_of(std::int32_t tokens, std::int32_t salt, std::int32_t max_tokens, std::int32_t vocabulary) {
  GenerateRequest request;
  for (std::int32_t i = 0; i < tokens; ++i)
    request.prompt.push_back((i * 37 + salt * 101 + i / 256) % (vocabulary / 2));
  request.sampling.temperature = 0.0F;
  request.max_tokens = max_tokens;
  request.ignore_eos = true;
  return request;
}

// Until the request's first token, or the time is over; whether it came.
bool await_token(RequestStream& stream, std::int32_t seconds) {
  const SteadyTime until = std::chrono::steady_clock::now() + std::chrono::seconds(seconds);
  std::vector<Event> events;
  while (std::chrono::steady_clock::now() < until) {
    if (!stream.wait(std::chrono::milliseconds(100), events)) return true;
    for (const Event& event : events) {
      if (std::holds_alternative<TokenEvent>(event)) return true;
    }
    events.clear();
  }
  return false;
}

double quantile(std::vector<double> values, double share) {
  if (values.empty()) return 0.0;
  const auto index = std::min(values.size() - 1, static_cast<std::size_t>(share * static_cast<double>(values.size())));
  std::nth_element(values.begin(), values.begin() + static_cast<std::ptrdiff_t>(index), values.end());
  return values[index];
}

void print(const std::string& what, const std::vector<double>& gaps, double quiet_p99) {
  const double p99 = quantile(gaps, 0.99);
  std::printf("  %-34s %7zu gaps   median %8.2f ms   p99 %8.2f ms", what.c_str(), gaps.size(), quantile(gaps, 0.5),
              p99);
  if (quiet_p99 > 0.0) std::printf("   x %.2f   wanted <= 2", p99 / quiet_p99);
  std::puts("");
  std::fflush(stdout);
}

class PrefillBench {
 public:
  PrefillBench(Engine& engine, const Options& options) : engine_(engine), options_(options) {}

  Status run() {
    if (Status done = compute_head(); !done.ok()) return done;
    const std::int64_t rest = options_.prompt - options_.head;
    std::vector<std::vector<Gap>> quiet(streams()), beside(streams());
    if (Status done = start_readers(); !done.ok()) return done;
    std::printf("%d streams over %d tokens each\n", options_.streams, options_.context);
    collect(quiet, [] { std::this_thread::sleep_for(std::chrono::seconds(5)); });
    std::vector<double> gaps;
    for (const auto& stream : quiet) {
      for (const Gap& gap : stream) gaps.push_back(gap.ms);
    }
    const double quiet_p99 = quantile(gaps, 0.99);
    print("alone", gaps, 0.0);
    const std::int64_t before = prompt_rows(engine_.stats());
    auto prompt = engine_.submit(request_of(options_.prompt, 0, 1, engine_.executor_info().vocab_size));
    if (!prompt.ok()) return prompt.error();
    const SteadyTime begin = std::chrono::steady_clock::now();
    bool done = false;
    collect(beside, [&] { done = await_token(*prompt.value(), options_.seconds); });
    const std::chrono::duration<double> took = std::chrono::steady_clock::now() - begin;
    const std::int64_t computed = done ? rest : prompt_rows(engine_.stats()) - before;
    print_depths(beside, before, computed, quiet_p99);
    std::printf("  %lld of %lld prompt tokens in %.1f s%s\n", static_cast<long long>(computed),
                static_cast<long long>(rest), took.count(), done ? "" : "; the time was over");
    return ok_status();
  }

 private:
  std::size_t streams() const { return static_cast<std::size_t>(options_.streams); }

  Status compute_head() {
    if (options_.head == 0) return ok_status();
    auto head = engine_.submit(request_of(options_.head, 0, 1, engine_.executor_info().vocab_size));
    if (!head.ok()) return head.error();
    const SteadyTime begin = std::chrono::steady_clock::now();
    await_token(*head.value(), std::numeric_limits<std::int32_t>::max());
    const std::chrono::duration<double> took = std::chrono::steady_clock::now() - begin;
    std::printf("the first %d tokens of the prompt, with nothing beside: %.1f s\n", options_.head, took.count());
    return ok_status();
  }

  Status start_readers() {
    const std::int32_t most = engine_.config().max_model_len - options_.context - 1;
    for (std::int32_t stream = 1; stream <= options_.streams; ++stream) {
      auto started = engine_.submit(request_of(options_.context, stream, most, engine_.executor_info().vocab_size));
      if (!started.ok()) return started.error();
      readers_.push_back(std::make_unique<Reader>(engine_, std::move(started).value()));
    }
    // Past their prompts.
    const auto decodes = [](const auto& reader) { return reader->tokens() > 20; };
    while (!std::all_of(readers_.begin(), readers_.end(), decodes)) {
      std::this_thread::sleep_for(std::chrono::milliseconds(10));
    }
    return ok_status();
  }

  template <class Work>
  void collect(std::vector<std::vector<Gap>>& gaps, const Work& work) {
    for (std::size_t i = 0; i < readers_.size(); ++i) readers_[i]->start(gaps[i]);
    work();
    for (const auto& reader : readers_) reader->pause();
    // A reader that was just adding a gap has done so by its next token.
    for (const auto& reader : readers_) {
      const std::int64_t tokens = reader->tokens();
      while (reader->tokens() == tokens) std::this_thread::sleep_for(std::chrono::milliseconds(1));
    }
  }

  void print_depths(const std::vector<std::vector<Gap>>& beside, std::int64_t before, std::int64_t computed,
                    double quiet_p99) const {
    std::vector<double> all;
    std::vector<std::vector<double>> by_depth(kDepths);
    const std::int64_t part = std::max<std::int64_t>(1, (computed + kDepths - 1) / kDepths);
    for (const auto& stream : beside) {
      for (const Gap& gap : stream) {
        all.push_back(gap.ms);
        const std::int64_t depth = std::clamp<std::int64_t>((gap.prompt_tokens - before) / part, 0, kDepths - 1);
        by_depth[static_cast<std::size_t>(depth)].push_back(gap.ms);
      }
    }
    print("beside the prompt", all, quiet_p99);
    for (std::int64_t depth = 0; depth < kDepths; ++depth) {
      print(concat("  its tokens ", options_.head + depth * part, " to ", options_.head + (depth + 1) * part),
            by_depth[static_cast<std::size_t>(depth)], quiet_p99);
    }
  }

  Engine& engine_;
  const Options& options_;
  std::vector<std::unique_ptr<Reader>> readers_;
};

Status bench(const Options& options) {
  auto executor = make_torch_executor(options.executor);
  if (!executor.ok()) return executor.error();
  EngineConfig config;
  config.prefill_stretch = options.stretch;
  const std::unique_ptr<Engine> engine = Engine::start(std::move(executor).value(), std::nullopt, config);
  return PrefillBench(*engine, options).run();
}

}  // namespace

int bench_prefill(std::span<const std::string_view> args) {
  return run_benchmark("prefill", kHelp, args, parse, bench);
}

}  // namespace multiverse

// `multiverse bench prefill`: what a long prompt does to the streams that run beside it, through the real engine.
#include <algorithm>
#include <atomic>
#include <charconv>
#include <chrono>
#include <condition_variable>
#include <cstdio>
#include <limits>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "multiverse/engine/engine.h"
#include "multiverse/engine/step_trace.h"
#include "multiverse/model/torch_executor.h"

#include "commands/bench.h"
#include "commands/places.h"

namespace multiverse {
namespace {

constexpr const char* kHelp = R"(Usage: multiverse bench prefill [options]

Streams that decode, alone and beside one long prompt, in turns: the time between a stream's tokens as its reader sees it,
median and 99th percentile, and the second beside the first. Each turn begins with new streams and ends when each of them
has so many tokens, so the streams' own contexts are the same in both. The prompt goes on in each turn where the one
before left it (its pages are found again): each of its tokens costs more the more stand before it.

  --model DIR      default: the tiny shape with 131,072 positions and random weights (configs/shapes/tiny-long)
  --streams N      default 16
  --context N      tokens of each stream's prompt (default 512)
  --tokens N       that each stream draws in a turn (default 200)
  --rounds N       of two turns each (default 8)
  --prompt N       tokens of the long one (default 100000)
  --head N         of these, computed before the streams begin (default 0)
  --stretch X      prefill_stretch of the engine (default 2; 0: none)
  --threads N      default: all cores
  --trace FILE     writes each step, as `multiverse serve --trace-file` does
)";

constexpr std::int64_t kCacheBytes = std::int64_t{3} << 29;
constexpr std::int64_t kTraceBytes = std::int64_t{1} << 30;
constexpr std::int32_t kWarmTokens = 8;  // of each stream, before a turn's gaps count

struct Options {
  TorchExecutorOptions executor;
  std::int32_t streams = 16, context = 512, tokens = 200, rounds = 8, prompt = 100'000, head = 0, stretch = 2;
  std::string trace;
};

Result<Options> parse(std::span<const std::string_view> args) {
  Options options;
  options.executor.model_dir = concat(checkout_dir(), "/configs/shapes/tiny-long");
  options.executor.random_weights = true;
  options.executor.kv_cache_bytes = kCacheBytes;
  const std::pair<std::string_view, std::int32_t*> numbers[] = {
      {"--streams", &options.streams}, {"--context", &options.context},         {"--tokens", &options.tokens},
      {"--rounds", &options.rounds},   {"--prompt", &options.prompt},           {"--head", &options.head},
      {"--stretch", &options.stretch}, {"--threads", &options.executor.threads}};
  for (std::size_t i = 0; i < args.size(); i += 2) {
    const auto known = std::find_if(std::begin(numbers), std::end(numbers),
                                    [&](const auto& number) { return number.first == args[i]; });
    if (known == std::end(numbers) && args[i] != "--model" && args[i] != "--trace") {
      return invalid_argument(concat("unknown option ", args[i], "; see multiverse bench prefill --help"));
    }
    if (i + 1 == args.size()) return invalid_argument(concat(args[i], " needs a value"));
    const std::string_view value = args[i + 1];
    if (args[i] == "--trace") {
      options.trace = value;
      continue;
    }
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
  const std::int32_t least =
      std::min({options.streams, options.context, options.tokens, options.rounds, options.prompt});
  if (least < 1 || options.head >= options.prompt) {
    return invalid_argument(
        "--streams, --context, --tokens, --rounds and --prompt are at least 1, --head is less than --prompt");
  }
  return options;
}

using SteadyTime = std::chrono::steady_clock::time_point;

GenerateRequest request_of(std::int32_t tokens, std::int32_t salt, std::int32_t max_tokens, std::int32_t vocabulary) {
  GenerateRequest request;
  for (std::int32_t i = 0; i < tokens; ++i)
    request.prompt.push_back((i * 37 + salt * 101 + i / 256) % (vocabulary / 2));
  request.sampling.temperature = 0.0F;
  request.max_tokens = max_tokens;
  request.ignore_eos = true;
  return request;
}

// The streams of one turn, and a thread that reads them all, as the server's DeliveryLoop does.
class Readers {
 public:
  explicit Readers(std::vector<std::unique_ptr<RequestStream>> streams) : streams_(streams.size()) {
    for (std::size_t i = 0; i < streams.size(); ++i) {
      streams_[i].events = std::move(streams[i]);
      streams_[i].events->notify([this, i] {
        const std::lock_guard lock(mutex_);
        ready_.push_back(i);
        wake_.notify_one();
      });
    }
    thread_ = std::thread([this] { read(); });
  }
  ~Readers() {
    {
      const std::lock_guard lock(mutex_);
      stop_ = true;
      wake_.notify_one();
    }
    thread_.join();
    for (Stream& stream : streams_) stream.events->notify({});
  }
  // Until each stream has drawn so many tokens.
  void await_tokens(std::int64_t tokens) const {
    const auto has = [&](const Stream& stream) { return stream.tokens >= tokens; };
    while (!std::all_of(streams_.begin(), streams_.end(), has)) {
      std::this_thread::sleep_for(std::chrono::milliseconds(2));
    }
  }
  // The gaps, in milliseconds, of each stream's next `most` tokens.
  void start(std::int32_t most) { most_ = most; }
  bool done() const {
    const auto enough = [&](const Stream& stream) { return stream.counted >= most_; };
    return std::all_of(streams_.begin(), streams_.end(), enough);
  }
  std::vector<double> gaps() const {  // once done()
    std::vector<double> all;
    for (const Stream& stream : streams_) all.insert(all.end(), stream.gaps.begin(), stream.gaps.end());
    return all;
  }

 private:
  struct Stream {
    std::unique_ptr<RequestStream> events;
    SteadyTime last;
    std::vector<double> gaps;               // the reader's until `counted` is all
    std::atomic<std::int64_t> counted = 0;  // gaps
    std::atomic<std::int64_t> tokens = 0;
  };

  void read() {
    std::vector<std::size_t> ready;
    for (;;) {
      {
        std::unique_lock lock(mutex_);
        wake_.wait(lock, [this] { return stop_ || !ready_.empty(); });
        if (stop_) return;
        ready.swap(ready_);
      }
      for (const std::size_t i : ready) read(streams_[i]);
      ready.clear();
    }
  }
  void read(Stream& stream) {
    events_.clear();
    stream.events->wait(Nanoseconds{0}, events_);
    const bool token = std::any_of(events_.begin(), events_.end(),
                                   [](const Event& event) { return std::holds_alternative<TokenEvent>(event); });
    if (!token) return;
    const SteadyTime now = std::chrono::steady_clock::now();
    if (stream.tokens > 0 && stream.counted < most_) {
      stream.gaps.push_back(std::chrono::duration<double, std::milli>(now - stream.last).count());
      ++stream.counted;
    }
    stream.last = now;
    ++stream.tokens;
  }

  std::vector<Stream> streams_;
  std::atomic<std::int64_t> most_ = 0;
  std::mutex mutex_;
  std::condition_variable wake_;
  std::vector<std::size_t> ready_;  // streams with events
  bool stop_ = false;
  std::vector<Event> events_;  // the thread's
  std::thread thread_;
};

double quantile(std::vector<double> values, double share) {
  if (values.empty()) return 0.0;
  const auto index = std::min(values.size() - 1, static_cast<std::size_t>(share * static_cast<double>(values.size())));
  std::nth_element(values.begin(), values.begin() + static_cast<std::ptrdiff_t>(index), values.end());
  return values[index];
}

void print(const std::string& what, const std::vector<double>& alone, const std::vector<double>& beside,
           double tokens_a_second) {
  const auto median = [](const std::vector<double>& gaps) { return quantile(gaps, 0.5); };
  const auto p99 = [](const std::vector<double>& gaps) { return quantile(gaps, 0.99); };
  std::printf("  %-24s alone %7.2f, %7.2f ms   beside %7.2f, %7.2f ms   x %.2f, %.2f   %6.0f tokens/s\n", what.c_str(),
              median(alone), p99(alone), median(beside), p99(beside), median(beside) / median(alone),
              p99(beside) / p99(alone), tokens_a_second);
  std::fflush(stdout);
}

class PrefillBench {
 public:
  PrefillBench(Engine& engine, const Options& options) : engine_(engine), options_(options) {}

  Status run() {
    if (Status done = compute_head(); !done.ok()) return done;
    std::printf("%d streams over %d to %d tokens each; medians, 99th percentiles; wanted: at most x 2\n",
                options_.streams, options_.context, options_.context + options_.tokens);
    std::vector<double> alone, beside;
    const std::int64_t begin = progress_;
    for (std::int32_t round = 0; round < options_.rounds && progress_ < options_.prompt; ++round) {
      auto quiet = turn(false);
      if (!quiet.ok()) return quiet.error();
      const std::int64_t before = progress_;
      const double seconds = seconds_;
      auto busy = turn(true);
      if (!busy.ok()) return busy.error();
      print(concat("its tokens ", before, " to ", progress_), quiet.value(), busy.value(),
            static_cast<double>(progress_ - before) / (seconds_ - seconds));
      alone.insert(alone.end(), quiet.value().begin(), quiet.value().end());
      beside.insert(beside.end(), busy.value().begin(), busy.value().end());
    }
    print("all", alone, beside, static_cast<double>(progress_ - begin) / seconds_);
    return ok_status();
  }

 private:
  Status compute_head() {
    if (options_.head == 0) return ok_status();
    auto head = engine_.submit(request_of(options_.head, 0, 1, engine_.executor_info().vocab_size));
    if (!head.ok()) return head.error();
    const SteadyTime begin = std::chrono::steady_clock::now();
    std::vector<Event> events;
    while (head.value()->wait(std::chrono::seconds(1), events)) events.clear();
    const std::chrono::duration<double> took = std::chrono::steady_clock::now() - begin;
    std::printf("the first %d tokens of the prompt, with nothing beside: %.1f s\n", options_.head, took.count());
    progress_ = options_.head;
    return ok_status();
  }

  // The streams' gaps.
  Result<std::vector<double>> turn(bool with_prompt) {
    std::vector<std::unique_ptr<RequestStream>> streams;
    const std::int32_t vocabulary = engine_.executor_info().vocab_size;
    for (std::int32_t stream = 1; stream <= options_.streams; ++stream) {
      // More tokens than a turn counts: none ends before the last has them.
      auto started = engine_.submit(request_of(options_.context, stream, 2 * options_.tokens + 1000, vocabulary));
      if (!started.ok()) return started.error();
      streams.push_back(std::move(started).value());
    }
    Readers readers(std::move(streams));
    readers.await_tokens(kWarmTokens);
    const std::int64_t before = prompt_rows();
    std::unique_ptr<RequestStream> prompt;
    if (with_prompt) {
      auto started = engine_.submit(request_of(options_.prompt, 0, 1, vocabulary));
      if (!started.ok()) return started.error();
      prompt = std::move(started).value();
    }
    const SteadyTime begin = std::chrono::steady_clock::now();
    readers.start(options_.tokens);
    std::vector<Event> events;
    bool ended = false;
    while (!readers.done()) {
      std::this_thread::sleep_for(std::chrono::milliseconds(2));
      ended = ended || (prompt != nullptr && !prompt->wait(Nanoseconds{0}, events));
    }
    if (with_prompt) {
      seconds_ += std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
      progress_ = ended ? options_.prompt : progress_ + prompt_rows() - before;
    }
    return readers.gaps();
  }

  // Prompt tokens computed so far: rows that drew nothing. Right to a step.
  std::int64_t prompt_rows() const {
    const EngineStats stats = engine_.stats();
    return static_cast<std::int64_t>(stats.step_rows.sum) - stats.generation_tokens_total;
  }

  Engine& engine_;
  const Options& options_;
  std::int64_t progress_ = 0;  // tokens of the long prompt that are computed
  double seconds_ = 0.0;       // of turns with it
};

Status bench(const Options& options) {
  auto executor = make_torch_executor(options.executor);
  if (!executor.ok()) return executor.error();
  EngineConfig config;
  config.prefill_stretch = options.stretch;
  if (!options.trace.empty()) {
    auto trace = StepTrace::open(options.trace, kTraceBytes);
    if (!trace.ok()) return trace.error();
    config.trace = std::move(trace).value();
  }
  const std::unique_ptr<Engine> engine = Engine::start(std::move(executor).value(), std::nullopt, config);
  return PrefillBench(*engine, options).run();
}

}  // namespace

int bench_prefill(std::span<const std::string_view> args) {
  return run_benchmark("prefill", kHelp, args, parse, bench);
}

}  // namespace multiverse

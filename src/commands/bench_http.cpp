// `multiverse bench http`: what the HTTP side costs and adds, above an engine that only pretends.
#include <sys/resource.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <ctime>
#include <limits>
#include <string>
#include <vector>

#include "multiverse/base/log.h"
#include "multiverse/http/server.h"

#include "commands/bench.h"
#include "commands/load_client.h"
#include "commands/places.h"
#include "commands/serving.h"
#include "commands/simulated_engine.h"

namespace multiverse {
namespace {

using std::chrono::milliseconds;
using std::chrono::steady_clock;

constexpr const char* kHelp = R"(Usage: multiverse bench http [options]

What the HTTP side adds to an engine that pretends, server and client in one process on this machine's cores:
  streams    from the engine's token to the client's bytes; processor time a token, the server's and the client's
  overhead   a request of many prompt tokens, from its bytes sent to its answer
  rejection  answers "queue full" for each second of a core that the server spends
  idle       /readyz beside idle connections
Each line has the figure beside the one wanted (of an otherwise idle machine with 2 cores).

  --model DIR   default: the model that ships
  --streams N   default 2000
  --rate N      tokens a second of each stream (default 20)
  --seconds N   of streaming, and of rejecting (default 5)
  --tokens N    prompt tokens of a request in the overhead part (default 4000)
  --idle N      idle connections (default 10000)
)";

struct Options {
  std::string model_dir = shipped_model_dir();
  std::size_t streams = 2000, rate = 20, seconds = 5, tokens = 4000, idle = 10000;
};

Result<Options> parse(std::span<const std::string_view> args) {
  Options options;
  const std::pair<std::string_view, std::size_t*> numbers[] = {{"--streams", &options.streams},
                                                               {"--rate", &options.rate},
                                                               {"--seconds", &options.seconds},
                                                               {"--tokens", &options.tokens},
                                                               {"--idle", &options.idle}};
  for (std::size_t i = 0; i < args.size(); ++i) {
    const std::string_view name = args[i];
    const auto* number =
        std::find_if(std::begin(numbers), std::end(numbers), [&](const auto& entry) { return entry.first == name; });
    if (name != "--model" && number == std::end(numbers)) {
      return invalid_argument(concat("unknown option ", name, "; see multiverse bench http --help"));
    }
    if (++i == args.size()) return invalid_argument(concat(name, " needs a value"));
    if (name == "--model") {
      options.model_dir = args[i];
      continue;
    }
    constexpr std::size_t kMost = 100'000;
    const Result<std::size_t> count = count_option(name, args[i], kMost);
    if (!count.ok()) return count.error();
    *number->second = count.value();
  }
  return options;
}

double milliseconds_since(std::int64_t nanoseconds) {
  return static_cast<double>(steady_clock::now().time_since_epoch().count() - nanoseconds) * 1e-6;
}

double at(std::vector<double>& values, double share) {
  if (values.empty()) return 0.0;
  const auto place = std::min(values.size() - 1, static_cast<std::size_t>(share * static_cast<double>(values.size())));
  std::nth_element(values.begin(), values.begin() + static_cast<std::ptrdiff_t>(place), values.end());
  return values[place];
}

double process_seconds() {
  rusage used{};
  getrusage(RUSAGE_SELF, &used);
  return static_cast<double>(used.ru_utime.tv_sec + used.ru_stime.tv_sec) +
         static_cast<double>(used.ru_utime.tv_usec + used.ru_stime.tv_usec) * 1e-6;
}

double thread_seconds() {
  timespec time{};
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &time);
  return static_cast<double>(time.tv_sec) + static_cast<double>(time.tv_nsec) * 1e-9;
}

std::string post(std::string_view body) {
  return concat("POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Length: ", body.size(), "\r\n\r\n", body);
}

// A token that is one rare character, so that tokens can be counted in the bytes of a stream, whatever they are sent
// in.
constexpr char kMark = '~';

constexpr std::chrono::microseconds kClientNap{500};

// A server over a simulated engine, for one part of the benchmark.
class Bench {
 public:
  Bench(std::shared_ptr<ServedModel> model, const SimulatedLoad& load, std::size_t connections)
      : engine_(load, info_of(*model)) {
    HttpOptions options;
    options.port = 0;
    options.version = MULTIVERSE_VERSION;
    options.max_connections = static_cast<int>(connections) + 64;
    auto server = HttpServer::start(options);
    CHECK(server.ok(), server.error().message);
    server_ = std::move(server).value();
    server_->attach(std::move(model), engine_);
  }
  int port() const { return server_->port(); }
  const SimulatedEngine& engine() const { return engine_; }

 private:
  static ExecutorInfo info_of(const ServedModel& model) {
    ExecutorInfo info;
    info.vocab_size = model.vocab_size;
    info.max_position = model.max_model_len;
    return info;
  }
  SimulatedEngine engine_;
  std::unique_ptr<HttpServer> server_;  // ends first
};

// Each stream has its own phase, so that tokens come evenly spread.
void bench_streams(const std::shared_ptr<ServedModel>& model, const Options& options, TokenId mark) {
  SimulatedLoad load;
  load.token = mark;
  load.tokens = static_cast<std::int32_t>(options.rate * options.seconds);
  load.gap = std::chrono::microseconds(1'000'000 / options.rate);
  load.requests = options.streams;
  Bench bench(model, load, options.streams);
  LoadClient client(bench.port());
  for (std::size_t i = 0; i < options.streams; ++i) {
    client.connect();
    client.send(i, post(concat(R"({"prompt":"a","stream":true,"seed":)", i, R"(,"max_tokens":)", load.tokens, "}")));
  }
  std::vector<std::int32_t> got(options.streams);
  std::vector<double> added;
  const std::size_t all = options.streams * static_cast<std::size_t>(load.tokens);
  added.reserve(all);
  const double cpu = process_seconds(), own = thread_seconds();
  std::size_t lost = 0;
  const auto deadline = steady_clock::now() + std::chrono::seconds(options.seconds * 3 + 10);
  while (added.size() < all && lost == 0 && steady_clock::now() < deadline) {
    client.receive(100, [&](std::size_t stream, std::string_view bytes) {
      if (bytes.empty()) ++lost;
      for (const char c : bytes) {
        if (c == kMark && got[stream] < load.tokens) {
          added.push_back(milliseconds_since(bench.engine().emitted(stream, got[stream]++)));
        }
      }
    });
    // Clients on other machines cost this one no wake-up a token. The time is in the figures.
    std::this_thread::sleep_for(kClientNap);
  }
  const double clients = thread_seconds() - own, server = process_seconds() - cpu - clients;
  const double each = 1e6 / static_cast<double>(std::max<std::size_t>(added.size(), 1));
  const double median = at(added, 0.5), late = at(added, 0.99);
  std::printf("  streams    %zu x %zu tokens/s: added a token median %.2f ms, p99 %.2f ms   wanted <= 5 ms\n",
              options.streams, options.rate, median, late);
  std::printf(
      "             %zu of %zu tokens came; processor time a token: server %.1f us, client %.1f us"
      "   2 cores allow %.1f\n",
      added.size(), all, server * each, clients * each, 2e6 / static_cast<double>(options.streams * options.rate));
}

// Waits for one answer with a Content-Length and no '}' after its body's end.
void await_answer(LoadClient& client) {
  bool whole = false;
  while (!whole) {
    client.receive(1000, [&](std::size_t, std::string_view bytes) { whole = bytes.empty() || bytes.back() == '}'; });
  }
}

void bench_overhead(const std::shared_ptr<ServedModel>& model, const Options& options, TokenId mark) {
  SimulatedLoad load;
  load.token = mark;
  load.requests = 1;
  Bench bench(model, load, 1);
  LoadClient client(bench.port());
  client.connect();
  std::string prompt;
  while (model->tokenizer->encode(prompt, Trust::kNone).size() < options.tokens) {
    for (std::size_t i = 0; i < options.tokens / 50; ++i) prompt += concat("word", i * 7919 % 1000, " or ");
  }
  const std::string request = post(concat(R"({"seed":0,"max_tokens":1,"prompt":")", prompt, "\"}"));
  constexpr int kRuns = 200;
  std::vector<double> took;
  for (int run = 0; run < kRuns; ++run) {
    const auto begin = steady_clock::now().time_since_epoch().count();
    client.send(0, request);
    await_answer(client);
    took.push_back(milliseconds_since(begin));
  }
  std::printf("  overhead   %zu prompt tokens: median %.2f ms, p99 %.2f ms   wanted <= 5 ms\n",
              model->tokenizer->encode(prompt, Trust::kNone).size(), at(took, 0.5), at(took, 0.99));
}

void bench_rejections(const std::shared_ptr<ServedModel>& model, const Options& options) {
  SimulatedLoad load;
  load.refuse = true;
  constexpr std::size_t kConnections = 16;
  Bench bench(model, load, kConnections);
  LoadClient client(bench.port());
  const std::string request = post(R"({"prompt":"a","stream":true})");
  for (std::size_t i = 0; i < kConnections; ++i) {
    client.connect();
    client.send(i, request);
  }
  std::size_t rejected = 0, other = 0;
  constexpr std::string_view kRefused = "HTTP/1.1 429";
  const double cpu = process_seconds(), own = thread_seconds();
  const auto end = steady_clock::now() + std::chrono::seconds(options.seconds);
  while (steady_clock::now() < end) {
    client.receive(100, [&](std::size_t connection, std::string_view bytes) {
      if (bytes.substr(0, 5) != kRefused.substr(0, 5)) return;  // the rest of an answer
      bytes.substr(0, kRefused.size()) == kRefused ? ++rejected : ++other;
      client.send(connection, request);
    });
  }
  const double server = process_seconds() - cpu - (thread_seconds() - own);
  std::printf("  rejection  %.0f a second, %.0f for each second of a core   wanted >= 5000   (%zu other answers)\n",
              static_cast<double>(rejected) / static_cast<double>(options.seconds),
              static_cast<double>(rejected) / std::max(server, 1e-9), other);
}

void bench_idle(const std::shared_ptr<ServedModel>& model, const Options& options, std::size_t files) {
  const std::size_t idle = std::min(options.idle, (files - 200) / 2);  // both ends are this process's
  Bench bench(model, {}, idle);
  LoadClient client(bench.port());
  const std::string request = "GET /readyz HTTP/1.1\r\nHost: x\r\n\r\n";
  for (std::size_t i = 0; i <= idle; ++i) {
    client.connect();
    if (i % 500 == 0) std::this_thread::sleep_for(milliseconds(20));  // the accepting thread has a queue of 4,096
  }
  std::vector<double> took;
  for (int run = 0; run < 500; ++run) {
    const auto begin = steady_clock::now().time_since_epoch().count();
    client.send(idle, request);
    await_answer(client);
    took.push_back(milliseconds_since(begin));
  }
  std::printf("  idle       /readyz beside %zu connections: median %.2f ms, p99 %.2f ms   wanted <= 20 ms\n", idle,
              at(took, 0.5), at(took, 0.99));
}

Status bench(const Options& options) {
  set_log_level(LogLevel::kWarning);  // a service would write lines to a file; not what is measured
  const std::size_t files = raise_file_limit();
  if (files < 2 * options.streams + 200) {
    return invalid_argument(concat("this process may open ", files, " files; ", options.streams, " streams need ",
                                   2 * options.streams + 200, " (ulimit -n)"));
  }
  ServerConfig config;
  config.model = options.model_dir;
  config.served_model_name = {"bench"};
  auto loaded = load_texts(config);
  if (!loaded.ok()) return loaded.error();
  const std::shared_ptr<ServedModel> model = std::move(loaded).value();
  model->vocab_size = model->tokenizer->size();
  model->max_model_len = std::numeric_limits<std::int32_t>::max();
  const std::string mark(1, kMark);
  const std::vector<std::int32_t> tokens = model->tokenizer->encode(mark, Trust::kNone);
  if (tokens.size() != 1 || model->visible_bytes(tokens[0]) != mark) {
    return invalid_argument(concat("the model has no token for '", mark, "', by which this benchmark counts"), "model");
  }
  std::printf("HTTP above a simulated engine\n");
  bench_streams(model, options, tokens[0]);
  bench_overhead(model, options, tokens[0]);
  bench_rejections(model, options);
  bench_idle(model, options, files);
  return ok_status();
}

}  // namespace

int bench_http(std::span<const std::string_view> args) {
  return run_benchmark("http", kHelp, args, parse, bench);
}

}  // namespace multiverse

#include "http/metrics.h"

#include <dirent.h>
#include <sys/resource.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <chrono>
#include <cstdio>
#include <fstream>

namespace multiverse {
namespace {

// The bounds that dashboards for other servers use, so that they carry over.
constexpr std::array kFirstTokenBounds{0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1,  0.25,  0.5,   0.75,
                                       1.0,   2.5,   5.0,  7.5,  10.0, 20.0, 40.0, 80.0, 160.0, 640.0, 2560.0};
constexpr std::array kInterTokenBounds{0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.075, 0.1,  0.15, 0.2,  0.3,
                                       0.4,   0.5,    0.75,  1.0,  2.5,   5.0,  7.5,   10.0, 20.0, 40.0, 80.0};
constexpr std::array kDurationBounds{0.3,  0.5,  0.8,  1.0,  1.5,   2.0,   2.5,   5.0,   10.0,   15.0,  20.0,
                                     30.0, 40.0, 50.0, 60.0, 120.0, 240.0, 480.0, 960.0, 1920.0, 7680.0};

std::string number(double value) {
  std::array<char, 32> text{};
  const int size = std::snprintf(text.data(), text.size(), "%.9g", value);
  return {text.data(), static_cast<std::size_t>(std::max(size, 0))};
}

std::string escaped(std::string_view value) {
  std::string out;
  for (const char c : value) {
    if (c == '\\' || c == '"') out += '\\';
    out += c == '\n' ? ' ' : c;
  }
  return out;
}

// Writes families: HELP and TYPE, then samples, each with the model's label.
class Page {
 public:
  explicit Page(const std::string& model_name) : model_label_(concat("model_name=\"", escaped(model_name), "\"")) {}

  void family(std::string_view name, std::string_view type, std::string_view help) {
    name_ = concat("multiverse_", name);
    out_ += concat("# HELP ", name_, " ", help, "\n# TYPE ", name_, " ", type, "\n");
  }
  template <class Number>
  void sample(Number value, const std::string& labels = "") {
    out_ += concat(name_, "{", model_label_, labels.empty() ? "" : ",", labels, "} ",
                   number(static_cast<double>(value)), "\n");
  }
  template <class Number>
  void single(std::string_view name, std::string_view type, std::string_view help, Number value) {
    family(name, type, help);
    sample(value);
  }
  void histogram(std::string_view name, std::string_view help, const Histogram& values) {
    family(name, "histogram", help);
    values.write(out_, name_, model_label_);
  }
  // A name of everyone's, without prefix and label.
  void process(std::string_view name, std::string_view type, std::string_view help, double value) {
    out_ += concat("# HELP ", name, " ", help, "\n# TYPE ", name, " ", type, "\n", name, " ", number(value), "\n");
  }
  std::string take() { return std::move(out_); }

 private:
  std::string model_label_, name_, out_;
};

std::string label(std::string_view name, std::string_view value) {
  return concat(name, "=\"", escaped(value), "\"");
}

void write_gauges(Page& page, const EngineStats& stats) {
  page.single("requests_running", "gauge", "Requests that the engine has admitted.", stats.requests_running);
  page.single("requests_waiting", "gauge", "Requests that wait for admission.", stats.requests_waiting);
  page.single("branches_running", "gauge", "Branches that take part in steps.", stats.branches_running);
  page.single("branches_waiting", "gauge", "Branches that wait for a row or for pages.", stats.branches_waiting);
  const auto total = static_cast<double>(std::max<std::int64_t>(stats.pages_total, 1));
  page.single("kv_cache_usage_ratio", "gauge", "Share of the KV cache's pages in use, from 0 to 1.",
              static_cast<double>(stats.pages_used) / total);
  page.family("kv_blocks", "gauge", "Pages of the KV cache by state.");
  page.sample(stats.pages_used, label("state", "used"));
  page.sample(stats.pages_cached, label("state", "cached"));
  page.sample(stats.pages_free, label("state", "free"));
  page.single("kv_blocks_shared", "gauge", "Pages in use by more than one branch or request.", stats.pages_shared);
  page.single("engine_last_step_age_seconds", "gauge", "Time since the last step ended; 0 where nothing runs.",
              stats.last_step_age_seconds);
}

void write_counters(Page& page, const EngineStats& stats) {
  page.family("prompt_tokens_total", "counter", "Prompt tokens, by where their keys and values came from.");
  page.sample(stats.prompt_tokens_total - stats.cached_prompt_tokens_total, label("source", "computed"));
  page.sample(stats.cached_prompt_tokens_total, label("source", "cache"));
  page.single("generation_tokens_total", "counter", "Generated tokens, forced ones included.",
              stats.generation_tokens_total);
  page.single("prefix_cache_query_tokens_total", "counter", "Prompt tokens looked up in the prefix index.",
              stats.prefix_query_tokens_total);
  page.single("prefix_cache_hit_tokens_total", "counter", "Prompt tokens found in the prefix index.",
              stats.prefix_hit_tokens_total);
  page.single("forks_total", "counter", "Forks of a branch into paths.", stats.forks_total);
  page.single("joins_total", "counter", "Joins of all paths of a fork.", stats.joins_total);
  page.single("malformed_total", "counter", "Control tokens kept as ordinary ones.", stats.malformed_total);
  page.single("preemptions_total", "counter", "Requests preempted for lack of pages.", stats.preemptions_total);
  page.single("engine_steps_total", "counter", "Forward passes.", stats.steps_total);
  page.family("samples_finished_total", "counter", "Samples that the engine ended, by reason.");
  page.sample(stats.finished_stop_total, label("finish_reason", "stop"));
  page.sample(stats.finished_length_total, label("finish_reason", "length"));
  page.sample(stats.cancelled_total, label("finish_reason", "cancelled"));
  page.sample(stats.failed_total, label("finish_reason", "error"));
}

double resident_bytes() {
  std::ifstream file("/proc/self/statm");
  double pages = 0.0, resident = 0.0;
  file >> pages >> resident;
  return resident * static_cast<double>(sysconf(_SC_PAGESIZE));
}

double open_descriptors() {
  DIR* folder = opendir("/proc/self/fd");
  if (folder == nullptr) return 0.0;
  double count = -3.0;                              // ".", ".." and the folder's own
  while (readdir(folder) != nullptr) count += 1.0;  // NOLINT(concurrency-mt-unsafe): a stream of our own
  closedir(folder);
  return count;
}

void write_process(Page& page, double start_time_seconds) {
  rusage used{};
  getrusage(RUSAGE_SELF, &used);
  const auto seconds = [](const timeval& time) {
    return static_cast<double>(time.tv_sec) + static_cast<double>(time.tv_usec) * 1e-6;
  };
  rlimit files{};
  getrlimit(RLIMIT_NOFILE, &files);
  page.process("process_cpu_seconds_total", "counter", "Processor time used.",
               seconds(used.ru_utime) + seconds(used.ru_stime));
  page.process("process_resident_memory_bytes", "gauge", "Resident memory.", resident_bytes());
  page.process("process_open_fds", "gauge", "Open file descriptors.", open_descriptors());
  page.process("process_max_fds", "gauge", "File descriptors allowed.", static_cast<double>(files.rlim_cur));
  page.process("process_start_time_seconds", "gauge", "Unix time of the start.", start_time_seconds);
}

const char* cause_name(AbortCause cause) {
  switch (cause) {
    case AbortCause::kDisconnect:
      return "disconnect";
    case AbortCause::kSlowReader:
      return "slow_reader";
    case AbortCause::kDeadline:
      return "deadline";
    case AbortCause::kDrain:
      return "drain";
  }
  return "";
}

}  // namespace

void Histogram::observe(double value) {
  const auto bucket = std::lower_bound(bounds_.begin(), bounds_.end(), value) - bounds_.begin();
  counts_[static_cast<std::size_t>(bucket)] += 1;
  sum_ += value;
}

void Histogram::write(std::string& out, std::string_view name, std::string_view labels) const {
  std::uint64_t count = 0;
  for (std::size_t i = 0; i < counts_.size(); ++i) {
    count += counts_[i];
    const std::string bound = i < bounds_.size() ? number(bounds_[i]) : "+Inf";
    out += concat(name, "_bucket{", labels, ",le=\"", bound, "\"} ", count, "\n");
  }
  out += concat(name, "_sum{", labels, "} ", number(sum_), "\n", name, "_count{", labels, "} ", count, "\n");
}

Metrics::Metrics()
    : time_to_first_token(kFirstTokenBounds),
      inter_token_latency(kInterTokenBounds),
      request_duration(kDurationBounds),
      http_request_duration(kFirstTokenBounds),
      start_time_seconds_(std::chrono::duration<double>(std::chrono::system_clock::now().time_since_epoch()).count()) {
  // Present from the start, so that rates are known from the first event on.
  for (const char* reason : {"queue_full", "unavailable", "invalid"}) rejected_[reason] = 0;
  for (const char* reason : {"stop", "length", "error"}) finished_[reason] = 0;
  for (const AbortCause cause :
       {AbortCause::kDisconnect, AbortCause::kSlowReader, AbortCause::kDeadline, AbortCause::kDrain}) {
    aborted_[cause] = 0;
  }
}

void Metrics::count_request(std::string_view route, std::string_view method, int status) {
  static constexpr std::array<std::string_view, 7> kMethods{"GET", "POST", "HEAD", "PUT", "DELETE", "OPTIONS", "PATCH"};
  const bool known = std::find(kMethods.begin(), kMethods.end(), method) != kMethods.end();
  const std::lock_guard lock(mutex_);
  ++requests_[{std::string(route), known ? std::string(method) : "other", status}];
}

void Metrics::begin_generation() {
  const std::lock_guard lock(mutex_);
  ++received_;
  ++in_flight_;
}

void Metrics::reject_generation(int status) {
  const std::lock_guard lock(mutex_);
  ++rejected_[status == 429 ? "queue_full" : status == 503 ? "unavailable" : "invalid"];
  --in_flight_;
}

void Metrics::abort_generation(AbortCause cause) {
  const std::lock_guard lock(mutex_);
  ++aborted_[cause];
  --in_flight_;
}

void Metrics::finish_generation(const std::string& reason) {
  const std::lock_guard lock(mutex_);
  ++finished_[reason];
  --in_flight_;
}

std::string Metrics::text(const std::string& model_name, const std::string& version, const Engine* engine) const {
  Page page(model_name);
  page.family("build_info", "gauge", "The server's version.");
  page.sample(1, label("version", version));
  if (engine != nullptr) {
    const EngineStats stats = engine->stats();
    page.family("cache_config_info", "gauge", "The KV cache: tokens a page holds, pages.");
    page.sample(1, concat(label("block_size", std::to_string(kPageTokens)), ",",
                          label("num_gpu_blocks", std::to_string(engine->executor_info().num_pages))));
    write_gauges(page, stats);
    write_counters(page, stats);
  }
  {
    const std::lock_guard lock(mutex_);
    page.single("requests_received_total", "counter", "Generation requests.", received_);
    page.single("requests_in_flight", "gauge", "Generation requests being answered.", in_flight_);
    page.family("requests_rejected_total", "counter", "Generation requests refused before they ran.");
    for (const auto& [reason, count] : rejected_) page.sample(count, label("reason", reason));
    page.family("requests_aborted_total", "counter", "Generation requests that ended before their answer did.");
    for (const auto& [cause, count] : aborted_) page.sample(count, label("cause", cause_name(cause)));
    page.family("requests_finished_total", "counter", "Generation requests that were answered, by how they ended.");
    for (const auto& [reason, count] : finished_) page.sample(count, label("finish_reason", reason));
    page.family("http_requests_total", "counter", "HTTP requests answered.");
    for (const auto& [key, count] : requests_) {
      const auto& [route, method, status] = key;
      page.sample(count, concat(label("route", route), ",", label("method", method), ",",
                                label("code", std::to_string(status))));
    }
  }
  page.single("http_in_flight", "gauge", "HTTP requests being answered.", requests_in_flight.load());
  page.single("http_connections", "gauge", "Open connections.", connections.load());
  page.histogram("http_request_duration_seconds", "From a request's head to the end of its answer, on any route.",
                 http_request_duration);
  page.histogram("time_to_first_token_seconds", "From a request's arrival to its first token.", time_to_first_token);
  page.histogram("inter_token_latency_seconds", "Between two arrivals of tokens of a request, of all its branches.",
                 inter_token_latency);
  page.histogram("request_duration_seconds", "From a generation request's arrival to its end.", request_duration);
  write_process(page, start_time_seconds_);
  return page.take();
}

}  // namespace multiverse

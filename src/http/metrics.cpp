#include "http/metrics.h"

#include <algorithm>
#include <array>
#include <chrono>

#include "http/metrics_text.h"

namespace multiverse {
namespace {

// The bounds that dashboards for other servers use, so that they carry over.
constexpr std::array kFirstTokenBounds{0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1,  0.25,  0.5,   0.75,
                                       1.0,   2.5,   5.0,  7.5,  10.0, 20.0, 40.0, 80.0, 160.0, 640.0, 2560.0};
constexpr std::array kInterTokenBounds{0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.075, 0.1,  0.15, 0.2,  0.3,
                                       0.4,   0.5,    0.75,  1.0,  2.5,   5.0,  7.5,   10.0, 20.0, 40.0, 80.0};
constexpr std::array kDurationBounds{0.3,  0.5,  0.8,  1.0,  1.5,   2.0,   2.5,   5.0,   10.0,   15.0,  20.0,
                                     30.0, 40.0, 50.0, 60.0, 120.0, 240.0, 480.0, 960.0, 1920.0, 7680.0};
constexpr std::array kTokenBounds{1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0, 200.0, 500.0,
                                  1e3, 2e3, 5e3, 1e4,  2e4,  5e4,  1e5,   2e5};
constexpr std::array kWidthBounds{1.0, 2.0, 3.0, 4.0, 6.0, 8.0, 12.0, 16.0, 24.0, 32.0, 64.0, 128.0};
constexpr std::array kDepthBounds{1.0, 2.0, 3.0, 4.0, 6.0, 8.0, 16.0};
constexpr std::array kSamplesBounds{1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0};

void write_gauges(MetricsText& page, const EngineStats& stats) {
  page.single("requests_running", "gauge", "Requests that the engine has admitted.", stats.requests_running);
  page.single("requests_waiting", "gauge", "Requests that wait for admission.", stats.requests_waiting);
  page.single("branches_running", "gauge", "Branches that take part in steps.", stats.branches_running);
  page.single("branches_waiting", "gauge", "Branches that wait for a row or for pages.", stats.branches_waiting);
  const auto total = static_cast<double>(std::max<std::int64_t>(stats.pages_total, 1));
  page.single("kv_cache_usage_ratio", "gauge", "Share of the KV cache's pages in use, from 0 to 1.",
              static_cast<double>(stats.pages_used) / total);
  page.family("kv_blocks", "gauge", "Pages of the KV cache by state.");
  page.sample(stats.pages_used, metric_label("state", "used"));
  page.sample(stats.pages_cached, metric_label("state", "cached"));
  page.sample(stats.pages_free, metric_label("state", "free"));
  page.single("kv_blocks_shared", "gauge", "Pages in use by more than one branch or request.", stats.pages_shared);
  page.single("weights_version", "gauge", "Of the weights that serve; 1 at the start.", stats.weights_version);
  page.single("engine_last_step_age_seconds", "gauge", "Time since the last step ended; 0 where nothing runs.",
              stats.last_step_age_seconds);
}

void write_counters(MetricsText& page, const EngineStats& stats) {
  page.family("prompt_tokens_total", "counter", "Prompt tokens, by where their keys and values came from.");
  page.sample(stats.prompt_tokens_total - stats.cached_prompt_tokens_total, metric_label("source", "computed"));
  page.sample(stats.cached_prompt_tokens_total, metric_label("source", "cache"));
  page.single("generation_tokens_total", "counter", "Generated tokens, forced ones included.",
              stats.generation_tokens_total);
  page.single("prefix_cache_query_tokens_total", "counter", "Prompt tokens looked up in the prefix index.",
              stats.prefix_query_tokens_total);
  page.single("prefix_cache_hit_tokens_total", "counter", "Prompt tokens found in the prefix index.",
              stats.prefix_hit_tokens_total);
  page.single("prefix_cache_evictions_total", "counter", "Pages whose content was given up for new ones.",
              stats.prefix_evictions_total);
  page.single("forks_total", "counter", "Forks of a branch into paths.", stats.forks_total);
  page.single("joins_total", "counter", "Joins of all paths of a fork.", stats.joins_total);
  page.single("malformed_total", "counter", "Control tokens kept as ordinary ones.", stats.malformed_total);
  page.single("preemptions_total", "counter", "Requests preempted for lack of pages or for new weights.",
              stats.preemptions_total);
  page.single("weight_reloads_total", "counter", "Times that weights were exchanged.", stats.weight_reloads_total);
  page.single("weight_reloads_failed_total", "counter",
              "Times that weights could not be loaded; the old ones serve on.", stats.weight_reloads_failed_total);
  page.single("engine_steps_total", "counter", "Forward passes.", stats.steps_total);
  page.histogram("step_tokens", "Tokens computed in a step: its rows.", stats.step_rows);
  page.histogram("step_seconds", "Time of a step, planning included.", stats.step_seconds);
  page.family("samples_finished_total", "counter", "Samples that the engine ended, by reason.");
  page.sample(stats.finished_stop_total, metric_label("finish_reason", "stop"));
  page.sample(stats.finished_length_total, metric_label("finish_reason", "length"));
  page.sample(stats.cancelled_total, metric_label("finish_reason", "cancelled"));
  page.sample(stats.failed_total, metric_label("finish_reason", "error"));
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

Metrics::Metrics()
    : time_to_first_token(kFirstTokenBounds),
      inter_token_latency(kInterTokenBounds),
      request_duration(kDurationBounds),
      http_request_duration(kFirstTokenBounds),
      request_queue(kDurationBounds),
      request_prefill(kDurationBounds),
      request_decode(kDurationBounds),
      request_prompt_tokens(kTokenBounds),
      request_generation_tokens(kTokenBounds),
      request_critical_path_tokens(kTokenBounds),
      request_n(kSamplesBounds),
      request_max_tokens(kTokenBounds),
      fork_width_(kWidthBounds),
      fork_depth_(kDepthBounds),
      join_wait_(kInterTokenBounds),
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
  const bool known = method == "GET" || method == "POST";  // what routes take; the others would only multiply series
  const std::lock_guard lock(mutex_);
  ++requests_[{std::string(route), known ? std::string(method) : "other", status}];
}

void Metrics::observe(const BranchFacts& facts) {
  for (const BranchFacts::Fork& fork : facts.forks) {
    fork_width_.observe(fork.width);
    fork_depth_.observe(fork.depth);
    fork_waves_ += static_cast<std::uint64_t>(fork.waves);
    if (fork.waves > 1) forks_throttled_ += 1;
  }
  for (const Nanoseconds wait : facts.join_waits) join_wait_.observe(std::chrono::duration<double>(wait).count());
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
  MetricsText page(model_name);
  page.family("build_info", "gauge", "The server's version.");
  page.sample(1, metric_label("version", version));
  if (engine != nullptr) {
    const EngineStats stats = engine->stats();
    page.family("cache_config_info", "gauge", "The KV cache: tokens a page holds, pages.");
    page.sample(1, concat(metric_label("block_size", std::to_string(kPageTokens)), ",",
                          metric_label("num_gpu_blocks", std::to_string(engine->executor_info().num_pages))));
    write_gauges(page, stats);
    write_counters(page, stats);
  }
  {
    const std::lock_guard lock(mutex_);
    page.single("requests_received_total", "counter", "Generation requests.", received_);
    page.single("requests_in_flight", "gauge", "Generation requests being answered.", in_flight_);
    page.family("requests_rejected_total", "counter", "Generation requests refused before they ran.");
    for (const auto& [reason, count] : rejected_) page.sample(count, metric_label("reason", reason));
    page.family("requests_aborted_total", "counter", "Generation requests that ended before their answer did.");
    for (const auto& [cause, count] : aborted_) page.sample(count, metric_label("cause", cause_name(cause)));
    page.family("requests_finished_total", "counter", "Generation requests that were answered, by how they ended.");
    for (const auto& [reason, count] : finished_) page.sample(count, metric_label("finish_reason", reason));
    page.family("http_requests_total", "counter", "HTTP requests answered.");
    for (const auto& [key, count] : requests_) {
      const auto& [route, method, status] = key;
      page.sample(count, concat(metric_label("route", route), ",", metric_label("method", method), ",",
                                metric_label("code", std::to_string(status))));
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
  page.histogram("request_queue_seconds", "From a request's arrival at the engine to its admission.", request_queue);
  page.histogram("request_prefill_seconds", "From a request's admission to its first token.", request_prefill);
  page.histogram("request_decode_seconds", "From a request's first token to its end.", request_decode);
  page.histogram("request_prompt_tokens", "Prompt tokens of a request.", request_prompt_tokens);
  page.histogram("request_generation_tokens", "Generated tokens of a request, of all its branches.",
                 request_generation_tokens);
  page.histogram("request_critical_path_tokens", "Tokens on the longest chain of a request's branches.",
                 request_critical_path_tokens);
  page.histogram("request_params_n", "Samples that a request asks for.", request_n);
  page.histogram("request_params_max_tokens", "Tokens that a request allows a sample, where it says so.",
                 request_max_tokens);
  page.histogram("fork_width", "Paths of a fork.", fork_width_);
  page.histogram("fork_depth", "Depth of a fork; 1 is a fork of the root.", fork_depth_);
  page.histogram("join_wait_seconds", "From the end of a fork's first path to the end of its last.", join_wait_);
  page.single("fork_waves_total", "counter", "Groups in which the paths of forks ran.", fork_waves_.load());
  page.family("fork_throttled_total", "counter", "Forks whose paths did not all run at once.");
  page.sample(forks_throttled_.load(), metric_label("reason", "max_running_paths"));
  write_process_metrics(page, start_time_seconds_);
  return page.take();
}

}  // namespace multiverse

// What /metrics shows: counts of the HTTP side, and the engine's, in Prometheus' text format.
#pragma once

#include <atomic>
#include <cstdint>
#include <map>
#include <mutex>
#include <span>
#include <string>
#include <string_view>
#include <tuple>
#include <utility>
#include <vector>

#include "multiverse/api/generation.h"
#include "multiverse/engine/engine.h"

#include "http/metrics_text.h"

namespace multiverse {

// Why a generation ended before its answer was complete.
enum class AbortCause { kDisconnect, kSlowReader, kDeadline, kDrain };

// Any thread.
class Metrics {
 public:
  Metrics();

  void count_request(std::string_view route, std::string_view method, int status);
  Histogram time_to_first_token, inter_token_latency, request_duration, http_request_duration;  // seconds
  // Of requests that ended well: seconds in each phase, then tokens.
  Histogram request_queue, request_prefill, request_decode;
  Histogram request_prompt_tokens, request_generation_tokens, request_critical_path_tokens;
  Histogram request_n, request_max_tokens;  // as asked for
  void observe(const BranchFacts& facts);
  std::atomic<std::int64_t> requests_in_flight = 0;  // HTTP requests being answered
  std::atomic<std::int64_t> connections = 0;

  // Of generation requests, through GenerationTicket.
  void begin_generation();
  void reject_generation(int status);
  void abort_generation(AbortCause cause);
  void finish_generation(const std::string& reason);  // "stop", "length", "error"

  // Where `engine` is nullptr (loading), only our own.
  std::string text(const std::string& model_name, const std::string& version, const Engine* engine) const;

 private:
  mutable std::mutex mutex_;
  std::map<std::tuple<std::string, std::string, int>, std::uint64_t> requests_;  // bounded: patterns, known methods
  std::uint64_t received_ = 0, in_flight_ = 0;
  std::map<std::string, std::uint64_t> rejected_, finished_;
  std::map<AbortCause, std::uint64_t> aborted_;
  Histogram fork_width_, fork_depth_, join_wait_;
  std::atomic<std::uint64_t> forks_throttled_ = 0, fork_waves_ = 0;
  double start_time_seconds_ = 0.0;
};

// One generation request, from its arrival to the one way in which it ends, so that at every look
// received = rejected + aborted + finished + in flight. Where nothing is said of its end, an exception was it.
class GenerationTicket {
 public:
  explicit GenerationTicket(Metrics& metrics) : metrics_(metrics) { metrics_.begin_generation(); }
  ~GenerationTicket() {
    if (open_) metrics_.finish_generation("error");
  }
  GenerationTicket(const GenerationTicket&) = delete;
  GenerationTicket& operator=(const GenerationTicket&) = delete;

  void reject(int status) {
    if (close()) metrics_.reject_generation(status);
  }
  void abort(AbortCause cause) {
    if (close()) metrics_.abort_generation(cause);
  }
  void finish(const std::string& reason) {
    if (close()) metrics_.finish_generation(reason);
  }
  Metrics& metrics() { return metrics_; }

 private:
  bool close() { return std::exchange(open_, false); }
  Metrics& metrics_;
  bool open_ = true;
};

}  // namespace multiverse

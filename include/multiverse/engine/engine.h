// The engine: one thread that owns scheduler and executor, queues on either side.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "multiverse/dialect/dialect.h"
#include "multiverse/exec/executor.h"
#include "multiverse/scheduler/request.h"

namespace multiverse {

class StepTrace;

struct EngineConfig {
  std::int32_t max_rows = 512;            // rows of a step; the executor's bound is applied too
  std::int32_t max_prefill_tokens = 256;  // uncomputed prompt tokens a step may take beside decode rows
  double prefill_stretch = 2.0;           // see SchedulerConfig
  std::int32_t max_queued_requests = 256;
  std::int64_t max_queued_tokens = 1'000'000;  // prompt tokens of waiting requests
  std::int64_t max_queued_pages = 0;           // that these may come to need; 0 = 64 times the pool
  std::int32_t max_model_len = 0;              // positions; 0 = the model's
  std::int64_t max_request_tokens = 0;         // tokens of a request in the cache; 0 = pool less reserve
  std::vector<TokenId> eos_tokens;
  bool prefix_cache = true;
  Nanoseconds priority_step = std::chrono::seconds(10);  // see SchedulerConfig
  std::shared_ptr<StepTrace> trace;                      // null: none is written
};

// How many values there were up to each bound and above the one before; the last count is of those above all bounds.
template <std::size_t N>
struct Distribution {
  std::array<double, N> bounds;  // ascending
  std::array<std::uint64_t, N + 1> counts{};
  double sum = 0.0;

  void add(double value) {
    std::size_t bucket = 0;
    while (bucket < N && bounds[bucket] < value) ++bucket;
    ++counts[bucket];
    sum += value;
  }
};

// A snapshot of counters and gauges, monotonic where named total. Names become metrics.
struct EngineStats {
  std::int64_t requests_running = 0, requests_waiting = 0;
  std::int64_t branches_running = 0, branches_waiting = 0;
  std::int64_t pages_total = 0, pages_free = 0, pages_cached = 0, pages_used = 0, pages_shared = 0;
  std::int64_t prompt_tokens_total = 0, cached_prompt_tokens_total = 0, generation_tokens_total = 0;
  std::int64_t prefix_query_tokens_total = 0, prefix_hit_tokens_total = 0, prefix_evictions_total = 0;
  std::int64_t forks_total = 0, joins_total = 0, malformed_total = 0, preemptions_total = 0, steps_total = 0;
  std::int64_t finished_stop_total = 0, finished_length_total = 0, cancelled_total = 0, failed_total = 0,
               rejected_total = 0;
  std::int64_t weights_version = 1;  // 1 at the start, one more with each reload
  std::int64_t weight_reloads_total = 0, weight_reloads_failed_total = 0;
  Distribution<13> step_rows{{1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096}};
  Distribution<15> step_seconds{
      {0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0}};
  double last_step_age_seconds = 0.0;  // since the last step ended, or work came; 0 where nothing runs or waits
};

// The events of one request. One consumer thread. Destroying the stream cancels the request.
class RequestStream {
 public:
  virtual ~RequestStream() = default;
  virtual RequestId id() const = 0;
  // Waits at most `timeout` for events and moves all that are there to the end of `out`. Returns false once
  // FinishedEvent has been handed out (then nothing more comes).
  virtual bool wait(Nanoseconds timeout, std::vector<Event>& out) = 0;
  // From now on `on_events` is called whenever events have come, by the engine's thread, and at once where some wait
  // already. It returns at once, throws nothing and calls nothing of this stream. An empty one ends that: no call is
  // under way when this returns. Ends with the stream as well.
  virtual void notify(std::function<void()> on_events) = 0;
  // The client is gone: pages are free within one step. No further events but FinishedEvent.
  virtual void cancel() = 0;
  // A stop string matched in the text of `branch` of `sample`: that branch and all that follows it in canonical order
  // is cancelled; what precedes it runs to its end, then the sample ends with kStop.
  virtual void cut(std::int32_t sample, std::int32_t branch) = 0;
};

// What happens to requests that run when the weights change. Their tokens stay; each names all weights that drew some.
enum class ReloadMode {
  kRecompute,  // preempted, and computed again with the new weights before they go on
  kKeep,       // go on over the keys and values that the old weights made
};

struct WeightsReload {
  std::int64_t version = 0, previous = 0;
  std::int64_t requests = 0;  // that ran, and were recomputed or kept
  double load_seconds = 0.0;  // while steps went on
  double swap_seconds = 0.0;  // between two steps
};

class Engine {
 public:
  // Takes the executor; starts the thread. `dialect`: nullopt for a model without control tokens.
  static std::unique_ptr<Engine> start(std::unique_ptr<Executor> executor, std::optional<Dialect> dialect,
                                       EngineConfig config);
  virtual ~Engine() = default;  // stops; all streams must be gone
  // Ends the thread: running and waiting requests fail with kUnavailable, later ones are refused so. Once.
  virtual void stop() = 0;

  // Any thread. Checks what only the engine can (kOverloaded: queue full; kInvalidArgument: prompt too long, with both
  // numbers and code "context_length_exceeded") and returns at once; the request then waits for admission.
  virtual Result<std::unique_ptr<RequestStream>> submit(GenerateRequest request) = 0;

  // Any thread but the engine's. Loads the weights while steps go on, exchanges them between two steps and empties the
  // prefix index; returns once that is done. One at a time: kOverloaded ("reload_in_progress") for a second. Any error
  // leaves the weights as they were.
  virtual Result<WeightsReload> reload_weights(const std::string& /*model_dir*/, ReloadMode /*mode*/) {
    return Error{ErrorCode::kUnsupported, "this engine's weights can't be exchanged while it runs", "",
                 "reload_unsupported"};
  }

  virtual EngineStats stats() const = 0;  // any thread, no waiting for a step
  virtual const ExecutorInfo& executor_info() const = 0;
  virtual const EngineConfig& config() const = 0;  // completed: no zero left
};

}  // namespace multiverse

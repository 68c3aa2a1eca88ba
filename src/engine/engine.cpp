#include "multiverse/engine/engine.h"

#include <algorithm>
#include <condition_variable>
#include <future>
#include <mutex>
#include <new>
#include <thread>
#include <unordered_map>
#include <utility>

#include "multiverse/base/log.h"
#include "multiverse/engine/step_trace.h"
#include "multiverse/scheduler/scheduler.h"

#include "engine/event_queue.h"

namespace multiverse {
namespace {

struct Command {
  enum class Kind { kAdd, kCancel, kCut, kUseWeights } kind = Kind::kAdd;
  RequestId id = 0;
  GenerateRequest request;              // kAdd
  std::shared_ptr<EventQueue> events;   // kAdd
  std::int32_t sample = 0, branch = 0;  // kCut
  // kUseWeights
  std::unique_ptr<LoadedWeights> weights;
  ReloadMode reload_mode = ReloadMode::kRecompute;
  std::shared_ptr<std::promise<WeightsReload>> reloaded;
};

// Greatest position that the prompt takes; reads its structure only where its length alone does not answer.
std::int32_t prompt_positions(const GenerateRequest& request, const Dialect* dialect, std::int32_t enough) {
  const auto size = static_cast<std::int32_t>(request.prompt.size());
  if (size < enough || dialect == nullptr || request.mode == Mode::kOff) return size;
  const Structure structure = read_structure(request.prompt, *dialect, request.limits);
  std::int32_t positions = 0;
  for (const TextSegment& segment : structure.segments) {
    positions = std::max(positions, segment.first_position + segment.end - segment.begin);
  }
  return positions;
}

EngineConfig completed(EngineConfig config, const ExecutorInfo& info) {
  config.max_rows = std::min(config.max_rows, info.max_rows);
  config.max_prefill_tokens = std::clamp(config.max_prefill_tokens, 1, config.max_rows);
  if (config.max_model_len <= 0 || config.max_model_len > info.max_position) config.max_model_len = info.max_position;
  // A part of the pool stays out of one request's reach, so that partly filled pages don't strand it.
  const std::int64_t usable = info.num_pages - std::max(1, info.num_pages / 64);
  if (config.max_queued_pages <= 0) config.max_queued_pages = std::int64_t{64} * info.num_pages;
  const std::int64_t most = std::max<std::int64_t>(usable, 1) * kPageTokens;
  if (config.max_request_tokens <= 0 || config.max_request_tokens > most) config.max_request_tokens = most;
  return config;
}

SchedulerConfig scheduler_config(const EngineConfig& config) {
  SchedulerConfig out;
  out.max_rows = config.max_rows;
  out.max_prefill_tokens = config.max_prefill_tokens;
  out.prefill_stretch = config.prefill_stretch;
  out.prefix_cache = config.prefix_cache;
  out.priority_step = config.priority_step;
  out.tree.max_model_len = config.max_model_len;
  out.tree.max_request_tokens = config.max_request_tokens;
  out.tree.eos_tokens = config.eos_tokens;
  return out;
}

class EngineThread final : public Engine {
 public:
  EngineThread(std::unique_ptr<Executor> executor, std::optional<Dialect> dialect, EngineConfig config)
      : executor_(std::move(executor)),
        dialect_(std::move(dialect)),
        config_(completed(std::move(config), executor_->info())),
        scheduler_(*executor_, dialect_ ? &*dialect_ : nullptr, scheduler_config(config_), clock_) {
    snapshot();
    thread_ = std::thread([this] { run(); });
  }

  ~EngineThread() override { stop(); }

  void stop() override {
    {
      const std::scoped_lock lock(mutex_);
      stopping_ = true;
    }
    wake_.notify_one();
    if (thread_.joinable()) thread_.join();
  }

  Result<std::unique_ptr<RequestStream>> submit(GenerateRequest request) override;

  Result<WeightsReload> reload_weights(const std::string& model_dir, ReloadMode mode) override;

  EngineStats stats() const override {
    const std::scoped_lock lock(mutex_);
    EngineStats stats = stats_;
    stats.rejected_total = rejected_;
    stats.weight_reloads_failed_total = reloads_failed_;
    stats.requests_waiting += inbox_requests_;
    if (stats.requests_running + stats.requests_waiting > 0) {
      stats.last_step_age_seconds = std::chrono::duration<double>(clock_.now() - last_step_).count();
    }
    return stats;
  }
  const ExecutorInfo& executor_info() const override { return executor_->info(); }
  const EngineConfig& config() const override { return config_; }

  void post(Command command) {
    {
      const std::scoped_lock lock(mutex_);
      inbox_.push_back(std::move(command));
    }
    wake_.notify_one();
  }

 private:
  void run();
  bool take_inbox();
  void use_weights(Command& command);
  Result<std::unique_ptr<LoadedWeights>> load_weights(const std::string& model_dir);
  Result<std::future<WeightsReload>> hand_over(std::unique_ptr<LoadedWeights> weights, ReloadMode mode);
  void record_step(const SchedulerCounters& before, Nanoseconds begin);
  void deliver();
  bool count(const std::vector<Event>& events);
  void snapshot();
  std::optional<Error> check(const GenerateRequest& request) const;

  const SteadyClock clock_;
  const std::unique_ptr<Executor> executor_;
  const std::optional<Dialect> dialect_;
  const EngineConfig config_;

  // The engine thread's alone.
  Scheduler scheduler_;
  std::unordered_map<RequestId, std::shared_ptr<EventQueue>> queues_;
  std::int64_t weights_version_ = 1;
  std::int64_t finished_stop_ = 0, finished_length_ = 0, cancelled_ = 0, failed_ = 0;
  decltype(EngineStats::step_rows) step_rows_ = EngineStats().step_rows;
  decltype(EngineStats::step_seconds) step_seconds_ = EngineStats().step_seconds;

  // Shared, under mutex_.
  mutable std::mutex mutex_;
  std::condition_variable wake_;
  std::vector<Command> inbox_;
  std::int64_t inbox_requests_ = 0, inbox_tokens_ = 0, inbox_pages_ = 0;
  EngineStats stats_;
  std::int64_t waiting_tokens_ = 0, waiting_pages_ = 0;
  std::int64_t rejected_ = 0, reloads_failed_ = 0;
  Nanoseconds last_step_{0};
  RequestId next_id_ = 1;
  bool stopping_ = false;

  std::mutex reload_mutex_;  // held by the one reload under way; before mutex_

  std::thread thread_;  // last: it starts when all else stands
};

class Stream final : public RequestStream {
 public:
  Stream(EngineThread& engine, RequestId id, std::shared_ptr<EventQueue> events)
      : engine_(engine), id_(id), events_(std::move(events)) {}
  ~Stream() override {
    events_->notify({});
    if (!events_->finished()) cancel();
  }
  RequestId id() const override { return id_; }
  bool wait(Nanoseconds timeout, std::vector<Event>& out) override { return events_->wait(timeout, out); }
  void notify(std::function<void()> on_events) override { events_->notify(std::move(on_events)); }
  void cancel() override {
    Command command;
    command.kind = Command::Kind::kCancel;
    command.id = id_;
    engine_.post(std::move(command));
  }
  void cut(std::int32_t sample, std::int32_t branch) override {
    Command command;
    command.kind = Command::Kind::kCut;
    command.id = id_;
    command.sample = sample;
    command.branch = branch;
    engine_.post(std::move(command));
  }

 private:
  EngineThread& engine_;
  const RequestId id_;
  const std::shared_ptr<EventQueue> events_;
};

std::optional<Error> EngineThread::check(const GenerateRequest& request) const {
  if (request.prompt.empty()) return invalid_argument("the prompt has no tokens; at least one is needed", "prompt");
  const std::int32_t vocabulary = executor_->info().vocab_size;
  for (const TokenId token : request.prompt) {
    if (token < 0 || token >= vocabulary) {
      return invalid_argument(
          concat("token id ", token, " in the prompt is out of range; the model has ids 0 to ", vocabulary - 1),
          "prompt");
    }
  }
  const Dialect* dialect = dialect_ ? &*dialect_ : nullptr;
  const std::int32_t positions = prompt_positions(request, dialect, config_.max_model_len);
  const auto tokens = static_cast<std::int64_t>(request.prompt.size());
  if (positions < config_.max_model_len && tokens < config_.max_request_tokens) return std::nullopt;
  const bool context = positions >= config_.max_model_len;
  Error error = invalid_argument(context ? concat("the prompt takes ", positions, " positions, but the context has ",
                                                  config_.max_model_len, "; shorten the prompt")
                                         : concat("the prompt has ", tokens, " tokens, but one request may hold ",
                                                  config_.max_request_tokens, " in the cache; shorten the prompt"),
                                 "prompt");
  error.code_name = "context_length_exceeded";
  return error;
}

Result<std::unique_ptr<RequestStream>> EngineThread::submit(GenerateRequest request) {
  if (std::optional<Error> error = check(request)) return *std::move(error);
  const auto tokens = static_cast<std::int64_t>(request.prompt.size());
  const std::int64_t pages = projected_pages(request, config_.max_request_tokens);
  auto events = std::make_shared<EventQueue>();
  Command command;
  command.events = events;
  command.request = std::move(request);
  RequestId id = 0;
  {
    const std::scoped_lock lock(mutex_);
    if (stopping_) return Error{ErrorCode::kUnavailable, "the server is stopping", ""};
    const std::int64_t waiting = stats_.requests_waiting + inbox_requests_;
    const std::int64_t waiting_tokens = waiting_tokens_ + inbox_tokens_;
    const std::int64_t waiting_pages = waiting_pages_ + inbox_pages_;
    if (waiting >= config_.max_queued_requests ||
        (waiting > 0 &&
         (waiting_tokens + tokens > config_.max_queued_tokens || waiting_pages + pages > config_.max_queued_pages))) {
      ++rejected_;
      return Error{ErrorCode::kOverloaded,
                   concat("the queue is full: ", waiting, " requests with ", waiting_tokens,
                          " prompt tokens wait that may need ", waiting_pages, " pages, this one ", pages, " (at most ",
                          config_.max_queued_requests, ", ", config_.max_queued_tokens, " and ",
                          config_.max_queued_pages, "); try again later, or with a smaller max_tokens"),
                   "", "queue_full"};
    }
    if (waiting == 0 && stats_.requests_running == 0) last_step_ = clock_.now();  // idle until now
    id = command.id = next_id_++;
    ++inbox_requests_;
    inbox_tokens_ += tokens;
    inbox_pages_ += pages;
    inbox_.push_back(std::move(command));
  }
  wake_.notify_one();
  return std::unique_ptr<RequestStream>(std::make_unique<Stream>(*this, id, std::move(events)));
}

Result<WeightsReload> EngineThread::reload_weights(const std::string& model_dir, ReloadMode mode) {
  const std::unique_lock one(reload_mutex_, std::try_to_lock);
  if (!one.owns_lock()) {
    return Error{ErrorCode::kOverloaded, "other weights are being loaded; wait for that reload to end", "",
                 "reload_in_progress"};
  }
  const Nanoseconds begin = clock_.now();
  Result<std::unique_ptr<LoadedWeights>> weights = load_weights(model_dir);
  const double load_seconds = std::chrono::duration<double>(clock_.now() - begin).count();
  if (!weights.ok()) {
    log(LogLevel::kError, "weights not reloaded", {{"model_dir", model_dir}, {"error", weights.error().message}});
    const std::scoped_lock lock(mutex_);
    ++reloads_failed_;
    return weights.error();
  }
  Result<std::future<WeightsReload>> handed = hand_over(std::move(weights).value(), mode);
  if (!handed.ok()) return handed.error();
  WeightsReload done = handed.value().get();
  done.load_seconds = load_seconds;
  log(LogLevel::kInfo, "weights reloaded",
      {{"model_dir", model_dir},
       {"weights_version", done.version},
       {"mode", mode == ReloadMode::kKeep ? "keep" : "recompute"},
       {"requests", done.requests},
       {"load_ms", static_cast<std::int64_t>(done.load_seconds * 1000.0)},
       {"swap_ms", static_cast<std::int64_t>(done.swap_seconds * 1000.0)}});
  return done;
}

// The machine's failures as errors.
Result<std::unique_ptr<LoadedWeights>> EngineThread::load_weights(const std::string& model_dir) {
  try {
    return executor_->load_weights(model_dir);
  } catch (const std::bad_alloc&) {
    return Error{ErrorCode::kInternal, "there is no memory for a second set of weights; restart the server", ""};
  } catch (const std::exception& failure) {
    return Error{ErrorCode::kInternal, concat("loading the weights failed: ", failure.what()), ""};
  }
}

Result<std::future<WeightsReload>> EngineThread::hand_over(std::unique_ptr<LoadedWeights> weights, ReloadMode mode) {
  Command command;
  command.kind = Command::Kind::kUseWeights;
  command.weights = std::move(weights);
  command.reload_mode = mode;
  command.reloaded = std::make_shared<std::promise<WeightsReload>>();
  std::future<WeightsReload> done = command.reloaded->get_future();
  {
    const std::scoped_lock lock(mutex_);
    // What is in the inbox before the engine stops is still taken.
    if (stopping_) return Error{ErrorCode::kUnavailable, "the server is stopping", ""};
    inbox_.push_back(std::move(command));
  }
  wake_.notify_one();
  return done;
}

void EngineThread::use_weights(Command& command) {
  const Nanoseconds begin = clock_.now();
  WeightsReload done;
  done.previous = weights_version_;
  executor_->use_weights(std::move(command.weights));
  done.version = ++weights_version_;
  const bool keep = command.reload_mode == ReloadMode::kKeep;
  done.requests = scheduler_.weights_changed(static_cast<std::uint64_t>(weights_version_), keep);
  done.swap_seconds = std::chrono::duration<double>(clock_.now() - begin).count();
  {
    const std::scoped_lock lock(mutex_);
    stats_.weights_version = weights_version_;
    ++stats_.weight_reloads_total;
  }
  command.reloaded->set_value(done);
}

void EngineThread::run() {
  while (take_inbox()) {
    const Nanoseconds begin = clock_.now();
    const SchedulerCounters before = scheduler_.counters();
    try {
      scheduler_.step();
    } catch (const std::bad_alloc&) {
      // The host's memory ran out while planning: nobody's request can be trusted to be whole.
      scheduler_.fail_all(Error{ErrorCode::kInternal, "the server ran out of memory; try a smaller request", ""});
    }
    if (scheduler_.counters().rows > before.rows) record_step(before, begin);
    deliver();
    if (scheduler_.idle()) scheduler_.check_integrity();
  }
  scheduler_.fail_all(Error{ErrorCode::kUnavailable, "the server is stopping", ""});
  deliver();
}

void EngineThread::record_step(const SchedulerCounters& before, Nanoseconds begin) {
  const SchedulerCounters& now = scheduler_.counters();
  const Nanoseconds duration = clock_.now() - begin;
  step_rows_.add(static_cast<double>(now.rows - before.rows));
  step_seconds_.add(std::chrono::duration<double>(duration).count());
  if (config_.trace == nullptr) return;
  StepRecord step;
  step.begin = begin;
  step.duration = duration;
  step.execution = now.execution - before.execution;
  step.rows = now.rows - before.rows;
  step.draws = now.draws - before.draws;
  step.forks = now.forks - before.forks;
  step.joins = now.joins - before.joins;
  step.requests_running = scheduler_.num_running();
  step.requests_waiting = scheduler_.num_waiting();
  step.pages = scheduler_.pages();
  step.preempted = scheduler_.preempted();
  config_.trace->add(step);
}

// Waits while there is nothing to do; false once the engine stops.
bool EngineThread::take_inbox() {
  std::vector<Command> commands;
  bool go_on = true;
  {
    std::unique_lock lock(mutex_);
    wake_.wait(lock, [this] { return stopping_ || !inbox_.empty() || !scheduler_.idle(); });
    commands.swap(inbox_);
    stats_.requests_waiting += inbox_requests_;  // until the next snapshot
    waiting_tokens_ += inbox_tokens_;
    waiting_pages_ += inbox_pages_;
    inbox_requests_ = inbox_tokens_ = inbox_pages_ = 0;
    go_on = !stopping_;  // those that never reached the scheduler are added all the same, and told
  }
  for (Command& command : commands) {
    switch (command.kind) {
      case Command::Kind::kAdd:
        queues_.emplace(command.id, std::move(command.events));
        scheduler_.add(command.id, std::move(command.request));
        break;
      case Command::Kind::kCancel:
        scheduler_.cancel(command.id);
        break;
      case Command::Kind::kCut:
        scheduler_.cut(command.id, command.sample, command.branch);
        break;
      case Command::Kind::kUseWeights:
        use_weights(command);
        break;
    }
  }
  return go_on;
}

// Counts what happened, shows it in stats(), and then hands it out: who reads an event finds it counted.
void EngineThread::deliver() {
  std::vector<std::pair<std::shared_ptr<EventQueue>, std::vector<Event>>> deliveries;
  scheduler_.take_events([&](RequestId id, std::vector<Event>& events) {
    const auto queue = queues_.find(id);
    const bool finished = count(events);
    deliveries.emplace_back(queue->second, std::move(events));
    if (finished) queues_.erase(queue);
  });
  snapshot();
  for (auto& [queue, events] : deliveries) queue->push(events);
}

// Counts the ends among the events; true where the request is finished.
bool EngineThread::count(const std::vector<Event>& events) {
  bool finished = false;
  for (const Event& event : events) {
    if (const auto* end = std::get_if<SampleEndEvent>(&event); end != nullptr) {
      switch (end->reason) {
        case FinishReason::kStop:
          ++finished_stop_;
          break;
        case FinishReason::kLength:
          ++finished_length_;
          break;
        case FinishReason::kCancelled:
          ++cancelled_;
          break;
        case FinishReason::kError:
          ++failed_;
          break;
      }
    }
    if (const auto* end = std::get_if<FinishedEvent>(&event); end != nullptr) {
      finished = true;
      if (end->error) ++failed_;
    }
  }
  return finished;
}

void EngineThread::snapshot() {
  const SchedulerCounters& counters = scheduler_.counters();
  const PagePool::Counts pages = scheduler_.pages();
  const std::scoped_lock lock(mutex_);
  EngineStats& stats = stats_;
  stats.requests_running = scheduler_.num_running();
  stats.requests_waiting = scheduler_.num_waiting();
  waiting_tokens_ = scheduler_.waiting_tokens();
  waiting_pages_ = scheduler_.waiting_pages();
  stats.branches_running = scheduler_.branches_running();
  stats.branches_waiting = scheduler_.branches_waiting();
  stats.pages_total = pages.total;
  stats.pages_free = pages.free;
  stats.pages_cached = pages.cached;
  stats.pages_used = pages.referenced;
  stats.pages_shared = pages.shared;
  stats.prompt_tokens_total = counters.prompt_tokens;
  stats.cached_prompt_tokens_total = counters.cached_prompt_tokens;
  stats.generation_tokens_total = counters.generation_tokens;
  stats.prefix_query_tokens_total = counters.prefix_query_tokens;
  stats.prefix_hit_tokens_total = counters.cached_prompt_tokens;
  stats.prefix_evictions_total = scheduler_.evictions();
  stats.forks_total = counters.forks;
  stats.joins_total = counters.joins;
  stats.malformed_total = counters.malformed;
  stats.preemptions_total = counters.preemptions;
  stats.steps_total = counters.steps;
  stats.step_rows = step_rows_;
  stats.step_seconds = step_seconds_;
  stats.finished_stop_total = finished_stop_;
  stats.finished_length_total = finished_length_;
  stats.cancelled_total = cancelled_;
  stats.failed_total = failed_;
  last_step_ = clock_.now();
}

}  // namespace

std::unique_ptr<Engine> Engine::start(std::unique_ptr<Executor> executor, std::optional<Dialect> dialect,
                                      EngineConfig config) {
  return std::make_unique<EngineThread>(std::move(executor), std::move(dialect), std::move(config));
}

}  // namespace multiverse

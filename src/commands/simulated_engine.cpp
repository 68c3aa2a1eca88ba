#include "commands/simulated_engine.h"

#include <algorithm>
#include <condition_variable>
#include <utility>

namespace multiverse {

using std::chrono::steady_clock;

struct SimulatedEngine::Queue {
  std::size_t seed = 0;
  std::int64_t prompt_tokens = 0;
  steady_clock::time_point due;  // of the next token
  std::int32_t sent = 0;
  std::mutex mutex;  // of what follows
  std::condition_variable ready;
  std::function<void()> on_events;
  std::vector<Event> events;
  bool finished = false, cancelled = false;
};

class SimulatedEngine::Stream final : public RequestStream {
 public:
  explicit Stream(std::shared_ptr<Queue> queue) : queue_(std::move(queue)) {}
  ~Stream() override {
    Stream::notify({});
    Stream::cancel();
  }
  RequestId id() const override { return queue_->seed; }
  bool wait(Nanoseconds timeout, std::vector<Event>& out) override {
    std::unique_lock lock(queue_->mutex);
    const auto news = [this] { return !queue_->events.empty() || queue_->finished; };
    if (timeout > Nanoseconds::zero()) queue_->ready.wait_for(lock, timeout, news);
    std::move(queue_->events.begin(), queue_->events.end(), std::back_inserter(out));
    queue_->events.clear();
    return !queue_->finished;
  }
  void notify(std::function<void()> on_events) override {
    const std::lock_guard lock(queue_->mutex);
    queue_->on_events = std::move(on_events);
    if (queue_->on_events && (!queue_->events.empty() || queue_->finished)) queue_->on_events();
  }
  void cancel() override {
    const std::lock_guard lock(queue_->mutex);
    queue_->cancelled = true;
  }
  void cut(std::int32_t /*sample*/, std::int32_t /*branch*/) override {}

 private:
  const std::shared_ptr<Queue> queue_;
};

SimulatedEngine::SimulatedEngine(const SimulatedLoad& load, ExecutorInfo info)
    : load_(load), info_(std::move(info)), emitted_(load.requests * static_cast<std::size_t>(load.tokens)) {
  thread_ = std::thread([this] { run(); });
}

void SimulatedEngine::stop() {
  stopping_ = true;
  if (thread_.joinable()) thread_.join();
}

Result<std::unique_ptr<RequestStream>> SimulatedEngine::submit(GenerateRequest request) {
  if (load_.refuse) return Error{ErrorCode::kOverloaded, "the queue is full; try again later", "", "queue_full"};
  CHECK(request.seed < load_.requests, "seed ", request.seed, " of ", load_.requests);
  auto queue = std::make_shared<Queue>();
  queue->seed = request.seed;
  queue->prompt_tokens = static_cast<std::int64_t>(request.prompt.size());
  queue->due = steady_clock::now();
  if (load_.gap.count() > 0) {
    // Requests start evenly spread, whenever they come.
    queue->due += load_.gap * static_cast<std::int64_t>(request.seed) / static_cast<std::int64_t>(load_.requests);
    const std::lock_guard lock(mutex_);
    arrivals_.push_back(queue);
  } else {
    while (emit_due(*queue, steady_clock::time_point::max())) {
    }
  }
  return std::unique_ptr<RequestStream>(std::make_unique<Stream>(std::move(queue)));
}

void SimulatedEngine::run() {
  std::vector<std::shared_ptr<Queue>> running;
  for (auto next = steady_clock::now(); !stopping_; next += load_.step) {
    std::this_thread::sleep_until(next);
    {
      const std::lock_guard lock(mutex_);
      running.insert(running.end(), arrivals_.begin(), arrivals_.end());
      arrivals_.clear();
    }
    const auto now = steady_clock::now();
    const auto ended = std::remove_if(running.begin(), running.end(),
                                      [&](const std::shared_ptr<Queue>& queue) { return !emit_due(*queue, now); });
    running.erase(ended, running.end());
  }
}

// Hands out the next token if it is due. False once there are no more.
bool SimulatedEngine::emit_due(Queue& queue, steady_clock::time_point now) {
  if (queue.due > now) return true;
  queue.due += load_.gap;
  TokenEvent token;
  token.token = load_.token;
  const bool last = queue.sent + 1 == load_.tokens;
  const auto place = queue.seed * static_cast<std::size_t>(load_.tokens) + static_cast<std::size_t>(queue.sent++);
  emitted_[place] = steady_clock::now().time_since_epoch().count();
  std::unique_lock lock(queue.mutex);
  if (queue.cancelled) return false;
  queue.events.emplace_back(std::move(token));
  if (last) {
    SampleEndEvent end;
    end.reason = FinishReason::kLength;
    end.completion_tokens = load_.tokens;
    queue.events.emplace_back(end);
    FinishedEvent finished;
    finished.prompt_tokens = queue.prompt_tokens;
    queue.events.emplace_back(finished);
    queue.finished = true;
  }
  if (queue.on_events) queue.on_events();
  lock.unlock();  // who wakes would wait for it
  queue.ready.notify_one();
  return !last;
}

}  // namespace multiverse

// Between the engine's thread and a request's consumer.
#pragma once

#include <condition_variable>
#include <functional>
#include <mutex>
#include <utility>
#include <variant>
#include <vector>

#include "multiverse/base/clock.h"
#include "multiverse/scheduler/request.h"

namespace multiverse {

// The events of one request. Any thread.
class EventQueue {
 public:
  void push(std::vector<Event>& events) {
    {
      const std::scoped_lock lock(mutex_);
      for (Event& event : events) {
        finished_ = finished_ || std::holds_alternative<FinishedEvent>(event);
        events_.push_back(std::move(event));
      }
      if (on_events_) on_events_();
    }
    ready_.notify_one();  // unlocked: who wakes would wait for it
  }

  // See RequestStream::wait.
  bool wait(Nanoseconds timeout, std::vector<Event>& out) {
    std::unique_lock lock(mutex_);
    const auto news = [this] { return !events_.empty() || finished_; };
    if (timeout > Nanoseconds::zero()) ready_.wait_for(lock, timeout, news);
    for (Event& event : events_) out.push_back(std::move(event));
    events_.clear();
    return !finished_;
  }

  // See RequestStream::notify; the lock keeps a call from outliving it.
  void notify(std::function<void()> on_events) {
    const std::scoped_lock lock(mutex_);
    on_events_ = std::move(on_events);
    if (on_events_ && (!events_.empty() || finished_)) on_events_();
  }

  bool finished() const {
    const std::scoped_lock lock(mutex_);
    return finished_;
  }

 private:
  mutable std::mutex mutex_;
  std::condition_variable ready_;
  std::function<void()> on_events_;
  std::vector<Event> events_;
  bool finished_ = false;
};

}  // namespace multiverse

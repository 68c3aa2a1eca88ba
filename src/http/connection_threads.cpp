#include "http/connection_threads.h"

#include <system_error>
#include <thread>

namespace multiverse {

bool ConnectionThreads::take(std::function<void()> serve) {
  const std::lock_guard lock(mutex_);
  if (static_cast<int>(waiting_.size()) >= idle_) {
    if (threads_ >= max_threads_ || stopping_) return false;
    try {
      std::thread([this] { run(); }).detach();  // join() waits for the count instead
    } catch (const std::system_error&) {
      return false;
    }
    ++threads_;
  }
  waiting_.push_back(std::move(serve));
  work_.notify_one();
  return true;
}

void ConnectionThreads::run() {
  std::unique_lock lock(mutex_);
  while (true) {
    if (waiting_.empty()) {
      ++idle_;
      work_.wait_for(lock, kIdle, [this] { return !waiting_.empty() || stopping_; });
      --idle_;
      if (waiting_.empty()) break;
    }
    std::function<void()> serve = std::move(waiting_.front());
    waiting_.pop_front();
    lock.unlock();
    serve();
    lock.lock();
  }
  --threads_;
  gone_.notify_all();
}

void ConnectionThreads::join() {
  std::unique_lock lock(mutex_);
  stopping_ = true;
  work_.notify_all();
  gone_.wait(lock, [this] { return threads_ == 0; });
}

}  // namespace multiverse

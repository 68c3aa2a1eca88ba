#include "http/connection_threads.h"

#include <system_error>
#include <thread>

namespace multiverse {
namespace {

constexpr std::chrono::seconds kIdle{10};

}  // namespace

bool ConnectionThreads::take(int fd) {
  const std::lock_guard lock(mutex_);
  if (static_cast<int>(sockets_.size()) < idle_) {
    sockets_.push_back(fd);
    work_.notify_one();
    return true;
  }
  if (threads_ >= max_threads_ || stopping_) return false;
  sockets_.push_back(fd);
  try {
    std::thread([this] { run(); }).detach();  // join() waits for the count instead
  } catch (const std::system_error&) {
    sockets_.pop_back();
    return false;
  }
  ++threads_;
  return true;
}

void ConnectionThreads::run() {
  std::unique_lock lock(mutex_);
  while (true) {
    if (sockets_.empty()) {
      ++idle_;
      work_.wait_for(lock, kIdle, [this] { return !sockets_.empty() || stopping_; });
      --idle_;
      if (sockets_.empty()) break;
    }
    const int fd = sockets_.front();
    sockets_.pop_front();
    lock.unlock();
    serve_(fd);
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

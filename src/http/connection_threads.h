// A thread for each connection while it lasts; threads are kept a while for the next one.
#pragma once

#include <chrono>
#include <condition_variable>
#include <deque>
#include <functional>
#include <mutex>

namespace multiverse {

class ConnectionThreads {
 public:
  explicit ConnectionThreads(int max_threads) : max_threads_(max_threads) {}
  ~ConnectionThreads() { join(); }

  // `serve` returns when its connection is closed, and never throws. False where all threads are busy, or none can be
  // made.
  bool take(std::function<void()> serve);
  // Waits until all connections have ended; none may be given any more.
  void join();

 private:
  static constexpr std::chrono::seconds kIdle{10};
  void run();

  const int max_threads_;
  std::mutex mutex_;
  std::condition_variable work_, gone_;
  std::deque<std::function<void()>> waiting_;
  int threads_ = 0, idle_ = 0;
  bool stopping_ = false;
};

}  // namespace multiverse

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
  // `serve` takes a socket and returns when it is closed.
  ConnectionThreads(int max_threads, std::function<void(int fd)> serve)
      : max_threads_(max_threads), serve_(std::move(serve)) {}
  ~ConnectionThreads() { join(); }

  // False where all threads are busy, or none can be made: the socket remains the caller's.
  bool take(int fd);
  // Waits until all connections have ended; none may be given any more.
  void join();

 private:
  void run();

  const int max_threads_;
  const std::function<void(int)> serve_;
  std::mutex mutex_;
  std::condition_variable work_, gone_;
  std::deque<int> sockets_;
  int threads_ = 0, idle_ = 0;
  bool stopping_ = false;
};

}  // namespace multiverse

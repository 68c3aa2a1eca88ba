// SIGTERM and SIGINT, as something to wait for.
#pragma once

#include <condition_variable>
#include <mutex>
#include <thread>

namespace multiverse {

// Made before any other thread, as they inherit that the signals are blocked. The first signal lets wait() return, or
// ends the process with 0 where nobody waits yet; the second one ends it at once. SIGPIPE is ignored.
class Termination {
 public:
  Termination();
  ~Termination();
  Termination(const Termination&) = delete;
  Termination& operator=(const Termination&) = delete;

  void wait();

 private:
  void watch();

  std::mutex mutex_;
  std::condition_variable changed_;
  bool waiting_ = false, asked_ = false, done_ = false;
  std::thread thread_;
};

}  // namespace multiverse

// SIGTERM, SIGINT and SIGHUP, as something to wait for and to react to.
#pragma once

#include <chrono>
#include <condition_variable>
#include <functional>
#include <mutex>
#include <thread>

namespace multiverse {

// Made before any other thread, as they inherit that the signals are blocked. The first SIGTERM or SIGINT ends wait(),
// or the process with 0 where nobody waits yet; the second one ends it at once. SIGPIPE is ignored.
class Termination {
 public:
  Termination();
  ~Termination();
  Termination(const Termination&) = delete;
  Termination& operator=(const Termination&) = delete;

  // What SIGHUP does from now on, on a thread of its own; nothing where empty. Waits for a call that runs.
  void on_hangup(std::function<void()> react);
  // True once a signal asked to end; false where none did within `limit`.
  bool wait(std::chrono::milliseconds limit);

 private:
  void watch();

  std::mutex hangup_mutex_;  // held while the reaction runs
  std::function<void()> react_;
  std::mutex mutex_;
  std::condition_variable changed_;
  bool waiting_ = false, asked_ = false, done_ = false;
  std::thread thread_;
};

}  // namespace multiverse

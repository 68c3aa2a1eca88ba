#include "commands/termination.h"

#include <pthread.h>

#include <csignal>
#include <cstdlib>
#include <utility>

namespace multiverse {
namespace {

sigset_t watched_signals() {
  sigset_t set;
  sigemptyset(&set);
  for (const int signal : {SIGTERM, SIGINT, SIGHUP, SIGUSR1}) {  // SIGUSR1: our own, to end the thread
    sigaddset(&set, signal);
  }
  return set;
}

}  // namespace

Termination::Termination() {
  std::signal(SIGPIPE, SIG_IGN);
  const sigset_t set = watched_signals();
  pthread_sigmask(SIG_BLOCK, &set, nullptr);
  thread_ = std::thread([this] { watch(); });
}

Termination::~Termination() {
  {
    const std::lock_guard lock(mutex_);
    done_ = true;
  }
  pthread_kill(thread_.native_handle(), SIGUSR1);
  thread_.join();
}

void Termination::on_hangup(std::function<void()> react) {
  const std::lock_guard lock(hangup_mutex_);
  react_ = std::move(react);
}

bool Termination::wait(std::chrono::milliseconds limit) {
  std::unique_lock lock(mutex_);
  waiting_ = true;
  return changed_.wait_for(lock, limit, [this] { return asked_; });
}

void Termination::watch() {
  const sigset_t set = watched_signals();
  while (true) {
    int signal = 0;
    if (sigwait(&set, &signal) != 0) continue;
    if (signal == SIGHUP) {
      const std::lock_guard lock(hangup_mutex_);
      if (react_) react_();
      continue;
    }
    const std::lock_guard lock(mutex_);
    if (done_) return;
    if (signal == SIGUSR1) continue;
    // Threads that still compute must not see their memory go: no destructors.
    if (asked_ || !waiting_) std::_Exit(0);
    asked_ = true;
    changed_.notify_all();
  }
}

}  // namespace multiverse

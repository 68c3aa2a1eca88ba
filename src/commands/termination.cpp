#include "commands/termination.h"

#include <pthread.h>

#include <csignal>
#include <cstdlib>

namespace multiverse {
namespace {

sigset_t watched_signals() {
  sigset_t set;
  sigemptyset(&set);
  for (const int signal : {SIGTERM, SIGINT, SIGUSR1}) sigaddset(&set, signal);  // SIGUSR1: our own, to end the thread
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

void Termination::wait() {
  std::unique_lock lock(mutex_);
  waiting_ = true;
  changed_.wait(lock, [this] { return asked_; });
}

void Termination::watch() {
  const sigset_t set = watched_signals();
  while (true) {
    int signal = 0;
    if (sigwait(&set, &signal) != 0) continue;
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

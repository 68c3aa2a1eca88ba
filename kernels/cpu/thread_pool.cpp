#include "multiverse/kernels/thread_pool.h"

#include <sched.h>

#include <algorithm>
#include <chrono>
#include <fstream>
#include <string>

#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace multiverse::kernels {
namespace {

// Longer than the engine's work between two steps, so that workers are awake when the next one starts.
constexpr auto kSpin = std::chrono::microseconds(200);

void pause() {
#if defined(__x86_64__)
  _mm_pause();
#endif
}

// Whole CPUs of the cgroup's quota (cgroup v2), or 0 where there is none.
int cgroup_cpus() {
  std::ifstream file("/sys/fs/cgroup/cpu.max");
  std::string quota;
  double period = 0.0;
  if (!(file >> quota >> period) || quota == "max" || period <= 0.0) return 0;
  try {
    return std::max(1, static_cast<int>(std::stod(quota) / period));
  } catch (const std::exception&) {
    return 0;
  }
}

}  // namespace

int available_cpus() {
  cpu_set_t set;
  CPU_ZERO(&set);
  int cpus = sched_getaffinity(0, sizeof(set), &set) == 0 ? CPU_COUNT(&set)
                                                          : static_cast<int>(std::thread::hardware_concurrency());
  if (const int quota = cgroup_cpus(); quota > 0) cpus = std::min(cpus, quota);
  return std::max(1, cpus);
}

ThreadPool::ThreadPool(int threads) {
  for (int i = 1; i < threads; ++i) workers_.emplace_back([this, i] { work(i); });
}

ThreadPool::~ThreadPool() {
  stop_.store(true);
  wake_.fetch_add(1);
  wake_.notify_all();
  for (std::thread& worker : workers_) worker.join();
}

// Runs one task of the current job; false where none is left.
bool ThreadPool::take_task(int thread) {
  std::uint64_t ticket = ticket_.load(std::memory_order_seq_cst);  // pairs with sleeping_, see work()
  for (;;) {
    const auto next = static_cast<std::uint32_t>(ticket);
    // These may belong to a job newer than `ticket`; then the exchange below fails, since the old job's tasks were all
    // taken before a new one was written.
    const std::uint32_t count = count_.load(std::memory_order_acquire);
    const Function function = function_.load(std::memory_order_relaxed);
    const void* context = context_.load(std::memory_order_relaxed);
    if (next >= count) return false;
    if (ticket_.compare_exchange_weak(ticket, ticket + 1, std::memory_order_acq_rel, std::memory_order_acquire)) {
      function(context, next, thread);
      unfinished_.fetch_sub(1, std::memory_order_release);
      return true;
    }
  }
}

void ThreadPool::run(std::int64_t count, Function function, const void* context) {
  if (workers_.empty() || count <= 1) {
    for (std::int64_t task = 0; task < count; ++task) function(context, task, 0);
    return;
  }
  unfinished_.store(count, std::memory_order_relaxed);
  function_.store(function, std::memory_order_relaxed);
  context_.store(context, std::memory_order_relaxed);
  // A worker that reads this count with the old ticket fails its exchange only if the ticket changed: so first move to
  // the new generation with no task left, then write the count, then open the job.
  const std::uint64_t generation = (ticket_.load(std::memory_order_relaxed) >> 32) + 1;
  ticket_.store((generation << 32) | 0xFFFFFFFFU, std::memory_order_release);
  count_.store(static_cast<std::uint32_t>(count), std::memory_order_release);
  ticket_.store((generation + 1) << 32, std::memory_order_seq_cst);
  if (sleeping_.load(std::memory_order_seq_cst) > 0) {
    wake_.fetch_add(1);
    wake_.notify_all();
  }
  while (take_task(0)) {
  }
  for (int spins = 0; unfinished_.load(std::memory_order_acquire) > 0; ++spins) {
    if (spins < 20'000) {
      pause();
    } else {
      std::this_thread::yield();  // the worker lost its CPU to another process
    }
  }
}

void ThreadPool::work(int thread) {
  for (;;) {
    const auto spin_end = std::chrono::steady_clock::now() + kSpin;
    bool worked = false;
    for (int spins = 1; !stop_.load(std::memory_order_relaxed); ++spins) {
      if (take_task(thread)) {
        worked = true;
        break;
      }
      pause();
      if (spins % 64 == 0 && std::chrono::steady_clock::now() > spin_end) break;
    }
    if (stop_.load()) return;
    if (worked) continue;
    // run() opens a job, then looks for sleepers; here the other way round: one of the two sees the other.
    sleeping_.fetch_add(1, std::memory_order_seq_cst);
    const std::uint32_t seen = wake_.load();
    if (!take_task(thread) && !stop_.load()) wake_.wait(seen);
    sleeping_.fetch_sub(1, std::memory_order_seq_cst);
  }
}

}  // namespace multiverse::kernels

// Threads for the CPU kernels, made for steps of a millisecond: a dispatch costs about a microsecond while the pool is
// busy, and an idle pool sleeps.
#pragma once

#include <atomic>
#include <cstdint>
#include <thread>
#include <vector>

namespace multiverse::kernels {

// CPUs that this process may use: its affinity mask and cgroup quota, at least 1.
int available_cpus();

// Owned and used by one thread (the engine's); that thread works too. Workers take tasks one by one from a shared
// counter, so a worker that wakes late delays nothing. They spin for kSpin after their last task, then sleep.
class ThreadPool {
 public:
  explicit ThreadPool(int threads);  // ≥ 1, the caller included
  ~ThreadPool();
  ThreadPool(const ThreadPool&) = delete;
  ThreadPool& operator=(const ThreadPool&) = delete;

  int size() const { return static_cast<int>(workers_.size()) + 1; }

  // Calls body(task, thread) for every task in [0, count), thread in [0, size()), in any order and at once; returns
  // when all are done, and their writes are then visible. `body` must not throw and must not call back into the pool.
  template <class Body>
  void for_each(std::int64_t count, const Body& body) {
    run(
        count,
        [](const void* context, std::int64_t task, int thread) { (*static_cast<const Body*>(context))(task, thread); },
        &body);
  }

 private:
  using Function = void (*)(const void* context, std::int64_t task, int thread);

  void run(std::int64_t count, Function function, const void* context);
  void work(int thread);
  bool take_task(int thread);

  // Generation of the job (high half) and its next task (low half): one word, so that a worker that read an old job's
  // fields cannot take a task of the new one.
  alignas(64) std::atomic<std::uint64_t> ticket_{0};
  alignas(64) std::atomic<std::int64_t> unfinished_{0};
  alignas(64) std::atomic<std::uint32_t> wake_{0};  // changes when sleepers must look again
  std::atomic<std::int32_t> sleeping_{0};
  std::atomic<bool> stop_{false};
  std::atomic<std::uint32_t> count_{0};
  std::atomic<Function> function_{nullptr};
  std::atomic<const void*> context_{nullptr};
  std::vector<std::thread> workers_;
};

}  // namespace multiverse::kernels

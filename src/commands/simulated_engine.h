// An engine without a model, to measure what stands above it: tokens come at a set rate, or requests are refused.
#pragma once

#include <atomic>
#include <chrono>
#include <cstdint>
#include <memory>
#include <mutex>
#include <thread>
#include <vector>

#include "multiverse/engine/engine.h"

namespace multiverse {

struct SimulatedLoad {
  TokenId token = 0;                     // drawn every time
  std::int32_t tokens = 1;               // of each request
  std::chrono::microseconds gap{0};      // between a request's tokens; 0: all at once
  std::chrono::microseconds step{1000};  // tokens that are due come together at the next step
  bool refuse = false;                   // every request is answered "queue full"
  std::size_t requests = 0;              // at most, counted by their seeds from 0
};

class SimulatedEngine final : public Engine {
 public:
  SimulatedEngine(const SimulatedLoad& load, ExecutorInfo info);
  ~SimulatedEngine() override { stop(); }

  Result<std::unique_ptr<RequestStream>> submit(GenerateRequest request) override;
  void stop() override;
  EngineStats stats() const override { return {}; }
  const ExecutorInfo& executor_info() const override { return info_; }
  const EngineConfig& config() const override { return config_; }

  // When the engine handed out token `index` of the request with this seed; steady_clock's nanoseconds, 0: not yet.
  std::int64_t emitted(std::size_t seed, std::int32_t index) const {
    return emitted_[seed * static_cast<std::size_t>(load_.tokens) + static_cast<std::size_t>(index)];
  }

 private:
  class Stream;
  struct Queue;
  void run();
  bool emit_due(Queue& queue, std::chrono::steady_clock::time_point now);

  const SimulatedLoad load_;
  const ExecutorInfo info_;
  const EngineConfig config_;
  std::vector<std::atomic<std::int64_t>> emitted_;
  std::mutex mutex_;
  std::vector<std::shared_ptr<Queue>> arrivals_;  // since the last step
  std::atomic<bool> stopping_ = false;
  std::thread thread_;  // last: it uses all of the above
};

}  // namespace multiverse

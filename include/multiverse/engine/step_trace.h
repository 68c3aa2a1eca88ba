// A record of every step in Chrome's trace-event format: opens in Perfetto and in chrome://tracing.
#pragma once

#include <cstdint>
#include <cstdio>
#include <memory>
#include <span>
#include <string>

#include "multiverse/base/clock.h"
#include "multiverse/base/status.h"
#include "multiverse/cache/page_pool.h"
#include "multiverse/scheduler/request.h"

namespace multiverse {

struct StepRecord {
  Nanoseconds begin{0}, duration{0}, execution{0};  // execution: the part that the executor took
  std::int64_t rows = 0, draws = 0, forks = 0, joins = 0;
  std::int64_t requests_running = 0, requests_waiting = 0;
  PagePool::Counts pages;
  std::span<const RequestId> preempted;
};

// One thread. The file is whole after every buffer's flush but for the closing bracket, which both viewers do without.
class StepTrace {
 public:
  // Replaces the file. The error names it.
  static Result<std::shared_ptr<StepTrace>> open(const std::string& file, std::int64_t max_bytes);
  ~StepTrace();
  StepTrace(const StepTrace&) = delete;
  StepTrace& operator=(const StepTrace&) = delete;

  // Nothing once the file is full, which the log says once; nor after a failed write.
  void add(const StepRecord& step);

 private:
  StepTrace(std::FILE* file, std::int64_t max_bytes) : file_(file), left_(max_bytes) {}
  void write(const std::string& events);

  std::FILE* file_;  // null once closed
  std::int64_t left_;
};

}  // namespace multiverse

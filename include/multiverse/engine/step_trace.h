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

// One thread. The file is written in whole events, kFlushBytes at a time or once a second, so that it opens however the
// process ends: both viewers do without the closing bracket.
class StepTrace {
 public:
  static constexpr std::size_t kFlushBytes = std::size_t{1} << 16;

  // Replaces the file. The error names it.
  static Result<std::shared_ptr<StepTrace>> open(const std::string& file, std::int64_t max_bytes);
  ~StepTrace();
  StepTrace(const StepTrace&) = delete;
  StepTrace& operator=(const StepTrace&) = delete;

  // Nothing once the file is full, which the log says once; nor after a failed write.
  void add(const StepRecord& step);

 private:
  StepTrace(std::FILE* file, std::int64_t max_bytes) : file_(file), left_(max_bytes) {}
  void flush();
  void end(const char* why);

  std::FILE* file_;  // null once closed; without a buffer of its own
  std::int64_t left_;
  std::string events_;  // whole ones, not yet written
  Nanoseconds flushed_{0};
};

}  // namespace multiverse

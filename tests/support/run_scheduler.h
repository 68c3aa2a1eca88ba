// Runs a scheduler to its end and watches it: conservation after every step, and that something happens all the time.
#pragma once

#include <algorithm>
#include <functional>
#include <map>
#include <optional>
#include <vector>

#include "multiverse/base/check.h"
#include "multiverse/scheduler/scheduler.h"

namespace multiverse::testing {

// CHECKs the two promises of preemption, whatever the load: no 1,000 steps go by without a new token or an end, and no
// request is preempted twice in a row.
class ProgressMonitor {
 public:
  static constexpr std::int64_t kMostQuietSteps = 1000;

  void after_step(const Scheduler& scheduler) {
    ++quiet_steps_;
    CHECK(quiet_steps_ <= kMostQuietSteps, "no token and no end for ", quiet_steps_, " steps");
    longest_quiet = std::max(longest_quiet, quiet_steps_);
    for (const RequestId id : scheduler.preempted()) {
      CHECK(last_preempted_ != id, "request ", id, " was preempted twice in a row");
      last_preempted_ = id;
    }
  }
  void see(const std::vector<Event>& events) {
    const bool moved = std::any_of(events.begin(), events.end(), [](const Event& event) {
      return std::holds_alternative<TokenEvent>(event) || std::holds_alternative<FinishedEvent>(event);
    });
    if (moved) quiet_steps_ = 0;
  }

  std::int64_t longest_quiet = 0;

 private:
  std::int64_t quiet_steps_ = 0;
  std::optional<RequestId> last_preempted_;
};

// Steps until all requests have ended; their events. `meddle` is called before each step.
inline std::map<RequestId, std::vector<Event>> run_all(
    Scheduler& scheduler, const std::function<void()>& meddle = [] {}) {
  std::map<RequestId, std::vector<Event>> outcomes;
  ProgressMonitor monitor;
  while (!scheduler.idle()) {
    meddle();
    scheduler.check_integrity();
    scheduler.step();
    scheduler.check_integrity();
    monitor.after_step(scheduler);
    scheduler.take_events([&](RequestId id, std::vector<Event>& events) {
      monitor.see(events);
      for (Event& event : events) outcomes[id].push_back(std::move(event));
    });
  }
  return outcomes;
}

}  // namespace multiverse::testing

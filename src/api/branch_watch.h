// Collects BranchFacts from the events of one sample.
#pragma once

#include <map>

#include "multiverse/api/generation.h"

namespace multiverse {

// One thread. `now` is the time at which the event was seen.
class BranchWatch {
 public:
  // `max_running`: paths of the request that may run at once; 0: all.
  explicit BranchWatch(std::int32_t max_running) : max_running_(max_running) {}

  void add(const ForkEvent& event, BranchFacts& facts);
  void add(const BranchEndEvent& event, Nanoseconds now);
  void add(const JoinEvent& event, Nanoseconds now, BranchFacts& facts);

 private:
  std::int32_t max_running_;
  std::map<std::int32_t, std::int32_t> parents_;    // of the paths of open forks
  std::map<std::int32_t, Nanoseconds> first_ends_;  // by parent
};

}  // namespace multiverse

// Which requests run, and one step of them: admit, plan, reserve, execute, commit. Owned by the engine's thread.
#pragma once

#include <cstdint>
#include <list>
#include <memory>
#include <optional>
#include <vector>

#include "multiverse/base/clock.h"
#include "multiverse/exec/executor.h"
#include "multiverse/scheduler/planner.h"
#include "multiverse/scheduler/request_tree.h"

namespace multiverse {

struct SchedulerConfig {
  std::int32_t max_rows = 512;
  std::int32_t max_prefill_tokens = 256;
  bool prefix_cache = true;
  TreeOptions tree;
};

struct SchedulerCounters {  // totals since the start
  std::int64_t prompt_tokens = 0, cached_prompt_tokens = 0, generation_tokens = 0;
  std::int64_t prefix_query_tokens = 0, prefix_hit_tokens = 0;
  std::int64_t forks = 0, joins = 0, malformed = 0, preemptions = 0, steps = 0, rows = 0;
};

class Scheduler {
 public:
  // `executor`, `dialect` (may be null) and `clock` outlive the scheduler.
  Scheduler(Executor& executor, const Dialect* dialect, SchedulerConfig config, const Clock& clock);

  // Puts a request into the queue: by priority, then by arrival.
  void add(RequestId id, GenerateRequest request);
  // Ends it with kCancelled. Unknown ids are ignored.
  void cancel(RequestId id);
  // See RequestStream::cut.
  void cut(RequestId id, std::int32_t sample, std::int32_t branch);
  // Ends every request with this error (the engine stops).
  void fail_all(const Error& error);

  bool idle() const { return entries_.empty(); }
  // One forward pass. An ExecutionError fails the requests that were in it.
  void step();

  // Calls visit(id, events) for every request with new events; those that have a FinishedEvent are dropped after it.
  template <class Visit>
  void take_events(Visit visit) {
    for (auto entry = entries_.begin(); entry != entries_.end();) {
      std::vector<Event>& events = (*entry)->events;
      if (!events.empty()) visit((*entry)->id, events);
      events.clear();
      entry = (*entry)->done ? entries_.erase(entry) : std::next(entry);
    }
  }

  const SchedulerCounters& counters() const { return counters_; }
  PagePool::Counts pages() const { return pool_.counts(); }
  std::int32_t num_running() const;
  std::int32_t num_waiting() const;
  std::int64_t waiting_tokens() const;  // prompt tokens of requests that wait
  std::int32_t branches_running() const;
  std::int32_t branches_waiting() const;
  // CHECKs conservation of pages and that segments hold just what their computed tokens need.
  void check_integrity() const;

 private:
  struct Entry {
    RequestId id = 0;
    std::int64_t arrival = 0;     // order of arrival
    std::int64_t admission = -1;  // order of admission; -1 while it waits
    std::int32_t priority = 0;
    GenerateRequest request;            // until it is admitted first
    std::unique_ptr<RequestTree> tree;  // from then on, kept while preempted
    std::optional<Nanoseconds> deadline;
    Nanoseconds arrived{0};
    std::optional<Nanoseconds> queued;  // set at its first admission
    std::int64_t cached_tokens = 0;
    std::int64_t prompt_tokens = 0;
    bool recomputing = false;  // preempted once: its tails are prefill until they are computed again
    bool done = false;
    std::vector<std::optional<PromptEvent::Entry>> prompt_logprobs;
    std::int32_t prompt_logprobs_left = 0;  // until then the tree's events wait
    std::vector<Event> events;
  };
  using Entries = std::list<std::unique_ptr<Entry>>;

  // The phases of a step.
  void expire_deadlines();
  void admit();
  void plan();
  bool execute();
  void commit();

  bool try_admit(Entry& entry);
  void find_prefix(Entry& entry);
  void select();
  void reserve();
  bool take_pages(const PlannedRun& run);
  bool preempt_youngest();
  void publish(Segment& segment);
  void commit_sample(const PlannedSample& planned, const SampleResult& drawn);
  void collect(Entry& entry);
  void finish(Entry& entry, std::optional<Error> error);
  Entry* find(RequestId id);

  Executor& executor_;
  const Dialect* const dialect_;
  const SchedulerConfig config_;
  const Clock& clock_;
  PagePool pool_;
  Entries entries_;  // by priority, then arrival
  std::int64_t arrivals_ = 0, admissions_ = 0;
  SchedulerCounters counters_;

  // Of the step being made.
  std::vector<PlannedRun> runs_;
  std::vector<Entry*> in_step_;
  std::vector<PlannedSample> planned_samples_;
  Planner planner_;
  StepPlan plan_;
  StepResult result_;
};

}  // namespace multiverse

// Which requests run, and one step of them: expire, admit, plan, execute, commit, collect. Owned by the engine's
// thread.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <set>
#include <unordered_map>
#include <utility>
#include <vector>

#include "multiverse/base/clock.h"
#include "multiverse/exec/executor.h"
#include "multiverse/scheduler/planner.h"
#include "multiverse/scheduler/prefill_pace.h"
#include "multiverse/scheduler/request_tree.h"
#include "multiverse/scheduler/row_shares.h"

namespace multiverse {

// Priorities beyond ±this count as this, so that nobody can be put off for ever.
inline constexpr std::int32_t kMostPriority = 10;

// Admission leaves pages free for each branch that runs to grow into, so that nobody is let in only to be preempted.
// How many is learnt: twice as many after each preemption (less where computing again costs less than 16 steps), half
// as many after so many steps without one.
struct GrowthReserve {
  double least = 1.0, most = 64.0;  // pages a branch
  double half_life_steps = 1000.0;
  bool per_request = false;  // as if each request had one branch: for the simulation that compares
};

struct SchedulerConfig {
  std::int32_t max_rows = 512;
  std::int32_t max_prefill_tokens = 256;
  // A step that computes prompts takes at most so many times what it would take without, where branches decode in it
  // and no more requests have prompts than decode; see PrefillPace. 0: whatever max_prefill_tokens take.
  double prefill_stretch = 2.0;
  bool prefix_cache = true;
  TreeOptions tree;
  RowSharing sharing = RowSharing::kEqual;  // the others are for the simulation that compares them
  GrowthReserve reserve;
  // One step of GenerateRequest::priority weighs as much as having arrived so much earlier.
  Nanoseconds priority_step = std::chrono::seconds(10);
};

struct SchedulerCounters {  // totals since the start
  std::int64_t prompt_tokens = 0, cached_prompt_tokens = 0, generation_tokens = 0;
  std::int64_t prefix_query_tokens = 0;  // of these cached_prompt_tokens were found
  std::int64_t forks = 0, joins = 0, malformed = 0;
  std::int64_t preemptions = 0, preempted_tokens = 0;  // these had been computed
  std::int64_t steps = 0, rows = 0, draws = 0;
  Nanoseconds execution{0};  // time in the executor
};

// Pages that the request may come to need at most: its prompt and max_tokens of each sample, bounded by what one
// request may hold. Pages that it shares or finds are counted.
std::int64_t projected_pages(const GenerateRequest& request, std::int64_t max_request_tokens);

class Scheduler {
 public:
  // `executor`, `dialect` (may be null) and `clock` outlive the scheduler.
  Scheduler(Executor& executor, const Dialect* dialect, SchedulerConfig config, const Clock& clock);

  // Puts a request into the queue. Its turn is its time of arrival, put off by priority × priority_step: of two that
  // differ by p in priority, the later one goes first only if it came less than p × priority_step after the other.
  void add(RequestId id, GenerateRequest request);
  // Ends it with kCancelled. Unknown ids are ignored.
  void cancel(RequestId id);
  // See RequestStream::cut.
  void cut(RequestId id, std::int32_t sample, std::int32_t branch);
  // The executor has other weights: what the prefix index knows is void, and draws from now on are by `version`.
  // Requests that run give their pages up and are computed again, or, with `keep`, go on over the keys and values that
  // they have. How many did so.
  std::int32_t weights_changed(std::uint64_t version, bool keep);
  // Ends every request with this error (the engine stops).
  void fail_all(const Error& error);

  bool idle() const { return entries_.empty(); }
  // One forward pass. An ExecutionError fails the requests that were in it.
  void step();

  // Calls visit(id, events) for every request with new events; those that have a FinishedEvent are dropped after it.
  template <class Visit>
  void take_events(Visit visit) {
    for (Entry* entry : told_) {
      visit(entry->id, entry->events);
      entry->events.clear();
      entry->told = false;
      if (entry->state == Entry::State::kDone) entries_.erase(entry->id);
    }
    told_.clear();
  }

  const SchedulerCounters& counters() const { return counters_; }
  PagePool::Counts pages() const { return pool_.counts(); }
  std::int64_t evictions() const { return pool_.evictions(); }
  std::int32_t num_running() const { return static_cast<std::int32_t>(running_.size()); }
  std::int32_t num_waiting() const { return static_cast<std::int32_t>(waiting_.size()); }
  std::int64_t waiting_pages() const { return waiting_pages_; }           // that requests that wait may come to need
  std::int64_t waiting_tokens() const { return waiting_tokens_; }         // prompt tokens of requests that wait
  const std::vector<RequestId>& preempted() const { return preempted_; }  // in the last step, in order
  std::int32_t branches_running() const;                                  // of requests that run
  std::int32_t branches_waiting() const;                                  // paths of requests that run, not started yet
  // CHECKs conservation of pages and that segments hold just what their computed tokens need.
  void check_integrity() const;

 private:
  struct Entry {
    enum class State { kWaiting, kRunning, kDone };
    State state = State::kWaiting;
    RequestId id = 0;
    Nanoseconds turn{0};
    std::int64_t arrival = 0;           // order of arrival
    GenerateRequest request;            // until its turn comes
    std::unique_ptr<RequestTree> tree;  // from then on, kept while preempted
    std::optional<Nanoseconds> deadline;
    Nanoseconds arrived{0};
    std::optional<Nanoseconds> queued;  // set at its first admission
    std::int64_t cached_tokens = 0;
    std::int64_t prompt_tokens = 0;
    std::int64_t projected_pages = 0;
    bool stale = false;                           // holds keys and values of earlier weights: not for the prefix index
    std::vector<std::uint64_t> weights_versions;  // whose draws it has
    bool recomputing = false;                     // preempted once: its tails are prefill until they are computed again
    std::int64_t ends_at_preemption = -1;         // ends_ when it was preempted last
    std::int64_t refused_at = -1;                 // the step in which it found too few pages last, and
    std::int32_t pages_wanted = 0;                // how many it wanted
    std::vector<std::optional<PromptEvent::Entry>> prompt_logprobs;
    std::int32_t prompt_logprobs_left = 0;  // until then the tree's events wait
    bool told = false;                      // is in told_
    std::vector<Event> events;
  };
  struct ByTurn {
    bool operator()(const Entry* a, const Entry* b) const {
      return std::pair(a->turn, a->arrival) < std::pair(b->turn, b->arrival);
    }
  };

  // The phases of a step.
  void expire_deadlines();
  void admit();
  void plan();
  bool execute();
  void commit();
  void collect_all();

  bool try_admit(Entry& entry, std::int32_t growth);
  void build_tree(Entry& entry);
  void want_prompt_logprobs(Entry& entry);
  std::int32_t find_prefix(Entry& entry);
  Entry& victim() const;
  void preempt(Entry& entry);
  void give_up_pages(Entry& entry);
  void start_waiting(Entry& entry);
  void stop_waiting(Entry& entry);

  void select();
  StepBudget take_runs();
  PrefillLoad load() const;
  std::int32_t pages_wanted() const;
  void reserve();
  bool take_pages(const PlannedRun& run);
  void publish(Segment& segment);
  void commit_sample(const PlannedSample& planned, const SampleResult& drawn);
  void collect(Entry& entry);
  void finish(Entry& entry, std::optional<Error> error);
  void sweep();
  void tell(Entry& entry);
  Entry* find(RequestId id);

  Executor& executor_;
  const Dialect* const dialect_;
  const SchedulerConfig config_;
  const Clock& clock_;
  PagePool pool_;
  std::unordered_map<RequestId, std::unique_ptr<Entry>> entries_;
  std::set<Entry*, ByTurn> waiting_;
  std::vector<Entry*> running_;  // in the order of their turns
  std::set<std::pair<Nanoseconds, Entry*>> deadlines_;
  std::vector<Entry*> told_;  // with events that take_events() has not handed out
  std::int64_t arrivals_ = 0, ends_ = 0;
  std::int64_t waiting_tokens_ = 0, waiting_pages_ = 0;
  std::uint64_t weights_version_ = 1;
  double reserve_per_branch_;  // pages; between config_.reserve.least and most
  std::optional<RequestId> last_preempted_;
  SchedulerCounters counters_;

  // Of the step being made.
  std::vector<RequestId> preempted_;
  std::vector<PlannedRun> runs_;
  std::vector<RowDemand> demands_;  // of running_
  std::vector<StepBudget> budgets_;
  std::vector<PlannedSample> planned_samples_;
  PrefillPace pace_;
  Planner planner_;
  StepPlan plan_;
  StepResult result_;
};

}  // namespace multiverse

// The step, and what happens to a request from outside. Admission and preemption are in admission.cpp, what a step
// holds in step.cpp.
#include "multiverse/scheduler/scheduler.h"

#include <algorithm>
#include <iterator>
#include <variant>

#include "multiverse/base/check.h"

namespace multiverse {
namespace {

bool has_long_tails(RequestTree& tree) {
  bool found = false;
  tree.for_each_segment([&](SegmentId id) {
    const Segment& segment = tree.segment(id);
    found = found || (!segment.deferred && segment.size() - segment.computed > 1);
  });
  return found;
}

}  // namespace

Scheduler::Scheduler(Executor& executor, const Dialect* dialect, SchedulerConfig config, const Clock& clock)
    : executor_(executor),
      dialect_(dialect),
      config_(std::move(config)),
      clock_(clock),
      pool_(executor.info().num_pages),
      reserve_per_branch_(config_.reserve.least),
      pace_(config_.max_prefill_tokens, config_.prefill_stretch) {}

void Scheduler::step() {
  preempted_.clear();
  expire_deadlines();
  admit();
  plan();
  if (!runs_.empty() && execute()) commit();
  collect_all();
}

// ── From outside ──

void Scheduler::add(RequestId id, GenerateRequest request) {
  auto created = std::make_unique<Entry>();
  Entry& entry = *created;
  entry.id = id;
  entry.arrival = arrivals_++;
  const std::int32_t priority = std::clamp(request.priority, -kMostPriority, kMostPriority);
  entry.arrived = clock_.now();
  entry.turn = entry.arrived + priority * config_.priority_step;
  entry.prompt_tokens = static_cast<std::int64_t>(request.prompt.size());
  entry.projected_pages = projected_pages(request, config_.tree.max_request_tokens);
  if (request.deadline) {
    entry.deadline = entry.arrived + *request.deadline;
    deadlines_.emplace(*entry.deadline, &entry);
  }
  entry.request = std::move(request);
  const bool is_new = entries_.emplace(id, std::move(created)).second;
  CHECK(is_new, "request ", id, " is added twice");
  start_waiting(entry);
}

void Scheduler::cancel(RequestId id) {
  Entry* entry = find(id);
  if (entry == nullptr || entry->state == Entry::State::kDone) return;
  if (entry->tree != nullptr) entry->tree->finish_all(FinishReason::kCancelled);
  finish(*entry, std::nullopt);
  sweep();
}

void Scheduler::cut(RequestId id, std::int32_t sample, std::int32_t branch) {
  Entry* entry = find(id);
  if (entry == nullptr || entry->state == Entry::State::kDone || entry->tree == nullptr) return;
  entry->tree->cut(sample, branch);
  collect(*entry);
  sweep();
}

void Scheduler::fail_all(const Error& error) {
  for (const auto& [id, entry] : entries_) {
    if (entry->state != Entry::State::kDone) finish(*entry, error);
  }
  sweep();
}

void Scheduler::expire_deadlines() {
  const Nanoseconds now = clock_.now();
  while (!deadlines_.empty() && deadlines_.begin()->first <= now) {
    Entry& entry = *deadlines_.begin()->second;
    deadlines_.erase(deadlines_.begin());
    entry.deadline.reset();
    if (entry.queued) {
      entry.tree->finish_all(FinishReason::kLength);
      collect(entry);
    } else {
      finish(entry, Error{ErrorCode::kDeadline, "the request's deadline passed while it waited for admission", ""});
    }
  }
  sweep();
}

// ── Events and ends ──

void Scheduler::collect_all() {
  for (Entry* entry : running_) {
    if (entry->state == Entry::State::kDone) continue;  // with a failed step
    entry->tree->end_step();
    if (entry->recomputing) entry->recomputing = has_long_tails(*entry->tree);
    collect(*entry);
  }
  sweep();
}

void Scheduler::collect(Entry& entry) {
  if (entry.state == Entry::State::kDone || entry.prompt_logprobs_left > 0) return;
  RequestTree& tree = *entry.tree;
  for (Event& event : tree.events) {
    if (std::holds_alternative<TokenEvent>(event)) ++counters_.generation_tokens;
    if (std::holds_alternative<ForkEvent>(event)) ++counters_.forks;
    if (std::holds_alternative<JoinEvent>(event)) ++counters_.joins;
    if (auto* end = std::get_if<SampleEndEvent>(&event); end != nullptr) {
      counters_.malformed += end->parallel.malformed;
      end->weights_versions = entry.weights_versions;
    }
  }
  if (!tree.events.empty()) tell(entry);
  if (entry.events.empty()) {
    entry.events.swap(tree.events);
  } else {
    std::move(tree.events.begin(), tree.events.end(), std::back_inserter(entry.events));
    tree.events.clear();
  }
  if (tree.finished()) finish(entry, std::nullopt);
}

void Scheduler::finish(Entry& entry, std::optional<Error> error) {
  if (entry.state == Entry::State::kWaiting) stop_waiting(entry);
  if (entry.deadline) deadlines_.erase({*entry.deadline, &entry});
  if (entry.tree != nullptr) {
    if (!error) {
      for (Event& event : entry.tree->events) entry.events.push_back(std::move(event));
    }
    entry.tree->drop_pages();
  }
  entry.state = Entry::State::kDone;
  ++ends_;
  entry.events.emplace_back(FinishedEvent{entry.prompt_tokens, entry.cached_tokens, std::move(error),
                                          entry.queued.value_or(clock_.now() - entry.arrived)});
  tell(entry);
}

void Scheduler::tell(Entry& entry) {
  if (!entry.told) told_.push_back(&entry);
  entry.told = true;
}

// Takes those that are done from the running ones.
void Scheduler::sweep() {
  std::erase_if(running_, [](const Entry* entry) { return entry->state == Entry::State::kDone; });
}

// ── Looking at it ──

Scheduler::Entry* Scheduler::find(RequestId id) {
  const auto found = entries_.find(id);
  return found == entries_.end() ? nullptr : found->second.get();
}

std::int32_t Scheduler::branches_running() const {
  std::int32_t branches = 0;
  for (const Entry* entry : running_) branches += entry->tree->running_branches();
  return branches;
}

std::int32_t Scheduler::branches_waiting() const {
  std::int32_t branches = 0;
  for (const Entry* entry : running_) {
    for (const Sample& sample : entry->tree->samples) branches += sample.waiting;
  }
  return branches;
}

void Scheduler::check_integrity() const {
  pool_.check_integrity();
  std::vector<std::int32_t> held;
  std::int64_t tokens_waiting = 0;
  std::size_t waiting = 0, running = 0;
  for (const auto& item : entries_) {  // clang 14 lets no lambda capture structured bindings
    const auto& id = item.first;
    const auto& entry = item.second;
    if (entry->state == Entry::State::kWaiting) {
      ++waiting;
      tokens_waiting += entry->prompt_tokens;
    }
    if (entry->state == Entry::State::kRunning) ++running;
    if (entry->tree == nullptr) continue;
    std::int32_t incomplete = 0;
    entry->tree->for_each_segment([&](SegmentId segment_id) {
      const Segment& segment = entry->tree->segment(segment_id);
      CHECK(segment.computed <= segment.size(), "segment ", segment_id, " has ", segment.computed, " of ",
            segment.size(), " tokens computed");
      CHECK(segment.computed <= static_cast<std::int32_t>(segment.pages.size()) * kPageTokens, "segment ", segment_id,
            " has ", segment.pages.size(), " pages for ", segment.computed, " tokens");
      CHECK(entry->state == Entry::State::kRunning || segment.pages.empty(), "request ", id,
            " does not run and holds pages");
      if (segment.frozen && !segment.complete()) ++incomplete;
      held.insert(held.end(), segment.pages.ids().begin(), segment.pages.ids().end());
    });
    CHECK(incomplete == entry->tree->incomplete_frozen, "request ", id, " has ", incomplete,
          " incomplete frozen segments, ", entry->tree->incomplete_frozen, " counted");
  }
  std::sort(held.begin(), held.end());
  const auto pages = std::unique(held.begin(), held.end()) - held.begin();
  CHECK(pages == pool_.counts().referenced, pages, " pages are held by segments, ", pool_.counts().referenced,
        " are referenced");
  CHECK(waiting == waiting_.size() && running == running_.size(), waiting, " requests wait and ", running, " run, but ",
        waiting_.size(), " and ", running_.size(), " are listed");
  CHECK(tokens_waiting == waiting_tokens_, tokens_waiting, " prompt tokens wait, ", waiting_tokens_, " counted");
}

}  // namespace multiverse

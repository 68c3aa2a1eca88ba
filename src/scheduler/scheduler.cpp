#include "multiverse/scheduler/scheduler.h"

#include <algorithm>
#include <variant>

#include "multiverse/base/check.h"

namespace multiverse {
namespace {

std::int32_t pages_missing(RequestTree& tree) {
  std::int32_t pages = 0;
  tree.for_each_segment([&](SegmentId id) {
    const Segment& segment = tree.segment(id);
    pages += (segment.size() + kPageTokens - 1) / kPageTokens - static_cast<std::int32_t>(segment.pages.size());
  });
  return pages;
}

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
      pool_(executor.info().num_pages) {}

void Scheduler::add(RequestId id, GenerateRequest request) {
  auto entry = std::make_unique<Entry>();
  entry->id = id;
  entry->arrival = arrivals_++;
  entry->priority = request.priority;
  entry->prompt_tokens = static_cast<std::int64_t>(request.prompt.size());
  entry->arrived = clock_.now();
  if (request.deadline) entry->deadline = entry->arrived + *request.deadline;
  entry->request = std::move(request);
  const auto later = std::find_if(entries_.rbegin(), entries_.rend(), [&](const std::unique_ptr<Entry>& other) {
    return other->priority <= entry->priority;
  });
  entries_.insert(later.base(), std::move(entry));
}

void Scheduler::cancel(RequestId id) {
  Entry* entry = find(id);
  if (entry == nullptr || entry->done) return;
  if (entry->tree != nullptr) entry->tree->finish_all(FinishReason::kCancelled);
  finish(*entry, std::nullopt);
}

void Scheduler::cut(RequestId id, std::int32_t sample, std::int32_t branch) {
  Entry* entry = find(id);
  if (entry == nullptr || entry->done || entry->tree == nullptr) return;
  entry->tree->cut(sample, branch);
  collect(*entry);
}

void Scheduler::fail_all(const Error& error) {
  for (const auto& entry : entries_) {
    if (!entry->done) finish(*entry, error);
  }
}

void Scheduler::step() {
  expire_deadlines();
  admit();
  plan();
  if (!runs_.empty() && execute()) commit();
  for (const auto& entry : entries_) {
    if (entry->tree != nullptr && !entry->done) collect(*entry);
  }
}

void Scheduler::expire_deadlines() {
  const Nanoseconds now = clock_.now();
  for (const auto& entry : entries_) {
    if (entry->done || !entry->deadline || now < *entry->deadline) continue;
    if (entry->tree == nullptr) {
      finish(*entry, Error{ErrorCode::kDeadline, "the request's deadline passed while it waited for admission", ""});
    } else {
      entry->tree->finish_all(FinishReason::kLength);
    }
  }
}

// ── Admission ──

void Scheduler::admit() {
  for (const auto& entry : entries_) {
    if (entry->done || entry->admission >= 0) continue;
    if (!try_admit(*entry)) return;  // nobody overtakes: the pages that it waits for would never come
  }
}

bool Scheduler::try_admit(Entry& entry) {
  if (entry.tree == nullptr) {
    TreeOptions options = config_.tree;
    entry.tree = std::make_unique<RequestTree>(entry.id, std::move(entry.request), dialect_, std::move(options));
    const GenerateRequest& request = entry.tree->request();
    if (request.prompt_top_logprobs >= 0) {
      entry.prompt_logprobs.resize(request.prompt.size());
      const std::vector<bool>& forced = entry.tree->prompt_forced();
      entry.prompt_logprobs_left = static_cast<std::int32_t>(std::count(forced.begin() + 1, forced.end(), false));
      if (entry.prompt_logprobs_left == 0) entry.events.emplace_back(PromptEvent{entry.prompt_logprobs});
    }
  }
  find_prefix(entry);
  // A page for every branch that runs already, so that the newcomer isn't preempted at once.
  const std::int32_t needed = pages_missing(*entry.tree) + branches_running();
  if (needed > pool_.available() && num_running() > 0) {
    entry.tree->drop_pages();
    return false;
  }
  std::int64_t found = 0;
  for (const Segment& segment : entry.tree->segments) found += segment.computed;
  if (entry.admission < 0 && !entry.recomputing) {
    entry.cached_tokens = std::min(found, entry.prompt_tokens);
    counters_.prompt_tokens += entry.prompt_tokens;
    counters_.cached_prompt_tokens += entry.cached_tokens;
  }
  counters_.prefix_query_tokens += entry.tree->num_tokens();
  counters_.prefix_hit_tokens += found;
  if (!entry.queued) entry.queued = clock_.now() - entry.arrived;
  entry.admission = admissions_++;
  return true;
}

// Takes the full pages that the index knows. The last token of what is drawn from is always computed: its row is
// needed.
void Scheduler::find_prefix(Entry& entry) {
  if (!config_.prefix_cache) return;
  RequestTree& tree = *entry.tree;
  tree.for_each_segment([&](SegmentId id) {
    Segment& segment = tree.segment(id);
    if (entry.prompt_logprobs_left > 0 && segment.text_begin >= 0) return;  // every row of it is wanted
    const std::int32_t most = (segment.frozen ? segment.size() : segment.size() - 1) / kPageTokens;
    while (segment.chained_pages < most) {
      const PageKey key = segment.next_page_key();
      std::optional<PageRef> page = pool_.find(key);
      if (!page) break;
      segment.pages.push_back(std::move(*page));
      segment.chain_key = key;
      ++segment.chained_pages;
      segment.computed += kPageTokens;
    }
    if (segment.frozen && segment.computed > 0 && segment.complete()) --tree.incomplete_frozen;
  });
}

// ── Plan ──

void Scheduler::plan() {
  select();
  const auto needed = [this] {
    std::int32_t pages = 0;
    for (const PlannedRun& run : runs_) pages += pages_needed(run);
    return pages;
  };
  while (needed() > pool_.available() && preempt_youngest()) select();
  reserve();
}

void Scheduler::select() {
  for (const PlannedRun& run : runs_) run.request->segment(run.segment).planned = 0;
  runs_.clear();
  in_step_.clear();
  for (const auto& entry : entries_) {
    if (!entry->done && entry->admission >= 0) in_step_.push_back(entry.get());
  }
  std::sort(in_step_.begin(), in_step_.end(),
            [](const Entry* a, const Entry* b) { return a->admission < b->admission; });
  StepBudget budget{config_.max_rows, config_.max_prefill_tokens};
  for (Entry* entry : in_step_) {
    RequestTree& tree = *entry->tree;
    for (std::int32_t sample = 0; sample < tree.request().n; ++sample) tree.start_waiting(sample, config_.max_rows);
    select_runs(tree, entry->recomputing, budget, runs_);
  }
}

// Pages for the runs, first come first served; a run without pages waits, and so do those that would see it.
void Scheduler::reserve() {
  std::vector<PlannedRun> kept;
  kept.reserve(runs_.size());
  for (const PlannedRun& run : runs_) {
    Segment& segment = run.request->segment(run.segment);
    if (sees_only_computed(*run.request, segment) && take_pages(run)) {
      kept.push_back(run);
    } else {
      segment.planned = 0;
    }
  }
  const bool stuck = kept.empty() && !runs_.empty();
  runs_ = std::move(kept);
  // The oldest request is alone (others would have been preempted) and all pages are its own: it can't ever go on.
  if (stuck) in_step_.front()->tree->finish_all(FinishReason::kLength);
}

bool Scheduler::take_pages(const PlannedRun& run) {
  Segment& segment = run.request->segment(run.segment);
  if (pages_needed(run) > pool_.available()) return false;
  for (std::int32_t pages = pages_needed(run); pages > 0; --pages) segment.pages.push_back(*pool_.allocate());
  return true;
}

bool Scheduler::preempt_youngest() {
  if (in_step_.size() < 2) return false;
  Entry& youngest = *in_step_.back();
  youngest.tree->drop_pages();
  youngest.admission = -1;
  youngest.recomputing = true;
  ++counters_.preemptions;
  return true;
}

// ── Execute and commit ──

bool Scheduler::execute() {
  planner_.build(runs_, plan_, planned_samples_);
  ++counters_.steps;
  counters_.rows += static_cast<std::int64_t>(plan_.rows.size());
  try {
    executor_.execute(plan_, result_);
  } catch (const ExecutionError& failure) {
    for (const PlannedRun& run : runs_) {
      Entry* entry = find(run.request->id());
      if (entry != nullptr && !entry->done) finish(*entry, Error{ErrorCode::kInternal, failure.what(), ""});
    }
    runs_.clear();
    return false;
  }
  CHECK(result_.samples.size() == plan_.samples.size(), "the executor answered ", result_.samples.size(), " of ",
        plan_.samples.size(), " samples");
  return true;
}

void Scheduler::commit() {
  for (const PlannedRun& run : runs_) {
    Segment& segment = run.request->segment(run.segment);
    segment.computed += run.count;
    segment.planned = 0;
    if (segment.frozen && segment.complete()) --run.request->incomplete_frozen;
    publish(segment);
  }
  runs_.clear();
  for (std::size_t i = 0; i < planned_samples_.size(); ++i) commit_sample(planned_samples_[i], result_.samples[i]);
  for (Entry* entry : in_step_) {
    entry->tree->end_step();
    if (entry->recomputing) entry->recomputing = has_long_tails(*entry->tree);
  }
}

void Scheduler::publish(Segment& segment) {
  if (!config_.prefix_cache) return;
  while ((segment.chained_pages + 1) * kPageTokens <= segment.computed) {
    segment.chain_key = segment.next_page_key();
    pool_.publish(segment.pages[static_cast<std::size_t>(segment.chained_pages)], segment.chain_key);
    ++segment.chained_pages;
  }
}

void Scheduler::commit_sample(const PlannedSample& planned, const SampleResult& drawn) {
  if (planned.prompt_index < 0) {
    planned.request->commit(planned.sample, planned.branch, drawn);
    return;
  }
  Entry& entry = *find(planned.request->id());
  std::optional<PromptEvent::Entry>& slot = entry.prompt_logprobs[static_cast<std::size_t>(planned.prompt_index)];
  if (slot || entry.prompt_logprobs_left == 0) return;  // computed again after a preemption
  slot = PromptEvent::Entry{drawn.logprob, drawn.top};
  if (--entry.prompt_logprobs_left == 0) entry.events.emplace_back(PromptEvent{std::move(entry.prompt_logprobs)});
}

void Scheduler::collect(Entry& entry) {
  if (entry.done || entry.prompt_logprobs_left > 0) return;
  RequestTree& tree = *entry.tree;
  for (Event& event : tree.events) {
    if (const auto* token = std::get_if<TokenEvent>(&event); token != nullptr) ++counters_.generation_tokens;
    if (std::holds_alternative<ForkEvent>(event)) ++counters_.forks;
    if (std::holds_alternative<JoinEvent>(event)) ++counters_.joins;
    if (const auto* end = std::get_if<SampleEndEvent>(&event); end != nullptr) {
      counters_.malformed += end->parallel.malformed;
    }
    entry.events.push_back(std::move(event));
  }
  tree.events.clear();
  if (tree.finished()) finish(entry, std::nullopt);
}

void Scheduler::finish(Entry& entry, std::optional<Error> error) {
  if (entry.tree != nullptr) {
    if (!error) {
      for (Event& event : entry.tree->events) entry.events.push_back(std::move(event));
    }
    entry.tree->drop_pages();
  }
  entry.done = true;
  entry.events.emplace_back(FinishedEvent{entry.prompt_tokens, entry.cached_tokens, std::move(error),
                                          entry.queued.value_or(clock_.now() - entry.arrived)});
}

// ── Looking at it ──

Scheduler::Entry* Scheduler::find(RequestId id) {
  const auto found =
      std::find_if(entries_.begin(), entries_.end(), [id](const auto& entry) { return entry->id == id; });
  return found == entries_.end() ? nullptr : found->get();
}

std::int32_t Scheduler::num_running() const {
  return static_cast<std::int32_t>(std::count_if(
      entries_.begin(), entries_.end(), [](const auto& entry) { return !entry->done && entry->admission >= 0; }));
}

std::int32_t Scheduler::num_waiting() const {
  return static_cast<std::int32_t>(std::count_if(
      entries_.begin(), entries_.end(), [](const auto& entry) { return !entry->done && entry->admission < 0; }));
}

std::int64_t Scheduler::waiting_tokens() const {
  std::int64_t tokens = 0;
  for (const auto& entry : entries_) {
    if (!entry->done && entry->admission < 0) tokens += entry->prompt_tokens;
  }
  return tokens;
}

std::int32_t Scheduler::branches_running() const {
  std::int32_t branches = 0;
  for (const auto& entry : entries_) {
    if (entry->done || entry->admission < 0) continue;
    for (const Sample& sample : entry->tree->samples) branches += sample.running;
  }
  return branches;
}

std::int32_t Scheduler::branches_waiting() const {
  std::int32_t branches = 0;
  for (const auto& entry : entries_) {
    if (entry->done || entry->tree == nullptr) continue;
    for (const Sample& sample : entry->tree->samples) branches += sample.waiting;
  }
  return branches;
}

void Scheduler::check_integrity() const {
  pool_.check_integrity();
  std::vector<std::int32_t> held;
  for (const auto& entry : entries_) {
    if (entry->tree == nullptr) continue;
    std::int32_t incomplete = 0;
    entry->tree->for_each_segment([&](SegmentId id) {
      const Segment& segment = entry->tree->segment(id);
      CHECK(segment.computed <= segment.size(), "segment ", id, " has ", segment.computed, " of ", segment.size(),
            " tokens computed");
      CHECK(segment.computed <= static_cast<std::int32_t>(segment.pages.size()) * kPageTokens, "segment ", id, " has ",
            segment.pages.size(), " pages for ", segment.computed, " tokens");
      if (segment.frozen && !segment.complete()) ++incomplete;
      for (const PageRef& page : segment.pages) held.push_back(page.id());
    });
    CHECK(incomplete == entry->tree->incomplete_frozen, "request ", entry->id, " has ", incomplete,
          " incomplete frozen segments, ", entry->tree->incomplete_frozen, " counted");
  }
  std::sort(held.begin(), held.end());
  const auto pages = std::unique(held.begin(), held.end()) - held.begin();
  CHECK(pages == pool_.counts().referenced, pages, " pages are held by segments, ", pool_.counts().referenced,
        " are referenced");
}

}  // namespace multiverse

// What a step holds: rows shared among the requests, pages for them, the forward pass, and what came of it.
#include <algorithm>
#include <limits>

#include "multiverse/base/check.h"
#include "multiverse/scheduler/scheduler.h"

namespace multiverse {
namespace {

constexpr StepBudget kUnlimited{std::numeric_limits<std::int32_t>::max(), std::numeric_limits<std::int32_t>::max()};

std::int64_t tokens_generated(const RequestTree& tree) {
  std::int64_t tokens = 0;
  for (const Sample& sample : tree.samples) tokens += sample.generated;
  return tokens;
}

}  // namespace

void Scheduler::plan() {
  select();
  while (pages_wanted() > pool_.available() && running_.size() > 1) {
    preempt(victim());
    select();
  }
  reserve();
}

// All that the requests could compute, where that is not too much; else each gets its share of the rows.
void Scheduler::select() {
  budgets_.assign(running_.size(), kUnlimited);
  const StepBudget all = take_runs();
  const std::int32_t paced = pace_.budget(load());
  if (all.rows <= config_.max_rows && all.prefill_rows <= paced) return;
  const std::vector<RowDemand> wanted = demands_;
  const auto take_shares = [&](std::int32_t prefill_rows) {
    share_rows(wanted, {config_.max_rows, prefill_rows}, config_.sharing, counters_.steps, budgets_);
    take_runs();
  };
  take_shares(paced);
  // What was to decode sees the prompts themselves: it waits for them, and there is nothing to spare.
  if (paced < config_.max_prefill_tokens && load().decoding_rows == 0) take_shares(config_.max_prefill_tokens);
}

// Fills runs_ by budgets_, and demands_ with what they hold; the sum of these.
StepBudget Scheduler::take_runs() {
  for (const PlannedRun& run : runs_) run.request->segment(run.segment).planned = 0;
  runs_.clear();
  demands_.clear();
  StepBudget taken;
  for (std::size_t i = 0; i < running_.size(); ++i) {
    RequestTree& tree = *running_[i]->tree;
    for (std::int32_t sample = 0; sample < tree.request().n; ++sample) tree.start_waiting(sample, config_.max_rows);
    StepBudget left = budgets_[i];
    select_runs(tree, running_[i]->recomputing, left, runs_);
    const std::int32_t prefill = budgets_[i].prefill_rows - left.prefill_rows;
    const std::int32_t all = budgets_[i].rows - left.rows;
    demands_.push_back({all - prefill, prefill, tokens_generated(tree)});
    taken.rows += all;
    taken.prefill_rows += prefill;
  }
  return taken;
}

PrefillLoad Scheduler::load() const {
  PrefillLoad load;
  for (const RowDemand& demand : demands_) {
    load.decoding_rows += demand.decode;
    if (demand.decode > 0) ++load.decoding;
    if (demand.prefill > 0) ++load.prefilling;
  }
  return load;
}

std::int32_t Scheduler::pages_wanted() const {
  std::int32_t pages = 0;
  for (const PlannedRun& run : runs_) pages += run.new_pages;
  return pages;
}

// Pages for the runs, in their order; a run without pages waits, and so do those that would see it.
void Scheduler::reserve() {
  if (pages_wanted() <= pool_.available()) {
    for (const PlannedRun& run : runs_) take_pages(run);
    return;
  }
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
  // The request is alone (others would have been preempted) and all pages are its own: it can't ever go on.
  if (stuck) running_.front()->tree->finish_all(FinishReason::kLength);
}

bool Scheduler::take_pages(const PlannedRun& run) {
  if (run.new_pages > pool_.available()) return false;
  for (std::int32_t pages = run.new_pages; pages > 0; --pages) {
    run.request->segment(run.segment).pages.push_back(*pool_.allocate());
  }
  return true;
}

bool Scheduler::execute() {
  planner_.build(runs_, plan_, planned_samples_);
  ++counters_.steps;
  counters_.rows += static_cast<std::int64_t>(plan_.rows.size());
  counters_.draws += static_cast<std::int64_t>(plan_.samples.size());
  const Nanoseconds begin = clock_.now();
  try {
    executor_.execute(plan_, result_);
  } catch (const ExecutionError& failure) {
    for (const PlannedRun& run : runs_) {
      Entry& entry = *find(run.request->id());
      if (entry.state != Entry::State::kDone) finish(entry, Error{ErrorCode::kInternal, failure.what(), ""});
    }
    runs_.clear();
    return false;
  }
  const Nanoseconds took = clock_.now() - begin;
  counters_.execution += took;
  std::int32_t prefill = 0;
  for (const RowDemand& demand : demands_) prefill += demand.prefill;
  pace_.after_step(load().decoding_rows, prefill, took);
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
    if (!find(run.request->id())->stale) publish(segment);
  }
  runs_.clear();
  for (std::size_t i = 0; i < planned_samples_.size(); ++i) commit_sample(planned_samples_[i], result_.samples[i]);
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
  Entry& entry = *find(planned.request->id());
  if (planned.prompt_index < 0) {
    std::vector<std::uint64_t>& versions = entry.weights_versions;
    if (versions.empty() || versions.back() != weights_version_) versions.push_back(weights_version_);
    planned.request->commit(planned.sample, planned.branch, drawn);
    return;
  }
  std::optional<PromptEvent::Entry>& slot = entry.prompt_logprobs[static_cast<std::size_t>(planned.prompt_index)];
  if (slot || entry.prompt_logprobs_left == 0) return;  // computed again after a preemption
  slot = PromptEvent::Entry{drawn.logprob, drawn.top};
  if (--entry.prompt_logprobs_left > 0) return;
  entry.events.emplace_back(PromptEvent{std::move(entry.prompt_logprobs)});
  tell(entry);
}

}  // namespace multiverse

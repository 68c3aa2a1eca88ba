// Who comes in when, and who has to leave for lack of pages.
#include <algorithm>
#include <cmath>

#include "multiverse/base/check.h"
#include "multiverse/scheduler/scheduler.h"

namespace multiverse {
namespace {

// A refused request looks its prefix up again after so many steps: another request may have computed it meanwhile.
constexpr std::int64_t kStepsBetweenLookUps = 16;
// A preemption that costs so many steps to compute again, or more, doubles the reserve.
constexpr double kCostlySteps = 16.0;

std::int32_t pages_missing(RequestTree& tree) {
  std::int32_t pages = 0;
  tree.for_each_segment([&](SegmentId id) {
    const Segment& segment = tree.segment(id);
    pages += (segment.size() + kPageTokens - 1) / kPageTokens - static_cast<std::int32_t>(segment.pages.size());
  });
  return pages;
}

}  // namespace

std::int64_t projected_pages(const GenerateRequest& request, std::int64_t max_request_tokens) {
  const std::int64_t generated =
      request.max_tokens > 0 ? std::int64_t{request.n} * request.max_tokens : max_request_tokens;
  const std::int64_t tokens = static_cast<std::int64_t>(request.prompt.size()) + generated;
  return (std::min(tokens, max_request_tokens) + kPageTokens - 1) / kPageTokens;
}

void Scheduler::start_waiting(Entry& entry) {
  entry.state = Entry::State::kWaiting;
  waiting_.insert(&entry);
  waiting_tokens_ += entry.prompt_tokens;
  waiting_pages_ += entry.projected_pages;
}

void Scheduler::stop_waiting(Entry& entry) {
  waiting_.erase(&entry);
  waiting_tokens_ -= entry.prompt_tokens;
  waiting_pages_ -= entry.projected_pages;
}

// In the order of their turns: nobody overtakes, the pages that a large request waits for would never come. Not more
// requests than rows, which could only wait for each other.
void Scheduler::admit() {
  reserve_per_branch_ =
      std::max(config_.reserve.least, reserve_per_branch_ * std::exp2(-1.0 / config_.reserve.half_life_steps));
  std::int32_t branches = config_.reserve.per_request ? num_running() : branches_running();
  while (!waiting_.empty() && num_running() < config_.max_rows) {
    Entry& next = **waiting_.begin();
    if (!try_admit(next, static_cast<std::int32_t>(std::ceil(branches * reserve_per_branch_)))) return;
    branches += config_.reserve.per_request ? 1 : next.tree->running_branches();
  }
}

// `growth`: pages that are to stay free for those that run.
bool Scheduler::try_admit(Entry& entry, std::int32_t growth) {
  const bool alone = running_.empty();
  // What made it leave is still there.
  if (!alone && entry.ends_at_preemption == ends_) return false;
  if (!alone && entry.refused_at >= 0 && counters_.steps < entry.refused_at + kStepsBetweenLookUps &&
      entry.pages_wanted + growth > pool_.available()) {
    return false;
  }
  if (entry.tree == nullptr) build_tree(entry);
  const std::int32_t available = pool_.available();
  const std::int32_t found = find_prefix(entry);
  const std::int32_t missing = pages_missing(*entry.tree);
  if (!alone && missing + growth > pool_.available()) {
    entry.pages_wanted = missing + available - pool_.available();
    entry.refused_at = counters_.steps;
    entry.tree->drop_pages();
    return false;
  }
  if (!entry.queued) {
    entry.queued = clock_.now() - entry.arrived;
    entry.cached_tokens = std::min<std::int64_t>(found, entry.prompt_tokens);
    counters_.prompt_tokens += entry.prompt_tokens;
    counters_.cached_prompt_tokens += entry.cached_tokens;
    if (config_.prefix_cache) counters_.prefix_query_tokens += entry.prompt_tokens;
  }
  entry.refused_at = -1;
  stop_waiting(entry);
  entry.state = Entry::State::kRunning;
  running_.insert(std::upper_bound(running_.begin(), running_.end(), &entry, ByTurn{}), &entry);
  return true;
}

void Scheduler::build_tree(Entry& entry) {
  entry.tree = std::make_unique<RequestTree>(entry.id, std::move(entry.request), dialect_, config_.tree);
  if (entry.tree->request().prompt_top_logprobs < 0) return;
  want_prompt_logprobs(entry);
  if (entry.prompt_logprobs_left > 0) return;
  entry.events.emplace_back(PromptEvent{entry.prompt_logprobs});
  tell(entry);
}

void Scheduler::want_prompt_logprobs(Entry& entry) {
  const std::vector<bool>& forced = entry.tree->prompt_forced();
  entry.prompt_logprobs.assign(forced.size(), std::nullopt);
  entry.prompt_logprobs_left = static_cast<std::int32_t>(std::count(forced.begin() + 1, forced.end(), false));
}

// Takes the full pages that the index knows; how many tokens these hold. The last token of what is drawn from is always
// computed: its row is needed.
std::int32_t Scheduler::find_prefix(Entry& entry) {
  std::int32_t found = 0;
  if (!config_.prefix_cache) return found;
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
    found += segment.computed;
    if (segment.frozen && segment.computed > 0 && segment.complete()) --tree.incomplete_frozen;
  });
  return found;
}

// The youngest, but never the one that was preempted last: it has lost its work once.
Scheduler::Entry& Scheduler::victim() const {
  CHECK(running_.size() > 1, "nobody to preempt among ", running_.size(), " requests");
  Entry* youngest = running_.back();
  return youngest->id == last_preempted_ ? *running_[running_.size() - 2] : *youngest;
}

void Scheduler::preempt(Entry& entry) {
  const std::int64_t before = counters_.preempted_tokens;
  give_up_pages(entry);
  const double steps =
      pace_.cost_in_steps(counters_.preempted_tokens - before, load().decoding_rows).value_or(kCostlySteps);
  reserve_per_branch_ =
      std::min(config_.reserve.most, reserve_per_branch_ * std::exp2(std::min(1.0, steps / kCostlySteps)));
  entry.ends_at_preemption = ends_;
  last_preempted_ = entry.id;
  std::erase(running_, &entry);
}

// It leaves; its tokens stay.
void Scheduler::give_up_pages(Entry& entry) {
  ++counters_.preemptions;
  entry.tree->for_each_segment([&](SegmentId id) { counters_.preempted_tokens += entry.tree->segment(id).computed; });
  entry.tree->drop_pages();
  entry.recomputing = true;
  entry.stale = false;
  preempted_.push_back(entry.id);
  start_waiting(entry);
}

std::int32_t Scheduler::weights_changed(std::uint64_t version, bool keep) {
  weights_version_ = version;
  pool_.forget_all();
  const auto affected = static_cast<std::int32_t>(running_.size());
  for (Entry* entry : running_) {
    if (keep) {
      entry->stale = true;
    } else {
      give_up_pages(*entry);  // it leaves for no lack of pages, so nothing keeps it from coming back at once
    }
  }
  if (!keep) {
    running_.clear();
    // Log-probabilities of a prompt are all by the same weights.
    for (const auto& [id, entry] : entries_) {
      if (entry->prompt_logprobs_left > 0) want_prompt_logprobs(*entry);
    }
  }
  return affected;
}

}  // namespace multiverse

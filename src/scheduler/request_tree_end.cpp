// How requests and samples end: cut by a stop, cancelled, out of budget; and how their pages go.
#include <algorithm>

#include "multiverse/scheduler/request_tree.h"

namespace multiverse {
namespace {

bool is_prefix(const BranchAddress& prefix, const BranchAddress& of) {
  return prefix.size() <= of.size() && std::equal(prefix.begin(), prefix.end(), of.begin());
}

}  // namespace

void RequestTree::cut(std::int32_t sample, BranchId branch) {
  if (sample < 0 || sample >= static_cast<std::int32_t>(samples.size())) return;
  Sample& state = samples[static_cast<std::size_t>(sample)];
  if (state.finished || branch < 0 || branch >= static_cast<BranchId>(state.branches.size())) return;
  const BranchAddress address = branch_at({sample, branch}).address;
  state.cut = true;
  for (BranchId id = 0; id < static_cast<BranchId>(state.branches.size()); ++id) {
    const Place at{sample, id};
    Branch& other = branch_at(at);
    const bool precedes =
        other.address < address && !is_prefix(other.address, address) && !is_prefix(address, other.address);
    if (precedes || other.state == Branch::State::kEnded) continue;
    other.cut = true;
    if (other.state == Branch::State::kForked) continue;
    // What was not computed yet never will be.
    Segment& own = segment(other.own);
    num_tokens_ -= own.size() - own.computed;
    own.tokens.resize(static_cast<std::size_t>(own.computed));
    freeze(at);
    end_branch(at);
    if (other.parent >= 0) --branch_at({sample, other.parent}).open_forks.back().unfinished;
  }
  if (state.running + state.waiting == 0) finish_sample(sample, FinishReason::kStop);
}

void RequestTree::finish_sample(std::int32_t sample, FinishReason reason) {
  Sample& state = samples[static_cast<std::size_t>(sample)];
  if (state.finished) return;
  state.finished = true;
  if (state.drew_this_step) ++state.statistics.steps;
  state.drew_this_step = false;
  state.running = state.waiting = 0;
  --unfinished_samples_;
  // Its pages go, tails first, so that heads are found again longest.
  std::vector<SegmentId> own;
  for (SegmentId id = state.first_segment; id >= 0; id = segment(id).next_in_text) own.push_back(id);
  state.first_segment = -1;
  for (auto id = own.rbegin(); id != own.rend(); ++id) {
    Segment& dropped = segment(*id);
    if (dropped.frozen && !dropped.complete()) --incomplete_frozen;
    num_tokens_ -= dropped.size();
    if (keep_for_logprobs(*id)) continue;
    while (!dropped.pages.empty()) dropped.pages.pop_back();
    dropped.tokens.clear();
    dropped.computed = 0;
  }
  SampleEndEvent event;
  event.sample = sample;
  event.reason = reason;
  event.completion_tokens = state.generated;
  event.parallel = state.statistics;
  events.emplace_back(event);
}

// A sample that ends before its copy of the prompt's tail was computed (max_tokens is less than the forced tokens that
// the prompt's structure calls for) leaves the copy to the prompt: the log-probabilities of its tokens are still
// wanted.
bool RequestTree::keep_for_logprobs(SegmentId id) {
  Segment& tail = segment(id);
  if (request_.prompt_top_logprobs < 0 || tail.text_begin < 0 || tail.computed >= tail.prompt_tokens) return false;
  tail.tokens.resize(static_cast<std::size_t>(tail.prompt_tokens));
  tail.sample = -1;
  tail.branch = -1;
  tail.frozen = true;
  tail.next_in_text = -1;
  num_tokens_ += tail.size();
  ++incomplete_frozen;
  SegmentId last = first_segment_;
  while (last >= 0 && segment(last).next_in_text >= 0) last = segment(last).next_in_text;
  (last < 0 ? first_segment_ : segment(last).next_in_text) = id;
  return true;
}

void RequestTree::finish_all(FinishReason reason) {
  for (std::int32_t sample = 0; sample < static_cast<std::int32_t>(samples.size()); ++sample) {
    finish_sample(sample, reason);
  }
}

void RequestTree::drop_pages() {
  std::vector<SegmentId> order;
  for_each_segment([&order](SegmentId id) { order.push_back(id); });
  incomplete_frozen = 0;
  for (auto id = order.rbegin(); id != order.rend(); ++id) {
    Segment& dropped = segment(*id);
    while (!dropped.pages.empty()) dropped.pages.pop_back();
    dropped.computed = 0;
    dropped.chained_pages = 0;
    dropped.chain_key = dropped.start_key;
    if (dropped.frozen && dropped.size() > 0) ++incomplete_frozen;
  }
}

}  // namespace multiverse

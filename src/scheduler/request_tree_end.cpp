// How paths, samples and requests end: closed, cut by a stop, cancelled, out of budget; and how their pages go.
#include <algorithm>

#include "multiverse/scheduler/request_tree.h"

namespace multiverse {
namespace {

bool is_prefix(const BranchAddress& prefix, const BranchAddress& of) {
  return prefix.size() <= of.size() && std::equal(prefix.begin(), prefix.end(), of.begin());
}

}  // namespace

// The engine ends a path, as if it had drawn the tokens that do so: read back, they must mean the same.
void RequestTree::close_path(const Place& at) {
  while (!branch_at(at).grammar.ended()) {
    advance_grammar(at, dialect_->path_close);
    if (!append(at, dialect_->path_close, nullptr)) return;
  }
  const std::int32_t position = branch_at(at).chain.position - 1;
  if (append_forced(at, {dialect_->separator})) end_path(at, position);
}

void RequestTree::end_path(const Place& at, std::int32_t end_position) {
  freeze(at);
  end_branch(at);
  const Place parent{at.sample, branch_at(at).parent};
  Fork& fork = branch_at(parent).open_forks.back();
  fork.state.last_position = std::max(fork.state.last_position, end_position);
  fork.state.join_token_depth = std::max(fork.state.join_token_depth, branch_at(at).chain.token_depth);
  branch_at(parent).paths_left -= fork.state.path_budget - branch_at(at).paths_left;
  if (--fork.unfinished == 0 && !branch_at(parent).cut) {
    join(parent);
  } else if (sample_at(at).cut && sample_at(at).running + sample_at(at).waiting == 0) {
    finish_sample(at.sample, FinishReason::kStop);
  }
}

// Positions that the engine needs to end a path of this depth and all around it: </Path>, then the parent's
// <Conclusion> and separator, for every level.
std::int32_t RequestTree::room_to_close(std::size_t depth) {
  return 3 * static_cast<std::int32_t>(depth);
}

void RequestTree::check_limits(const Place& at) {
  Branch& branch = branch_at(at);
  const std::int32_t needed = room_to_close(branch.depth()) + branch.grammar.closers() - 1;
  const bool context_full = branch.chain.position + needed >= options_.max_model_len;
  if (branch.depth() == 0) {
    if (context_full) finish_sample(at.sample, FinishReason::kLength);
    return;
  }
  const std::int32_t most = request_.limits.max_path_tokens;
  if (context_full || (most > 0 && branch.num_tokens >= most)) close_path(at);
}

void RequestTree::end_branch(const Place& at) {
  Branch& branch = branch_at(at);
  --(branch.state == Branch::State::kWaiting ? sample_at(at).waiting : sample_at(at).running);
  branch.state = Branch::State::kEnded;
  BranchEndEvent event;
  event.sample = at.sample;
  event.branch = at.branch;
  events.emplace_back(event);
}

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
  if (reason == FinishReason::kLength && request_.strict && dialect_ != nullptr) close_open_paths(sample);
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
    dropped.pages.clear();
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

// Strict text is well formed to the end: paths that are still open get their path_close and separator, innermost first,
// beyond every budget. Nothing is computed of them. An abandoned block needs no more.
void RequestTree::close_open_paths(std::int32_t sample) {
  Sample& state = samples[static_cast<std::size_t>(sample)];
  // Children stand behind their parents.
  for (auto id = static_cast<BranchId>(state.branches.size()) - 1; id > 0; --id) {
    const Place at{sample, id};
    Branch& path = branch_at(at);
    if (path.state == Branch::State::kEnded || path.cut || path.num_tokens == 0) continue;
    if (path.state == Branch::State::kForked) {  // its block is left behind, after the last of its paths
      path.chain = branch_at({sample, path.open_forks.back().children.back()}).chain;
      path.grammar.refuse_fork();
    }
    const bool separated = path.grammar.ended() && segment(path.own).tokens.back() == dialect_->separator;
    while (!path.grammar.ended()) {
      advance_grammar(at, dialect_->path_close);
      count_token(at, dialect_->path_close, nullptr);
    }
    if (!separated) count_token(at, dialect_->separator, nullptr);
    end_branch(at);
  }
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
    dropped.pages.clear();
    dropped.computed = 0;
    dropped.chained_pages = 0;
    dropped.chain_key = dropped.start_key;
    if (dropped.frozen && dropped.size() > 0) ++incomplete_frozen;
  }
}

}  // namespace multiverse

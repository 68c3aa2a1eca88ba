// How a request begins: its prompt read into segments, and each sample put where the prompt leaves off.
#include <algorithm>

#include "multiverse/base/check.h"
#include "multiverse/scheduler/request_tree.h"

namespace multiverse {

RequestTree::RequestTree(RequestId id, GenerateRequest request, const Dialect* dialect, TreeOptions options)
    : id_(id),
      request_(std::move(request)),
      dialect_(request_.mode == Mode::kOff ? nullptr : dialect),
      options_(std::move(options)) {
  CHECK(!request_.prompt.empty() && request_.n > 0, "request ", id_, " without a prompt or a sample");
  Structure structure = dialect_ == nullptr ? plain_structure(prompt_size())
                                            : read_structure(request_.prompt, *dialect_, request_.limits);
  prompt_forced_ = structure.forced;
  const OpenBranch& innermost = structure.open.back();
  const TextSegment& last = structure.segments.back();
  // The branch that goes on writes from a page's start: its samples write their own copies of the prompt's last partial
  // page, at least one token of it, whose row is what they draw from.
  std::int32_t tail_begin = last.end;
  if (!structure.path_ended && !innermost.grammar.awaits_join()) {
    tail_begin = last.begin + (last.end - last.begin - 1) / kPageTokens * kPageTokens;
  }
  lay_prompt(structure, tail_begin);
  unfinished_samples_ = request_.n;
  samples.resize(static_cast<std::size_t>(request_.n));
  for (std::int32_t sample = 0; sample < request_.n; ++sample) open_sample(sample, structure, tail_begin);
}

void RequestTree::lay_prompt(const Structure& structure, std::int32_t tail_begin) {
  const std::span<const TokenId> prompt = request_.prompt;
  SegmentId previous = -1;
  for (const TextSegment& text : structure.segments) {
    const std::int32_t end = std::min(text.end, tail_begin);
    Segment& segment = segments.emplace_back();
    const auto id = static_cast<SegmentId>(segments.size()) - 1;
    const auto run = prompt.subspan(static_cast<std::size_t>(text.begin), static_cast<std::size_t>(end - text.begin));
    segment.tokens.assign(run.begin(), run.end());
    segment.first_position = text.first_position;
    segment.context = text.context;
    segment.prompt_tokens = segment.size();
    segment.text_begin = text.begin;
    segment.frozen = true;
    segment.start_key = segment.chain_key = key_of(text.lineage);
    num_tokens_ += segment.size();
    if (segment.size() == 0) continue;  // all of it is in the samples' tails
    ++incomplete_frozen;
    (previous < 0 ? first_segment_ : segments[static_cast<std::size_t>(previous)].next_in_text) = id;
    previous = id;
  }
}

void RequestTree::open_sample(std::int32_t sample, const Structure& structure, std::int32_t tail_begin) {
  open_branches(sample, structure);
  Sample& state = samples[static_cast<std::size_t>(sample)];
  if (request_.constraint != nullptr) state.constraint = request_.constraint->start();
  const auto innermost = static_cast<BranchId>(structure.open.size()) - 1;
  // Text order: what the innermost branch goes on with, then the paths still to come, level by level outwards.
  std::vector<std::vector<BranchId>> remaining;
  const auto announce = [&](BranchId branch) {
    const Place at{sample, branch};
    remaining.emplace_back();
    if (branch_at(at).grammar.awaits_join()) remaining.back() = add_children(at);
    std::vector<BranchId> children = remaining.back();
    if (branch < innermost) children.insert(children.begin(), branch + 1);
    if (!children.empty()) emit_fork(at, children);
  };
  for (BranchId branch = 0; branch < innermost; ++branch) announce(branch);
  const Place last{sample, innermost};
  ++state.running;
  branch_at(last).state = Branch::State::kRunning;
  write_tail(last, structure, tail_begin);
  if (state.finished) return;
  announce(innermost);
  SegmentId after = state.first_segment < 0    ? -1
                    : branch_at(last).own >= 0 ? branch_at(last).own
                                               : branch_at(last).lineage.previous;
  for (BranchId branch = innermost; branch >= 0; --branch) {
    if (!write_headers(sample, remaining[static_cast<std::size_t>(branch)], after)) return;
  }
  if (structure.path_ended) {
    end_path(last, branch_at(last).chain.position - 1 - static_cast<std::int32_t>(structure.owed.size()));
  } else if (branch_at(last).grammar.awaits_join()) {
    --state.running;
    branch_at(last).state = Branch::State::kForked;
    if (branch_at(last).open_forks.back().unfinished == 0) join(last);
  } else {
    check_limits(last);
  }
}

// The text's open branches, as branches of the sample; all but the innermost wait for the next.
void RequestTree::open_branches(std::int32_t sample, const Structure& structure) {
  Sample& state = samples[static_cast<std::size_t>(sample)];
  for (const OpenBranch& open : structure.open) {
    const auto id = static_cast<BranchId>(state.branches.size());
    Branch& branch = state.branches.emplace_back();
    branch.parent = id - 1;
    branch.state = Branch::State::kForked;
    branch.address = open.address;
    branch.label = open.label;
    branch.random_key = branch_random_key(sample, branch.address);
    branch.grammar = open.grammar;
    branch.context = open.context;
    branch.lineage = open.lineage;
    branch.chain = {open.chain.position, 0, 0};
    branch.num_tokens = open.num_tokens;
    branch.forks = open.forks;
    branch.paths_left = open.paths_left;
    for (const OpenFork& fork : open.open_forks) {
      branch.open_forks.push_back({fork, {}, 0});
      branch.open_forks.back().state.path_chain = {fork.fork_position + 1, 0, 0};
      branch.open_forks.back().state.join_token_depth = 0;
    }
    if (id > 0) {
      Fork& fork = state.branches[static_cast<std::size_t>(id) - 1].open_forks.back();
      fork.children.push_back(id);
      ++fork.unfinished;
    }
  }
}

// The sample's own copy of the prompt's tail, and what the engine still owes to it.
void RequestTree::write_tail(const Place& at, const Structure& structure, std::int32_t tail_begin) {
  Branch& branch = branch_at(at);
  const TextSegment& last = structure.segments.back();
  const bool has_tail = tail_begin < last.end;
  if (!has_tail && structure.owed.empty()) return;
  if (has_tail) {
    const auto id = static_cast<SegmentId>(structure.segments.size()) - 1;
    const bool all = tail_begin == last.begin;
    branch.context = last.context;
    if (!all) branch.context.push_back(id);
    branch.lineage = all ? last.lineage : Lineage{id, false, {}};
    branch.chain.position -= last.end - tail_begin;
  }
  Segment& own = segment(begin_segment(at, -1));
  const auto tail = std::span<const TokenId>(request_.prompt).subspan(static_cast<std::size_t>(tail_begin));
  if (has_tail) {
    own.tokens.assign(tail.begin(), tail.end());
    own.prompt_tokens = own.size();
    if (at.sample == 0) own.text_begin = tail_begin;
    branch.chain.position += own.size();
    num_tokens_ += own.size();
  }
  if (!append_forced(at, structure.owed)) return;
  if (!branch_at(at).grammar.awaits_join()) return;
  // The separator after the fork token, which all paths see.
  freeze(at);
  branch.open_forks.back().state.path_chain.token_depth = branch.chain.token_depth;
}

PageKey RequestTree::key_of(const Lineage& lineage) const {
  if (lineage.previous < 0) return root_key(request_.cache_salt, options_.weights_version);
  const PageKey before = segment(lineage.previous).end_key();
  if (lineage.begins_path) return fork_key(before);
  if (lineage.joined.empty()) return before;
  std::vector<PageKey> paths;
  for (const SegmentId path : lineage.joined) paths.push_back(segment(path).end_key());
  return join_key(before, paths);
}

}  // namespace multiverse

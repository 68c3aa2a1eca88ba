#include "multiverse/scheduler/request_tree.h"

#include <algorithm>

#include "multiverse/base/check.h"

namespace multiverse {
// Any fixed mixing will do.
std::uint64_t branch_random_key(std::int32_t sample, const BranchAddress& address) {
  std::uint64_t key = 0x9E3779B97F4A7C15ULL;
  const auto add = [&key](std::uint64_t word) {
    key ^= word + 0x9E3779B97F4A7C15ULL;
    key = (key ^ (key >> 30)) * 0xBF58476D1CE4E5B9ULL;
    key = (key ^ (key >> 27)) * 0x94D049BB133111EBULL;
    key ^= key >> 31;
  };
  add(static_cast<std::uint64_t>(sample));
  for (const std::int32_t part : address) add(static_cast<std::uint64_t>(part));
  return key;
}

PageKey Segment::extended(const PageKey& key, std::int32_t page) const {
  const std::int32_t begin = page * kPageTokens;
  const auto count = static_cast<std::size_t>(std::min(kPageTokens, size() - begin));
  return extend_key(key, std::span(tokens).subspan(static_cast<std::size_t>(begin), count), first_position + begin);
}

PageKey Segment::end_key() const {
  PageKey key = chain_key;
  for (std::int32_t page = chained_pages; page * kPageTokens < size(); ++page) key = extended(key, page);
  return key;
}

std::int32_t RequestTree::running_branches() const {
  std::int32_t branches = 0;
  for (const Sample& sample : samples) branches += sample.running;
  return branches;
}

// ── Writing ──

SegmentId RequestTree::begin_segment(const Place& at, SegmentId after) {
  Branch& branch = branch_at(at);
  const auto id = static_cast<SegmentId>(segments.size());
  Segment& created = segments.emplace_back();
  created.first_position = branch.chain.position;
  created.context = branch.context;
  created.sample = at.sample;
  created.branch = at.branch;
  created.deferred = branch.state == Branch::State::kWaiting;
  created.start_key = created.chain_key = key_of(branch.lineage);
  SegmentId& link = after < 0 ? sample_at(at).first_segment : segment(after).next_in_text;
  created.next_in_text = link;
  link = id;
  branch.own = id;
  return id;
}

void RequestTree::freeze(const Place& at) {
  Branch& branch = branch_at(at);
  const SegmentId id = branch.own;
  Segment& own = segment(id);
  own.frozen = true;
  if (!own.complete()) ++incomplete_frozen;
  branch.own = -1;
  branch.context.push_back(id);
  branch.lineage = {id, false, {}};
  // What a parent writes between two paths is seen by the second (prompts only: while generating nothing stands there).
  for (Fork& fork : branch.open_forks) fork.state.path_view.push_back(id);
}

bool RequestTree::append(const Place& at, TokenId token, const SampleResult* drawn) {
  const Branch& branch = branch_at(at);
  if (request_.recording != nullptr && request_.recording->token(branch.address, branch.num_tokens) != token) {
    finish_sample(at.sample, FinishReason::kError);
    return false;
  }
  segment(branch.own).tokens.push_back(token);
  ++num_tokens_;
  count_token(at, token, drawn);
  if ((request_.max_tokens > 0 && sample_at(at).generated >= request_.max_tokens) ||
      num_tokens_ >= options_.max_request_tokens) {
    finish_sample(at.sample, FinishReason::kLength);
    return false;
  }
  ConstraintState* constraint = at.branch == 0 ? sample_at(at).constraint.get() : nullptr;
  if (constraint != nullptr && !constraint->accept(token)) {
    finish_sample(at.sample, FinishReason::kLength);  // one of the constraint's own limits
    return false;
  }
  return true;
}

void RequestTree::count_token(const Place& at, TokenId token, const SampleResult* drawn) {
  Sample& sample = sample_at(at);
  Branch& branch = branch_at(at);
  ++branch.num_tokens;
  ++branch.chain.position;
  ++branch.chain.token_depth;
  ++sample.generated;
  sample.statistics.critical_path_tokens = std::max(sample.statistics.critical_path_tokens, branch.chain.token_depth);
  TokenEvent event;
  event.sample = at.sample;
  event.branch = at.branch;
  event.token = token;
  event.forced = drawn == nullptr;
  if (drawn != nullptr && request_.top_logprobs >= 0) {
    event.logprob = drawn->logprob;
    event.top = drawn->top;
  }
  events.emplace_back(std::move(event));
}

bool RequestTree::append_forced(const Place& at, const std::vector<TokenId>& tokens) {
  return std::all_of(tokens.begin(), tokens.end(), [&](TokenId token) { return append(at, token, nullptr); });
}

void RequestTree::commit(std::int32_t sample, BranchId branch, const SampleResult& drawn) {
  const Place at{sample, branch};
  Sample& state = sample_at(at);
  if (state.finished || branch_at(at).state != Branch::State::kRunning) return;
  state.drew_this_step = true;
  const bool stop_token =
      std::find(request_.stop_tokens.begin(), request_.stop_tokens.end(), drawn.token) != request_.stop_tokens.end();
  if (!stop_token && !is_end_token(drawn.token)) {
    const Grammar::Outcome outcome = advance_grammar(at, drawn.token);
    if (append(at, drawn.token, &drawn)) advance(at, outcome);
    return;
  }
  if (branch_at(at).depth() > 0 && !stop_token) {
    close_path(at);
    return;
  }
  TokenEvent event;
  event.branch = branch;
  event.token = drawn.token;
  event.sample = sample;
  event.end_of_text = true;
  if (request_.top_logprobs >= 0) {
    event.logprob = drawn.logprob;
    event.top = drawn.top;
  }
  events.emplace_back(std::move(event));
  ++state.generated;
  state.statistics.critical_path_tokens =
      std::max(state.statistics.critical_path_tokens, branch_at(at).chain.token_depth + 1);
  if (branch_at(at).depth() > 0) {
    cut(sample, branch);  // what precedes the path in the text still runs to its end
  } else {
    finish_sample(sample, FinishReason::kStop);
  }
}

void RequestTree::end_step() {
  for (Sample& sample : samples) {
    if (sample.drew_this_step) ++sample.statistics.steps;
    sample.drew_this_step = false;
  }
}

// ── Structure ──

ForkLimits RequestTree::fork_limits(const Branch& branch) const {
  const StructureLimits& limits = request_.limits;
  return {std::min(limits.max_paths, branch.paths_left),
          static_cast<std::int32_t>(branch.depth()) < std::min(limits.max_depth, dialect_->max_depth)};
}

// What the branch's next token means there.
Grammar::Outcome RequestTree::advance_grammar(const Place& at, TokenId token) {
  if (dialect_ == nullptr) return {};
  Branch& branch = branch_at(at);
  const Grammar::Outcome outcome = branch.grammar.advance(*dialect_, token, fork_limits(branch));
  if (outcome.malformed) ++sample_at(at).statistics.malformed;
  return outcome;
}

// Goes on after a token that was appended.
void RequestTree::advance(const Place& at, const Grammar::Outcome& outcome) {
  Branch& branch = branch_at(at);
  const std::int32_t position = branch.chain.position - 1;
  switch (outcome.effect) {
    case Grammar::Effect::kFork:
      fork(at);
      return;
    case Grammar::Effect::kEndPath:
      if (append_forced(at, forced_next(branch, {dialect_->separator}))) end_path(at, position);
      return;
    case Grammar::Effect::kNone:
    case Grammar::Effect::kStartPath:
    case Grammar::Effect::kConclude:
      break;
  }
  // A block that closed without a conclusion takes its fork along; below it may be one that still waits for its paths.
  while (!branch.open_forks.empty() && branch.open_forks.back().state.block_depth > branch.grammar.depth()) {
    branch.open_forks.pop_back();
  }
  if (branch.grammar.awaits_join()) {
    resume(at);
  } else {
    check_limits(at);
  }
}

void RequestTree::fork(const Place& at) {
  Branch& branch = branch_at(at);
  OpenFork state;
  state.block_depth = branch.grammar.depth();
  state.number = ++branch.forks;
  state.fork_position = state.last_position = branch.chain.position - 1;
  state.labels = branch.grammar.labels();
  if (request_.recording != nullptr) {
    const std::int32_t paths = request_.recording->paths(branch.address, branch.num_tokens - 1);
    if (paths < 0) {  // the text goes on without paths
      branch.grammar.refuse_fork();
      --branch.forks;
      check_limits(at);
      return;
    }
    state.labels.resize(static_cast<std::size_t>(paths));
  }
  if (!can_fork(at, state)) return;
  state.path_budget = split_path_budget(branch.paths_left, branch.grammar.labels().size());
  if (!append_forced(at, forced_next(branch, {dialect_->separator}))) return;
  const SegmentId parent_segment = branch.own;
  freeze(at);
  state.path_view = branch.context;
  state.path_chain = {state.fork_position + 1, branch.chain.token_depth, 0};
  branch.open_forks.push_back({std::move(state), {}, 0});
  branch.state = Branch::State::kForked;
  --sample_at(at).running;
  const std::vector<BranchId> children = add_children(at);
  emit_fork(at, children);
  SegmentId after = parent_segment;
  write_headers(at.sample, children, after);
}

// Whether all paths can be opened and closed. Where not, the branch ends.
bool RequestTree::can_fork(const Place& at, const OpenFork& state) {
  Branch& branch = branch_at(at);
  std::size_t longest_header = 0, all_headers = 0;
  for (const std::string& label : state.labels) {
    const std::size_t header = dialect_->path_header(label).size();
    longest_header = std::max(longest_header, header);
    all_headers += header;
  }
  const std::int64_t needed = branch.chain.position + static_cast<std::int64_t>(longest_header);
  const bool fits_context = needed + room_to_close(branch.depth() + 1) <= options_.max_model_len;
  // A text that ended among its headers would count paths that it doesn't have.
  const auto written = 1 + static_cast<std::int64_t>(all_headers);
  const bool fits_budget =
      !request_.strict || ((request_.max_tokens == 0 || sample_at(at).generated + written < request_.max_tokens) &&
                           num_tokens_ + written < options_.max_request_tokens);
  if (fits_context && fits_budget) return true;
  branch.grammar.refuse_fork();
  if (fits_budget && branch.depth() > 0) {
    close_path(at);
  } else {
    finish_sample(at.sample, FinishReason::kLength);
  }
  return false;
}

// The block below a closed one still waits for paths, or for its conclusion.
void RequestTree::resume(const Place& at) {
  SegmentId after = branch_at(at).own;
  freeze(at);
  branch_at(at).state = Branch::State::kForked;
  --sample_at(at).running;
  const std::vector<BranchId> children = add_children(at);
  if (children.empty()) {
    join(at);
    return;
  }
  emit_fork(at, children);
  write_headers(at.sample, children, after);
}

// Branches, still without text, for the paths of the innermost open fork that no text has begun.
std::vector<BranchId> RequestTree::add_children(const Place& at) {
  Sample& sample = sample_at(at);
  std::vector<BranchId> children;
  const std::size_t labels = branch_at(at).open_forks.back().state.labels.size();
  for (auto number = static_cast<std::size_t>(branch_at(at).open_forks.back().state.started); number < labels;
       ++number) {
    const auto id = static_cast<BranchId>(sample.branches.size());
    sample.branches.emplace_back();
    Branch& parent = branch_at(at);  // the vector may have moved
    Fork& fork = parent.open_forks.back();
    Branch& child = sample.branches.back();
    child.parent = at.branch;
    child.address = parent.address;
    child.address.push_back(fork.state.number);
    child.address.push_back(++fork.state.started);
    child.label = fork.state.labels[number];
    child.random_key = branch_random_key(at.sample, child.address);
    child.grammar = Grammar(/*is_path=*/true);
    child.context = fork.state.path_view;
    child.lineage = {parent.lineage.previous, true, {}};
    child.chain = fork.state.path_chain;
    fork.children.push_back(id);
    ++fork.unfinished;
    children.push_back(id);
    ++sample.waiting;
    child.paths_left = fork.state.path_budget;
    ++sample.statistics.paths;
    sample.statistics.max_depth = std::max(sample.statistics.max_depth, static_cast<std::int64_t>(child.depth()));
  }
  if (children.empty()) return children;
  ++sample.statistics.blocks;
  sample.statistics.max_width = std::max(sample.statistics.max_width, static_cast<std::int64_t>(labels));
  return children;
}

void RequestTree::emit_fork(const Place& at, const std::vector<BranchId>& children) {
  ForkEvent event;
  event.sample = at.sample;
  event.parent = at.branch;
  for (const BranchId id : children) {
    const Branch& child = branch_at({at.sample, id});
    event.children.push_back({id, child.address, child.label});
  }
  events.emplace_back(std::move(event));
}

// Each path's forced header, in text order after the segment `after`, which moves along.
bool RequestTree::write_headers(std::int32_t sample, const std::vector<BranchId>& children, SegmentId& after) {
  for (const BranchId id : children) {
    const Place at{sample, id};
    after = begin_segment(at, after);
    const Branch& path = branch_at(at);
    if (!append_forced(at, forced_next(path, dialect_->path_header(path.label)))) return false;
  }
  return true;
}

// What the engine writes at the branch's next place: as usual, or what is recorded there, which may lack separators.
std::vector<TokenId> RequestTree::forced_next(const Branch& branch, std::vector<TokenId> usual) const {
  if (request_.recording == nullptr) return usual;
  const Recording& recording = *request_.recording;
  std::vector<TokenId> written;
  for (std::int32_t index = branch.num_tokens; recording.forced(branch.address, index); ++index) {
    const TokenId token = recording.token(branch.address, index);
    if (token != usual.front() && written.empty()) break;
    if (token == dialect_->conclusion_open && !written.empty()) break;  // after a fork's separator
    written.push_back(token);
  }
  return written;
}

void RequestTree::join(const Place& at) {
  Branch& branch = branch_at(at);
  const Fork fork = std::move(branch.open_forks.back());
  branch.open_forks.pop_back();
  SegmentId after = branch.lineage.joined.empty() ? branch.lineage.previous : branch.lineage.joined.back();
  for (const BranchId id : fork.children) {
    const Branch& child = branch_at({at.sample, id});
    const auto written = child.context.begin() + static_cast<std::ptrdiff_t>(fork.state.path_view.size());
    branch.context.insert(branch.context.end(), written, child.context.end());
    for (Fork& outer : branch.open_forks) {
      outer.state.path_view.insert(outer.state.path_view.end(), written, child.context.end());
    }
    after = child.lineage.previous;
    branch.lineage.joined.push_back(after);
  }
  if (segment(after).sample < 0) after = -1;  // all of the text so far is the prompt's
  branch.chain = {fork.state.last_position + 1, fork.state.join_token_depth, 0};
  branch.grammar.conclude();
  branch.state = Branch::State::kRunning;
  ++sample_at(at).running;
  JoinEvent event;
  event.sample = at.sample;
  event.parent = at.branch;
  events.emplace_back(event);
  begin_segment(at, after);
  if (append_forced(at, forced_next(branch_at(at), dialect_->conclusion_header()))) check_limits(at);
}

void RequestTree::start_waiting(std::int32_t sample, std::int32_t most) {
  Sample& state = samples[static_cast<std::size_t>(sample)];
  if (request_.mode == Mode::kSerial) most = 1;
  if (request_.limits.max_running_paths > 0) most = std::min(most, request_.limits.max_running_paths);
  for (SegmentId id = state.first_segment; id >= 0 && state.waiting > 0 && state.running < most;
       id = segment(id).next_in_text) {
    Branch& branch = branch_at({sample, segment(id).branch});
    if (!segment(id).deferred || branch.state != Branch::State::kWaiting) continue;
    segment(id).deferred = false;
    branch.state = Branch::State::kRunning;
    --state.waiting;
    ++state.running;
  }
}

bool RequestTree::is_end_token(TokenId token) const {
  return !request_.ignore_eos &&
         std::find(options_.eos_tokens.begin(), options_.eos_tokens.end(), token) != options_.eos_tokens.end();
}

void RequestTree::append_banned(const Sample& sample, const Branch& branch, std::vector<TokenId>& banned) const {
  const bool strict = request_.strict && dialect_ != nullptr;
  if (strict) branch.grammar.append_banned(*dialect_, fork_limits(branch), banned);
  const bool inside = strict && (branch.grammar.in_block() || branch.depth() > 0);
  if (inside || sample.generated < request_.min_tokens) {
    banned.insert(banned.end(), options_.eos_tokens.begin(), options_.eos_tokens.end());
    banned.insert(banned.end(), request_.stop_tokens.begin(), request_.stop_tokens.end());
  }
}

}  // namespace multiverse

// One request as a tree: its segments, its samples, their branches, and the operations on them: a token is drawn, a
// branch forks, a path ends, a block joins, a text is cut. Knows no pages of others, no model and no time.
#pragma once

#include <cstdint>
#include <deque>
#include <memory>
#include <string>
#include <vector>

#include "multiverse/cache/page_hash.h"
#include "multiverse/cache/page_pool.h"
#include "multiverse/dialect/structure.h"
#include "multiverse/scheduler/request.h"

namespace multiverse {

using SegmentId = std::int32_t;  // index into RequestTree::segments
using BranchId = std::int32_t;   // index into Sample::branches; 0 is the root

// An append-only run of tokens of one branch. tokens [0, computed) have their keys and values in `pages`; all progress
// is the one inequality computed ≤ tokens.size().
struct Segment {
  std::vector<TokenId> tokens;
  std::int32_t first_position = 0;
  std::vector<SegmentId> context;  // frozen segments that it sees wholly, in text order
  std::int32_t prompt_tokens = 0;  // leading tokens that are of the prompt
  std::int32_t text_begin = -1;    // where these stand in the prompt, for their log-probabilities; -1: not wanted here
  std::int32_t sample = -1;        // that writes it; -1: the prompt's, of all samples
  BranchId branch = -1;
  SegmentId next_in_text = -1;
  bool frozen = false;    // nothing is appended any more
  bool deferred = false;  // its path has not been started: not to be computed yet

  PageKey start_key;  // of all that stands before it
  // The planner's and the scheduler's.
  PageList pages;
  std::int32_t computed = 0;
  std::int32_t planned = 0;        // rows of it in the step being planned
  std::int32_t chained_pages = 0;  // full pages that `chain_key` covers; these are published
  PageKey chain_key;

  std::int32_t size() const { return static_cast<std::int32_t>(tokens.size()); }
  bool complete() const { return computed == size(); }
  // The key of the page after those that the chain covers, which is full.
  PageKey next_page_key() const { return extended(chain_key, chained_pages); }
  // Of all that stands before what follows it.
  PageKey end_key() const;

 private:
  // `key` followed by the tokens of one page, which may be the last, partial one.
  PageKey extended(const PageKey& key, std::int32_t page) const;
};

struct Fork {
  OpenFork state;                  // path_view and the like name this request's segments
  std::vector<BranchId> children;  // that this request runs, in outline order
  std::int32_t unfinished = 0;     // of these
};

struct Branch {
  enum class State {
    kWaiting,  // a path that was not started yet
    kRunning,  // draws tokens
    kForked,   // waits for its paths
    kEnded,
  };
  State state = State::kWaiting;
  BranchId parent = -1;
  BranchAddress address;
  std::string label;
  std::uint64_t random_key = 0;  // of (sample, address)
  Grammar grammar{false};
  std::vector<SegmentId> context;  // frozen segments that its next segment sees
  Lineage lineage;                 // of its next segment
  SegmentId own = -1;              // being written; -1 while it waits or is forked
  ChainState chain;
  std::int32_t num_tokens = 0;  // written by it, in all segments, a prompt's part included
  std::int32_t forks = 0;
  std::int32_t paths_left = 0;  // that it may still begin, its descendants included
  std::vector<Fork> open_forks;
  bool cut = false;  // its text from some point on is not wanted: it never goes on

  std::size_t depth() const { return address.size() / 2; }
};

// A branch's share of the random key of its draws: the same for the same (sample, address) always.
std::uint64_t branch_random_key(std::int32_t sample, const BranchAddress& address);

struct Sample {
  std::vector<Branch> branches;
  SegmentId first_segment = -1;  // in text order, after the prompt's
  std::int32_t running = 0, waiting = 0;
  std::int64_t generated = 0;
  std::unique_ptr<ConstraintState> constraint;  // null: none; it knows the root branch
  bool drew_this_step = false;
  bool finished = false;
  bool cut = false;
  TreeStatistics statistics;
};

// What the server adds to a request's own limits.
struct TreeOptions {
  std::int32_t max_model_len = 0;       // positions are < this
  std::int64_t max_request_tokens = 0;  // tokens that the request may hold in the cache
  std::vector<TokenId> eos_tokens;
  std::uint64_t weights_version = 0;
};

class RequestTree {
 public:
  // `dialect`: null for a model without control tokens; outlives the tree. Reads the prompt's structure and sets the
  // samples up; the prompt has at least one token and fits the options' bounds (the engine checked).
  RequestTree(RequestId id, GenerateRequest request, const Dialect* dialect, TreeOptions options);

  // The result of a draw for a running branch. Ignored where the branch has ended meanwhile.
  void commit(std::int32_t sample, BranchId branch, const SampleResult& drawn);
  // Counts a forward pass that drew for every sample that got a token since the last call.
  void end_step();
  // Starts waiting paths in text order while fewer than the request's max_running_paths (and `most`) run.
  void start_waiting(std::int32_t sample, std::int32_t most);
  // See RequestStream::cut. Unknown samples and branches are ignored: the sample may have ended meanwhile.
  void cut(std::int32_t sample, BranchId branch);
  // Lets all pages go, tails before heads; everything is to be computed again. Tokens stay.
  void drop_pages();
  // Ends every sample that has not ended.
  void finish_all(FinishReason reason);

  RequestId id() const { return id_; }
  const GenerateRequest& request() const { return request_; }
  const Dialect* dialect() const { return dialect_; }
  bool finished() const { return unfinished_samples_ == 0; }
  // Branches of all samples that run.
  std::int32_t running_branches() const;
  std::int32_t prompt_size() const { return static_cast<std::int32_t>(request_.prompt.size()); }
  const std::vector<bool>& prompt_forced() const { return prompt_forced_; }
  // Tokens known in all segments: what the request needs in the cache.
  std::int64_t num_tokens() const { return num_tokens_; }
  // Tokens that may not be drawn by this branch now. `banned` is appended to.
  void append_banned(const Sample& sample, const Branch& branch, std::vector<TokenId>& banned) const;
  // Segments in text order: the prompt's first, then each sample's.
  template <class Visit>
  void for_each_segment(Visit visit) {
    for (SegmentId id = first_segment_; id >= 0; id = segment(id).next_in_text) visit(id);
    for (const Sample& sample : samples) {
      for (SegmentId id = sample.first_segment; id >= 0; id = segment(id).next_in_text) visit(id);
    }
  }
  Segment& segment(SegmentId id) { return segments[static_cast<std::size_t>(id)]; }
  const Segment& segment(SegmentId id) const { return segments[static_cast<std::size_t>(id)]; }
  SegmentId first_segment() const { return first_segment_; }

  std::deque<Segment> segments;
  std::vector<Sample> samples;
  std::int32_t incomplete_frozen = 0;  // frozen segments with computed < size; kept by freeze() and the scheduler
  std::vector<Event> events;           // what happened, in order; the engine takes them

 private:
  struct Place {  // a branch of a sample
    std::int32_t sample;
    BranchId branch;
  };
  Sample& sample_at(const Place& at) { return samples[static_cast<std::size_t>(at.sample)]; }
  Branch& branch_at(const Place& at) { return sample_at(at).branches[static_cast<std::size_t>(at.branch)]; }

  // Setting up.
  void lay_prompt(const Structure& structure, std::int32_t tail_begin);
  void open_sample(std::int32_t sample, const Structure& structure, std::int32_t tail_begin);
  void open_branches(std::int32_t sample, const Structure& structure);
  void write_tail(const Place& at, const Structure& structure, std::int32_t tail_begin);
  PageKey key_of(const Lineage& lineage) const;

  // Writing. append() is false where the sample ended with it: nothing more may be done to the sample then.
  SegmentId begin_segment(const Place& at, SegmentId after);
  void freeze(const Place& at);
  bool append(const Place& at, TokenId token, const SampleResult* drawn);
  void count_token(const Place& at, TokenId token, const SampleResult* drawn);
  bool append_forced(const Place& at, const std::vector<TokenId>& tokens);

  // Structure.
  void advance(const Place& at, const Grammar::Outcome& outcome);
  void fork(const Place& at);
  void resume(const Place& at);
  std::vector<BranchId> add_children(const Place& at);
  Grammar::Outcome advance_grammar(const Place& at, TokenId token);
  bool can_fork(const Place& at, const OpenFork& state);
  std::vector<TokenId> forced_next(const Branch& branch, std::vector<TokenId> usual) const;
  void emit_fork(const Place& at, const std::vector<BranchId>& children);
  bool write_headers(std::int32_t sample, const std::vector<BranchId>& children, SegmentId& after);
  void close_path(const Place& at);
  void end_path(const Place& at, std::int32_t end_position);
  void join(const Place& at);
  void check_limits(const Place& at);
  void end_branch(const Place& at);
  void finish_sample(std::int32_t sample, FinishReason reason);
  void close_open_paths(std::int32_t sample);
  bool keep_for_logprobs(SegmentId id);
  ForkLimits fork_limits(const Branch& branch) const;
  static std::int32_t room_to_close(std::size_t depth);
  bool is_end_token(TokenId token) const;

  const RequestId id_;
  const GenerateRequest request_;
  const Dialect* const dialect_;
  const TreeOptions options_;
  SegmentId first_segment_ = -1;
  std::vector<bool> prompt_forced_;
  std::int64_t num_tokens_ = 0;
  std::int32_t unfinished_samples_ = 0;
};

}  // namespace multiverse

// Builds one step's plan from the running requests: which tokens are computed, what they see, what is drawn.
#pragma once

#include <cstdint>
#include <utility>
#include <vector>

#include "multiverse/exec/step.h"
#include "multiverse/scheduler/request_tree.h"

namespace multiverse {

// A run of a segment's uncomputed tokens in a step: [computed, computed + count).
struct PlannedRun {
  RequestTree* request = nullptr;
  SegmentId segment = -1;
  std::int32_t count = 0;
  std::int32_t new_pages = 0;  // that it needs beyond those that its segment has
};

// What each of StepPlan::samples is for.
struct PlannedSample {
  RequestTree* request = nullptr;
  std::int32_t sample = 0;
  BranchId branch = 0;
  std::int32_t prompt_index = -1;  // ≥ 0: the log-probability of that prompt token instead of a draw
};

struct StepBudget {
  std::int32_t rows = 0;
  std::int32_t prefill_rows = 0;  // of these, at most so many of prompts and recomputation
};

// All that the segment sees is computed, or will be by the runs planned so far.
bool sees_only_computed(const RequestTree& request, const Segment& segment);

// The uncomputed tails of one request, in text order, as far as the budget goes (it is lessened). A tail is taken only
// if all that it sees is computed with it. Sets Segment::planned. `recomputing`: all tails count as prefill.
void select_runs(RequestTree& request, bool recomputing, StepBudget& budget, std::vector<PlannedRun>& runs);

// Lays out the plan: runs of one request stand together in text order, requests with a common run of pages next to each
// other. Precondition: the segments have pages for their runs. Reorders `runs` to the order of the rows.
class Planner {
 public:
  void build(std::vector<PlannedRun>& runs, StepPlan& plan, std::vector<PlannedSample>& samples);

 private:
  struct Group {                     // neighbours in the plan that share the first pages of their first segments
    std::size_t begin = 0, end = 0;  // runs
    std::int32_t shared_pages = 0;
  };

  void group_requests(std::vector<PlannedRun>& runs);
  void number_groups(const std::vector<PlannedRun>& runs);
  void add_rows(const PlannedRun& run, StepPlan& plan, std::vector<PlannedSample>& samples);
  void add_items(const std::vector<PlannedRun>& runs, const Group& group, StepPlan& plan);
  void add_item(const Segment& segment, std::int32_t skip_pages, const AttentionItem& item, StepPlan& plan);
  void add_draw(const PlannedRun& run, std::int32_t row, StepPlan& plan, std::vector<PlannedSample>& samples);
  void add_prompt_logprobs(const PlannedRun& run, std::int32_t first_row, StepPlan& plan,
                           std::vector<PlannedSample>& samples);

  std::vector<Group> groups_;
  // Scratch, kept because a map's nodes for every request of every step cost as much as all else here.
  std::vector<std::int32_t> group_of_page_;                   // by page id, -1 for none
  std::vector<std::pair<std::int32_t, PlannedRun>> grouped_;  // group and run
  std::vector<std::int32_t> run_rows_;                        // first row of each run
  std::vector<std::int32_t> item_of_segment_;  // scratch of one request: the segment's last item, -1 for none
  std::vector<std::vector<TokenId>> banned_;   // kept alive for the plan's spans
  std::size_t num_banned_ = 0;
};

}  // namespace multiverse

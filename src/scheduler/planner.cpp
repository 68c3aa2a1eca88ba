#include "multiverse/scheduler/planner.h"

#include <algorithm>
#include <utility>

#include "multiverse/base/check.h"

namespace multiverse {
namespace {

constexpr std::int32_t kSplitPages = kSplitTokens / kPageTokens;

std::int32_t pages_for(std::int32_t tokens) {
  return (tokens + kPageTokens - 1) / kPageTokens;
}

}  // namespace

bool sees_only_computed(const RequestTree& request, const Segment& segment) {
  if (request.incomplete_frozen == 0) return true;
  return std::all_of(segment.context.begin(), segment.context.end(), [&request](SegmentId id) {
    const Segment& seen = request.segment(id);
    return seen.computed + seen.planned == seen.size();
  });
}

namespace {

// First page of what all rows of the request see first, -1 where that is not a run of full pages yet.
PageId first_shared_page(const RequestTree& request) {
  if (request.first_segment() < 0) return -1;
  const Segment& head = request.segment(request.first_segment());
  return head.computed >= kSplitTokens ? head.pages[0] : -1;
}

std::int32_t common_pages(const RequestTree& a, const RequestTree& b) {
  const Segment& left = a.segment(a.first_segment());
  const Segment& right = b.segment(b.first_segment());
  const std::int32_t most = std::min(left.computed, right.computed) / kPageTokens;
  const auto pages = left.pages.ids().first(static_cast<std::size_t>(most));
  return static_cast<std::int32_t>(std::mismatch(pages.begin(), pages.end(), right.pages.ids().begin()).first -
                                   pages.begin());
}

}  // namespace

void select_runs(RequestTree& request, bool recomputing, StepBudget& budget, std::vector<PlannedRun>& runs) {
  request.for_each_segment([&](SegmentId id) {
    Segment& segment = request.segment(id);
    std::int32_t count = std::min(segment.size() - segment.computed, budget.rows);
    if (count <= 0 || segment.deferred || !sees_only_computed(request, segment)) return;
    const bool prefill = recomputing || segment.computed < segment.prompt_tokens;
    if (prefill) count = std::min(count, budget.prefill_rows);
    if (count == 0) return;
    budget.rows -= count;
    if (prefill) budget.prefill_rows -= count;
    segment.planned = count;
    const auto pages = static_cast<std::int32_t>(segment.pages.size());
    runs.push_back({&request, id, count, pages_for(segment.computed + count) - pages});
  });
}

void Planner::build(std::vector<PlannedRun>& runs, StepPlan& plan, std::vector<PlannedSample>& samples) {
  plan.clear();
  samples.clear();
  run_rows_.clear();
  num_banned_ = 0;
  group_requests(runs);
  // Group by group: what the rows of a request took from memory is still near when its items are made.
  for (const Group& group : groups_) {
    for (std::size_t run = group.begin; run < group.end; ++run) {
      run_rows_.push_back(static_cast<std::int32_t>(plan.rows.size()));
      add_rows(runs[run], plan, samples);
    }
    add_items(runs, group, plan);
  }
}

// Requests whose first segments begin with the same page become neighbours, in their order of appearance. The runs of
// one request already stand together.
void Planner::group_requests(std::vector<PlannedRun>& runs) {
  number_groups(runs);
  const auto by_group = [](const auto& a, const auto& b) { return a.first < b.first; };
  if (!std::is_sorted(grouped_.begin(), grouped_.end(), by_group)) {
    std::stable_sort(grouped_.begin(), grouped_.end(), by_group);
    for (std::size_t i = 0; i < runs.size(); ++i) runs[i] = grouped_[i].second;
  }
  groups_.clear();
  for (std::size_t i = 0; i < runs.size(); ++i) {
    if (i == 0 || grouped_[i].first != grouped_[i - 1].first) {
      groups_.push_back({i, i, 0});
    } else if (runs[i].request != runs[i - 1].request) {
      Group& group = groups_.back();
      const std::int32_t common = common_pages(*runs[i - 1].request, *runs[i].request);
      const bool first_pair = runs[group.begin].request == runs[i - 1].request;
      group.shared_pages = first_pair ? common : std::min(group.shared_pages, common);
    }
    groups_.back().end = i + 1;
  }
  for (Group& group : groups_) group.shared_pages = group.shared_pages / kSplitPages * kSplitPages;
}

// Fills grouped_. Groups are numbered as they appear.
void Planner::number_groups(const std::vector<PlannedRun>& runs) {
  grouped_.clear();
  std::int32_t num_groups = 0;
  for (const PlannedRun& run : runs) {
    std::int32_t group = num_groups;
    if (!grouped_.empty() && grouped_.back().second.request == run.request) {
      group = grouped_.back().first;
    } else if (const PageId page = first_shared_page(*run.request); page >= 0) {
      const auto index = static_cast<std::size_t>(page);
      if (index >= group_of_page_.size()) group_of_page_.resize(index + 1, -1);
      if (group_of_page_[index] < 0) group_of_page_[index] = num_groups;
      group = group_of_page_[index];
    }
    num_groups = std::max(num_groups, group + 1);
    grouped_.emplace_back(group, run);
  }
  for (const auto& [group, run] : grouped_) {
    if (const PageId page = first_shared_page(*run.request); page >= 0) {
      group_of_page_[static_cast<std::size_t>(page)] = -1;
    }
  }
}

void Planner::add_rows(const PlannedRun& run, StepPlan& plan, std::vector<PlannedSample>& samples) {
  const Segment& segment = run.request->segment(run.segment);
  const auto first_row = static_cast<std::int32_t>(plan.rows.size());
  for (std::int32_t i = 0; i < run.count; ++i) {
    const std::int32_t index = segment.computed + i;
    plan.rows.push_back({segment.tokens[static_cast<std::size_t>(index)], segment.first_position + index,
                         segment.pages[static_cast<std::size_t>(index / kPageTokens)], index % kPageTokens});
  }
  if (segment.text_begin >= 0 && run.request->request().prompt_top_logprobs >= 0) {
    add_prompt_logprobs(run, first_row, plan, samples);
  }
  const bool reaches_end = segment.computed + run.count == segment.size();
  if (reaches_end && segment.branch >= 0 && !segment.frozen) {
    add_draw(run, first_row + run.count - 1, plan, samples);
  }
}

void Planner::add_draw(const PlannedRun& run, std::int32_t row, StepPlan& plan, std::vector<PlannedSample>& samples) {
  const RequestTree& request = *run.request;
  const Segment& segment = request.segment(run.segment);
  const Sample& sample = request.samples[static_cast<std::size_t>(segment.sample)];
  const Branch& branch = sample.branches[static_cast<std::size_t>(segment.branch)];
  CHECK(branch.state == Branch::State::kRunning, "a draw for branch \"", to_string(branch.address), "\" in state ",
        static_cast<int>(branch.state));
  TokenId given = -1;
  if (request.request().recording != nullptr) {
    given = request.request().recording->token(branch.address, branch.num_tokens);
    if (given < 0) return;  // the text ends in this branch; others go on
  }
  // A span into an inner vector outlives the outer one's growth.
  if (num_banned_ == banned_.size()) banned_.emplace_back();
  std::vector<TokenId>& banned = banned_[num_banned_++];
  banned.clear();
  request.append_banned(sample, branch, banned);
  SampleRequest& draw = plan.samples.emplace_back();
  draw.row = row;
  draw.params = &request.request().sampling;
  draw.key = {request.request().seed, branch.random_key, static_cast<std::uint32_t>(branch.num_tokens)};
  draw.banned = banned;
  if (sample.constraint != nullptr && segment.branch == 0) draw.allowed = sample.constraint->allowed();
  draw.given = given;
  draw.top_logprobs = request.request().top_logprobs;
  if (draw.params->uses_history()) {
    const auto add = [&draw](const Segment& seen) {
      const std::span<const TokenId> tokens = seen.tokens;
      const auto prompt = static_cast<std::size_t>(seen.prompt_tokens);
      if (prompt > 0) draw.prompt_history.push_back(tokens.first(prompt));
      if (prompt < tokens.size()) draw.generated_history.push_back(tokens.subspan(prompt));
    };
    for (const SegmentId id : segment.context) add(request.segment(id));
    add(segment);
  }
  samples.push_back({run.request, segment.sample, segment.branch, -1});
}

// The row of each prompt token gives the log-probability of the token that stands after it in the text, if that was
// drawn and not forced.
void Planner::add_prompt_logprobs(const PlannedRun& run, std::int32_t first_row, StepPlan& plan,
                                  std::vector<PlannedSample>& samples) {
  const RequestTree& request = *run.request;
  const Segment& segment = request.segment(run.segment);
  for (std::int32_t i = 0; i < run.count; ++i) {
    const std::int32_t index = segment.computed + i;
    const std::int32_t next = segment.text_begin + index + 1;
    if (index >= segment.prompt_tokens || next >= request.prompt_size()) break;
    if (request.prompt_forced()[static_cast<std::size_t>(next)]) continue;
    SampleRequest& wanted = plan.samples.emplace_back();
    wanted.row = first_row + i;
    wanted.params = &request.request().sampling;
    wanted.given = request.request().prompt[static_cast<std::size_t>(next)];
    wanted.top_logprobs = request.request().prompt_top_logprobs;
    samples.push_back({run.request, 0, 0, next});
  }
}

void Planner::add_item(const Segment& segment, std::int32_t skip_pages, const AttentionItem& item, StepPlan& plan) {
  AttentionItem added = item;
  added.first_page = static_cast<std::int32_t>(plan.pages.size());
  added.num_tokens -= skip_pages * kPageTokens;
  if (added.num_tokens <= 0) return;
  const auto pages = segment.pages.ids().first(static_cast<std::size_t>(pages_for(item.num_tokens)));
  plan.pages.insert(plan.pages.end(), pages.begin() + skip_pages, pages.end());
  plan.items.push_back(added);
}

void Planner::add_items(const std::vector<PlannedRun>& runs, const Group& group, StepPlan& plan) {
  const auto rows_end = [&](std::size_t run) { return run_rows_[run] + runs[run].count; };
  if (group.shared_pages > 0) {
    const RequestTree& first = *runs[group.begin].request;
    add_item(first.segment(first.first_segment()), 0,
             {0, group.shared_pages * kPageTokens, run_rows_[group.begin], rows_end(group.end - 1), false}, plan);
  }
  const RequestTree* request = nullptr;
  for (std::size_t i = group.begin; i < group.end; ++i) {
    if (runs[i].request != request) {
      request = runs[i].request;
      item_of_segment_.assign(request->segments.size(), -1);
    }
    const Segment& segment = request->segment(runs[i].segment);
    const auto skip_of = [&](SegmentId id) { return id == request->first_segment() ? group.shared_pages : 0; };
    // A segment's readers are neighbours in most steps, so its item grows by their rows. Never past an item that this
    // run sees earlier: a row's items stand in the order of its context.
    std::int32_t latest = -1;
    for (const SegmentId id : segment.context) {
      const Segment& seen = request->segment(id);
      if (seen.size() <= skip_of(id) * kPageTokens) continue;
      std::int32_t& known = item_of_segment_[static_cast<std::size_t>(id)];
      if (known > latest && plan.items[static_cast<std::size_t>(known)].row_end == run_rows_[i]) {
        plan.items[static_cast<std::size_t>(known)].row_end = rows_end(i);
      } else {
        known = static_cast<std::int32_t>(plan.items.size());
        add_item(seen, skip_of(id), {0, seen.size(), run_rows_[i], rows_end(i), false}, plan);
      }
      latest = known;
    }
    add_item(segment, skip_of(runs[i].segment), {0, segment.computed + runs[i].count, run_rows_[i], rows_end(i), true},
             plan);
  }
}

}  // namespace multiverse

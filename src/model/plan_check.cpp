#include "model/plan_check.h"

#include <string>
#include <vector>

#include "multiverse/base/check.h"

namespace multiverse {
namespace {

void check_rows(const StepPlan& plan, const ExecutorInfo& info) {
  CHECK(plan.rows.size() <= static_cast<std::size_t>(info.max_rows), "a plan of ", plan.rows.size(),
        " rows; the limit is ", info.max_rows);
  for (std::size_t i = 0; i < plan.rows.size(); ++i) {
    const Row& row = plan.rows[i];
    CHECK(row.page >= 0 && row.page < info.num_pages && row.offset >= 0 && row.offset < kPageTokens, "row ", i,
          " has its slot at page ", row.page, " of ", info.num_pages, ", offset ", row.offset);
    if (row.token < 0 || row.token >= info.vocab_size) {
      throw ExecutionError(concat("token ", row.token, " is not in the model's vocabulary of ", info.vocab_size));
    }
    if (row.position < 0 || row.position >= info.max_position) {
      throw ExecutionError(concat("position ", row.position, " is not below the model's limit, ", info.max_position));
    }
  }
}

void check_items(const StepPlan& plan, const ExecutorInfo& info) {
  const auto rows = static_cast<std::int64_t>(plan.rows.size());
  std::vector<std::int32_t> seen(plan.rows.size() + 1, 0);  // differences of the number of items that rows see
  for (std::size_t i = 0; i < plan.items.size(); ++i) {
    const AttentionItem& item = plan.items[i];
    CHECK(item.row_begin >= 0 && item.row_begin < item.row_end && item.row_end <= rows, "item ", i, " is for rows [",
          item.row_begin, ", ", item.row_end, ") of ", rows);
    const std::int64_t pages = (std::int64_t{item.num_tokens} + kPageTokens - 1) / kPageTokens;
    CHECK(item.num_tokens > 0 && item.first_page >= 0 &&
              item.first_page + pages <= static_cast<std::int64_t>(plan.pages.size()),
          "item ", i, " has ", item.num_tokens, " tokens from page entry ", item.first_page, " of ", plan.pages.size());
    CHECK(!item.causal || item.num_tokens >= item.row_end - item.row_begin, "causal item ", i, " has ", item.num_tokens,
          " tokens for ", item.row_end - item.row_begin, " rows");
    ++seen[static_cast<std::size_t>(item.row_begin)];
    --seen[static_cast<std::size_t>(item.row_end)];
  }
  for (std::size_t i = 0; i < plan.pages.size(); ++i) {
    CHECK(plan.pages[i] >= 0 && plan.pages[i] < info.num_pages, "page entry ", i, " is ", plan.pages[i], " of ",
          info.num_pages);
  }
  std::int32_t count = 0;
  for (std::size_t row = 0; row < plan.rows.size(); ++row) {
    count += seen[row];
    CHECK(count > 0, "row ", row, " sees no token, not even itself");
  }
}

}  // namespace

void check_plan(const StepPlan& plan, const ExecutorInfo& info) {
  check_items(plan, info);
  for (std::size_t i = 0; i < plan.samples.size(); ++i) {
    const SampleRequest& sample = plan.samples[i];
    CHECK(sample.row >= 0 && static_cast<std::size_t>(sample.row) < plan.rows.size(), "sample ", i, " is of row ",
          sample.row, " of ", plan.rows.size());
    CHECK(sample.given >= 0 || sample.params != nullptr, "sample ", i, " has no parameters");
    if (sample.given >= info.vocab_size) {
      throw ExecutionError(concat("token ", sample.given, " is not in the model's vocabulary of ", info.vocab_size));
    }
  }
  check_rows(plan, info);
}

}  // namespace multiverse

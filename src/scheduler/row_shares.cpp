#include "multiverse/scheduler/row_shares.h"

#include <algorithm>
#include <numeric>
#include <utility>

namespace multiverse {
namespace {

// The first in `order` all that they ask for, as long as there is any.
std::vector<std::int32_t> shares_in_order(std::span<const std::int32_t> demands, std::int32_t most,
                                          std::span<const std::size_t> order) {
  std::vector<std::int32_t> shares(demands.size());
  for (const std::size_t i : order) {
    shares[i] = std::min(demands[i], most);
    most -= shares[i];
  }
  return shares;
}

std::vector<std::int32_t> proportional_shares(std::span<const std::int32_t> demands, std::int32_t most,
                                              std::int64_t turn) {
  const auto all = std::accumulate(demands.begin(), demands.end(), std::int64_t{0});
  std::vector<std::int32_t> shares(demands.begin(), demands.end());
  if (all <= most) return shares;
  std::int32_t left = most;
  for (std::size_t i = 0; i < shares.size(); ++i) {
    shares[i] = static_cast<std::int32_t>(std::int64_t{demands[i]} * most / all);
    left -= shares[i];
  }
  for (std::size_t i = 0; left > 0 && i < shares.size(); ++i) {
    std::int32_t& share = shares[(static_cast<std::size_t>(turn) + i) % shares.size()];
    const std::int32_t demand = demands[(static_cast<std::size_t>(turn) + i) % shares.size()];
    if (share == demand) continue;
    ++share;
    --left;
  }
  return shares;
}

std::vector<std::int32_t> shares(std::span<const std::int32_t> demands, std::int32_t most, RowSharing sharing,
                                 std::int64_t turn, std::span<const std::size_t> order) {
  switch (sharing) {
    case RowSharing::kEqual:
      return equal_shares(demands, most, turn);
    case RowSharing::kByBranches:
      return proportional_shares(demands, most, turn);
    case RowSharing::kOldestFirst:
    case RowSharing::kLeastServed:
      break;
  }
  return shares_in_order(demands, most, order);
}

// Half for the first prompt (of an odd number the greater part every other turn), the other half divided among the
// others, and to the first what they leave: prompts in step with each other would all be late, and short ones must not
// wait for a long one.
std::vector<std::int32_t> half_to_the_first(std::vector<std::int32_t> demands, std::int32_t most, std::int64_t turn) {
  const auto first = std::find_if(demands.begin(), demands.end(), [](std::int32_t demand) { return demand > 0; });
  if (first == demands.end()) return demands;
  const std::int32_t wanted = std::exchange(*first, 0);
  const std::int32_t half = (most + (turn % 2 == 0 ? 1 : 0)) / 2;
  std::vector<std::int32_t> shares = equal_shares(demands, most - std::min(wanted, half), turn);
  const std::int32_t left = most - std::accumulate(shares.begin(), shares.end(), 0);
  shares[static_cast<std::size_t>(first - demands.begin())] = std::min(wanted, left);
  return shares;
}

}  // namespace

std::vector<std::int32_t> equal_shares(std::span<const std::int32_t> demands, std::int32_t most, std::int64_t turn) {
  std::vector<std::int32_t> shares(demands.size());
  std::vector<std::size_t> order(demands.size());
  std::iota(order.begin(), order.end(), std::size_t{0});
  std::sort(order.begin(), order.end(), [&](std::size_t a, std::size_t b) { return demands[a] < demands[b]; });
  // The small demands are met while they are below an equal part of what is left; the rest divide that.
  std::size_t met = 0;
  std::int32_t left = most;
  for (; met < order.size(); ++met) {
    const std::int32_t demand = demands[order[met]];
    if (std::int64_t{demand} * static_cast<std::int64_t>(order.size() - met) > left) break;
    shares[order[met]] = demand;
    left -= demand;
  }
  const auto sharers = static_cast<std::int32_t>(order.size() - met);
  if (sharers == 0) return shares;
  std::sort(order.begin() + static_cast<std::ptrdiff_t>(met), order.end());
  for (std::int32_t i = 0; i < sharers; ++i) {
    const bool takes_one_more = (i + sharers - static_cast<std::int32_t>(turn % sharers)) % sharers < left % sharers;
    shares[order[met + static_cast<std::size_t>(i)]] = left / sharers + (takes_one_more ? 1 : 0);
  }
  return shares;
}

void share_rows(std::span<const RowDemand> demands, const StepBudget& most, RowSharing sharing, std::int64_t turn,
                std::vector<StepBudget>& budgets) {
  std::vector<std::size_t> order(demands.size());
  std::iota(order.begin(), order.end(), std::size_t{0});
  if (sharing == RowSharing::kLeastServed) {
    std::stable_sort(order.begin(), order.end(),
                     [&](std::size_t a, std::size_t b) { return demands[a].served < demands[b].served; });
  }
  std::vector<std::int32_t> wanted;
  for (const RowDemand& demand : demands) wanted.push_back(demand.prefill);
  const std::vector<std::int32_t> prefill = sharing == RowSharing::kEqual
                                                ? half_to_the_first(wanted, most.prefill_rows, turn)
                                                : shares(wanted, most.prefill_rows, sharing, turn, order);
  for (std::size_t i = 0; i < demands.size(); ++i) wanted[i] = demands[i].decode + prefill[i];
  const std::vector<std::int32_t> rows = shares(wanted, most.rows, sharing, turn, order);
  budgets.clear();
  for (std::size_t i = 0; i < demands.size(); ++i) budgets.push_back({rows[i], prefill[i]});
}

}  // namespace multiverse

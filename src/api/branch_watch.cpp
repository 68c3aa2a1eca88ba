#include "api/branch_watch.h"

namespace multiverse {

void BranchWatch::add(const ForkEvent& event, BranchFacts& facts) {
  const auto width = static_cast<std::int32_t>(event.children.size());
  if (width == 0) return;
  const auto depth = static_cast<std::int32_t>(event.children.front().address.size() / 2);
  const std::int32_t at_once = max_running_ > 0 ? max_running_ : width;
  facts.forks.push_back({width, depth, (width + at_once - 1) / at_once});
  for (const ForkEvent::Child& child : event.children) parents_[child.branch] = event.parent;
}

void BranchWatch::add(const BranchEndEvent& event, Nanoseconds now) {
  const auto parent = parents_.find(event.branch);
  if (parent == parents_.end()) return;
  first_ends_.try_emplace(parent->second, now);
  parents_.erase(parent);
}

void BranchWatch::add(const JoinEvent& event, Nanoseconds now, BranchFacts& facts) {
  const auto first = first_ends_.find(event.parent);
  if (first == first_ends_.end()) return;
  facts.join_waits.push_back(now - first->second);
  first_ends_.erase(first);
}

}  // namespace multiverse

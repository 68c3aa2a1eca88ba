#include "multiverse/scheduler/recording.h"

#include <algorithm>

#include "multiverse/base/check.h"

namespace multiverse {
namespace {

// For each token the innermost path that it stands in, -1 for the root.
std::vector<std::int32_t> innermost_paths(const Structure& structure, std::size_t tokens) {
  std::vector<std::int32_t> path_of(tokens, -1);
  for (std::size_t path = 0; path < structure.paths.size(); ++path) {  // an inner path comes after the outer one
    const TextPath& text = structure.paths[path];
    std::fill(path_of.begin() + text.begin, path_of.begin() + text.end, static_cast<std::int32_t>(path));
  }
  return path_of;
}

}  // namespace

Result<Recording> Recording::read(std::span<const TokenId> text, std::int32_t prompt_tokens, const Dialect* dialect,
                                  const StructureLimits& limits) {
  const auto size = static_cast<std::int32_t>(text.size());
  CHECK(prompt_tokens > 0 && prompt_tokens <= size, "a prompt of ", prompt_tokens, " tokens in a text of ", size);
  Structure structure = plain_structure(size);
  structure.statistics.critical_path_tokens = structure.statistics.steps = size - prompt_tokens;
  if (dialect != nullptr) {
    const Structure prompt = read_structure(text.first(static_cast<std::size_t>(prompt_tokens)), *dialect, limits);
    if (prompt.open.size() > 1 || !prompt.open.front().open_forks.empty()) {
      return invalid_argument(concat("the prompt of ", prompt_tokens, " tokens ends inside the paths of a block"));
    }
    structure = read_structure(text, *dialect, limits, prompt_tokens);
  }
  for (const TextPath& path : structure.paths) {
    if (path.ended && path.end >= prompt_tokens && path.end < size &&
        !structure.forced[static_cast<std::size_t>(path.end)]) {
      return invalid_argument(concat("token ", path.end - prompt_tokens, " of the answer stands after path ",
                                     to_string(path.address), " and before the block's next path or conclusion: no ",
                                     "engine that runs paths at once can have written it"));
    }
  }

  Recording out;
  out.text_.assign(text.begin(), text.end());
  out.prompt_tokens_ = prompt_tokens;
  out.forced_ = structure.forced;
  out.statistics_ = structure.statistics;
  const std::vector<std::int32_t> path_of = innermost_paths(structure, text.size());
  std::vector<std::int32_t> own_index;
  const auto address_of = [&](std::int32_t token) {
    const std::int32_t path = path_of[static_cast<std::size_t>(token)];
    return path < 0 ? BranchAddress() : structure.paths[static_cast<std::size_t>(path)].address;
  };
  for (std::int32_t token = 0; token < size; ++token) {
    Written& branch = out.branches_[address_of(token)];
    own_index.push_back(static_cast<std::int32_t>(branch.tokens.size()));
    branch.tokens.push_back(token);
  }
  // The fork's token, and perhaps a separator, stand before the first path.
  const auto fork_before = [&](std::int32_t end) {
    const std::int32_t token = text[static_cast<std::size_t>(end) - 1] == dialect->fork ? end - 1 : end - 2;
    return &out.branches_[address_of(token)].forks[own_index[static_cast<std::size_t>(token)]];
  };
  std::map<BranchAddress, std::int32_t*> forks;  // by the paths' addresses but for their last number
  for (const TextPath& path : structure.paths) {
    const BranchAddress fork(path.address.begin(), path.address.end() - 1);
    if (path.address.back() == 1) forks[fork] = fork_before(path.begin);
    ++*forks.at(fork);
  }
  const OpenBranch& last = structure.open.back();
  if (!last.open_forks.empty() && last.open_forks.back().started == 0) fork_before(size);
  return out;
}

std::int64_t Recording::drawn_tokens() const {
  return std::count(forced_.begin() + prompt_tokens_, forced_.end(), false);
}

std::int32_t Recording::text_index(const BranchAddress& branch, std::int32_t index) const {
  const auto written = branches_.find(branch);
  if (written == branches_.end() || index < 0 || index >= static_cast<std::int32_t>(written->second.tokens.size())) {
    return -1;
  }
  return written->second.tokens[static_cast<std::size_t>(index)];
}

TokenId Recording::token(const BranchAddress& branch, std::int32_t index) const {
  const std::int32_t place = text_index(branch, index);
  return place < 0 ? -1 : text_[static_cast<std::size_t>(place)];
}

bool Recording::forced(const BranchAddress& branch, std::int32_t index) const {
  const std::int32_t place = text_index(branch, index);
  return place >= 0 && forced_[static_cast<std::size_t>(place)];
}

std::int32_t Recording::paths(const BranchAddress& branch, std::int32_t index) const {
  const auto written = branches_.find(branch);
  if (written == branches_.end()) return -1;
  const auto fork = written->second.forks.find(index);
  return fork == written->second.forks.end() ? -1 : fork->second;
}

}  // namespace multiverse

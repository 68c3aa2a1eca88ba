#include "multiverse/dialect/grammar.h"

#include <algorithm>

namespace multiverse {
namespace {

bool is_digit(char c) {
  return c >= '0' && c <= '9';
}
bool is_space(char c) {
  return c == ' ' || (c >= '\t' && c <= '\r');
}

// digits(.digits)* within the bounds of a readable label.
bool is_readable_label(const std::string& label) {
  if (label.empty() || label.size() > Dialect::kMaxLabelBytes) return false;
  if (!is_digit(label.front()) || !is_digit(label.back())) return false;
  int parts = 1;
  for (std::size_t i = 0; i < label.size(); ++i) {
    if (label[i] != '.') continue;
    if (label[i - 1] == '.') return false;
    ++parts;
  }
  return parts <= Dialect::kMaxLabelParts;
}

}  // namespace

Grammar::Outcome Grammar::advance(const Dialect& dialect, std::int32_t token, const ForkLimits& limits) {
  return step(dialect, token, limits, /*reading=*/false, /*fork_follows=*/true);
}

Grammar::Outcome Grammar::read(const Dialect& dialect, std::int32_t token, const ForkLimits& limits,
                               bool fork_follows) {
  return step(dialect, token, limits, /*reading=*/true, fork_follows);
}

Grammar::Outcome Grammar::step(const Dialect& dialect, std::int32_t token, const ForkLimits& limits, bool reading,
                               bool fork_follows) {
  Block* block = blocks_.empty() ? nullptr : &blocks_.back();
  if (block != nullptr && block->in_goal) read_label(dialect, token, limits);
  if (token < 0) return {};

  if (dialect.opens_block(token)) {
    if (block != nullptr && block->in_goal) return {Effect::kNone, true};
    block = &blocks_.emplace_back();
    if (token != dialect.goal_open) return {};
  }
  if (token == dialect.goal_open) {
    if (block == nullptr || block->in_goal || block->forked) return {Effect::kNone, true};
    block->in_goal = true;
    block->labels.clear();
    return {};
  }
  if (token == dialect.fork) return end_goal(limits, fork_follows);
  if (token == dialect.path_open) return open_path(reading);
  if (token == dialect.path_close) return end_path();
  if (token == dialect.conclusion_open) {
    if (!reading || block == nullptr || block->read_paths == 0 || block->concluded) return {Effect::kNone, true};
    block->concluded = true;
    return {Effect::kConclude, false};
  }
  if (dialect.closes_block(token)) {
    if (block == nullptr) return {Effect::kNone, true};
    blocks_.pop_back();
  }
  return {};
}

Grammar::Outcome Grammar::end_goal(const ForkLimits& limits, bool fork_follows) {
  if (blocks_.empty() || !blocks_.back().in_goal) return {Effect::kNone, true};
  Block& block = blocks_.back();
  block.in_goal = false;
  block.reading_label = false;
  const auto paths = static_cast<std::int64_t>(block.labels.size());
  if (!fork_follows || !limits.depth_allowed || paths == 0 || paths > limits.max_paths) return {};
  block.forked = true;
  return {Effect::kFork, false};
}

Grammar::Outcome Grammar::open_path(bool reading) {
  if (blocks_.empty()) return {Effect::kNone, true};
  Block& block = blocks_.back();
  if (reading && block.forked && !block.concluded) {
    ++block.read_paths;
    return {Effect::kStartPath, false};
  }
  if (!block.forked) ++block.plain_paths;
  return {Effect::kNone, true};
}

Grammar::Outcome Grammar::end_path() {
  if (!blocks_.empty() && blocks_.back().plain_paths > 0 && !blocks_.back().forked) {
    --blocks_.back().plain_paths;
    return {Effect::kNone, true};
  }
  if (!is_path_) return {Effect::kNone, true};
  blocks_.clear();
  ended_ = true;
  return {Effect::kEndPath, false};
}

void Grammar::refuse_fork() {
  CHECK(awaits_join(), "no fork to refuse; blocks open: ", blocks_.size());
  blocks_.back().forked = false;
}

std::int32_t Grammar::closers() const {
  const bool plain = !blocks_.empty() && !blocks_.back().forked;
  return 1 + (plain ? blocks_.back().plain_paths : 0);
}

void Grammar::read_label(const Dialect& dialect, std::int32_t token, const ForkLimits& limits) {
  Block& block = blocks_.back();
  if (token == dialect.outline_open) {
    block.reading_label = true;
    block.label.clear();
    return;
  }
  if (!block.reading_label) return;
  const std::string_view bytes = dialect.label_bytes(token);
  block.reading_label = !bytes.empty();
  for (const char c : bytes) {
    if (block.label.empty() && is_space(c)) continue;
    if (c == ':') {
      // One label more than a fork may have is enough to know that there are too many.
      const auto most = static_cast<std::size_t>(std::max(limits.max_paths, 0)) + 1;
      if (is_readable_label(block.label) && block.labels.size() < most) block.labels.push_back(block.label);
      block.reading_label = false;
      return;
    }
    if ((!is_digit(c) && c != '.') || block.label.size() > Dialect::kMaxLabelBytes) {
      block.reading_label = false;
      return;
    }
    block.label += c;
  }
}

void Grammar::conclude() {
  CHECK(awaits_join(), "a conclusion where no block awaits one; blocks open: ", blocks_.size());
  blocks_.back().concluded = true;
}

void Grammar::append_banned(const Dialect& dialect, const ForkLimits& limits, std::vector<std::int32_t>& banned) const {
  const Block* block = blocks_.empty() ? nullptr : &blocks_.back();
  const bool in_goal = block != nullptr && block->in_goal;
  const auto ban = [&banned](bool misplaced, std::int32_t token) {
    if (misplaced && token >= 0) banned.push_back(token);
  };
  const bool no_block = in_goal || !limits.depth_allowed || limits.max_paths < 1;
  ban(no_block, dialect.block_open);
  ban(dialect.block_open < 0 ? no_block : block == nullptr || in_goal || block->forked, dialect.goal_open);
  ban(!in_goal || block->labels.empty() || static_cast<std::int64_t>(block->labels.size()) > limits.max_paths,
      dialect.fork);
  ban(in_goal && static_cast<std::int64_t>(block->labels.size()) >= limits.max_paths, dialect.outline_open);
  ban(true, dialect.path_open);
  ban(!is_path_ && (block == nullptr || block->plain_paths == 0), dialect.path_close);
  ban(true, dialect.conclusion_open);
  ban(block == nullptr, dialect.block_close >= 0 ? dialect.block_close : dialect.conclusion_close);
}

}  // namespace multiverse

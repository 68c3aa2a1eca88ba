#include "multiverse/dialect/structure.h"

#include <algorithm>

#include "multiverse/base/check.h"

namespace multiverse {
namespace {

// What the engine writes next, if the text has it.
enum class Expected { kNothing, kSeparator, kPathSeparator, kLabel };

class Reader {
 public:
  Reader(std::span<const std::int32_t> tokens, const Dialect& dialect, const StructureLimits& limits,
         std::int32_t prompt_tokens)
      : tokens_(tokens), dialect_(dialect), limits_(limits), prompt_tokens_(prompt_tokens) {
    out_.forced.reserve(tokens.size());
    out_.open.emplace_back().paths_left = limits.max_total_paths;
  }

  Structure read() {
    for (std::size_t i = 0; i < tokens_.size(); ++i) read_token(static_cast<std::int32_t>(i));
    close_segment();
    out_.path_ended = closed_path_;
    record_open_paths();
    out_.owed = owed();
    return std::move(out_);
  }

 private:
  OpenBranch& top() { return out_.open.back(); }
  std::int32_t size() const { return static_cast<std::int32_t>(tokens_.size()); }

  ForkLimits fork_limits() const {
    const auto depth = static_cast<std::int32_t>(out_.open.size());
    return {std::min(limits_.max_paths, out_.open.back().paths_left),
            depth <= std::min(limits_.max_depth, dialect_.max_depth)};
  }

  bool is(std::int32_t i, std::int32_t token) const {
    return i < size() && tokens_[static_cast<std::size_t>(i)] == token;
  }

  // A fork's token is followed by (the separator and) a path, or the text ends.
  bool fork_follows(std::int32_t i) const {
    const std::int32_t next = i + 1 + (is(i + 1, dialect_.separator) ? 1 : 0);
    return next >= size() || is(next, dialect_.path_open);
  }

  void read_token(std::int32_t i) {
    const std::int32_t token = tokens_[static_cast<std::size_t>(i)];
    bool forced = is_forced(token);
    // The separator after </Path> still belongs to the path; any other token to the parent.
    if (closed_path_ && !forced) close_path();

    Grammar::Outcome outcome;
    if (!forced) outcome = top().grammar.read(dialect_, token, fork_limits(), fork_follows(i));
    if (outcome.effect == Grammar::Effect::kStartPath) start_path(i);
    if (outcome.effect == Grammar::Effect::kConclude) conclude();
    const bool header = outcome.effect == Grammar::Effect::kStartPath || outcome.effect == Grammar::Effect::kConclude;
    forced = forced || header;

    append(i, forced);
    if (outcome.malformed) {
      out_.malformed.push_back(i);
      if (i >= prompt_tokens_) ++out_.statistics.malformed;
    }
    expect_after(token, outcome.effect, forced);
    drop_abandoned_forks();
    if (closed_path_ && expected_ == Expected::kNothing) close_path();
  }

  // A block that closes before its conclusion takes its fork along; what its paths wrote stays in view.
  void drop_abandoned_forks() {
    std::vector<OpenFork>& forks = top().open_forks;
    if (forks.empty() || closed_path_ || forks.back().block_depth <= top().grammar.depth()) return;
    close_segment();
    forks.pop_back();
  }

  bool is_forced(std::int32_t token) const {
    switch (expected_) {
      case Expected::kNothing:
        return false;
      case Expected::kSeparator:
      case Expected::kPathSeparator:
        return token == dialect_.separator;
      case Expected::kLabel:
        return dialect_.is_label_token(token);
    }
    return false;
  }

  void expect_after(std::int32_t token, Grammar::Effect effect, bool forced) {
    const Expected was = expected_;
    expected_ = Expected::kNothing;
    switch (effect) {
      case Grammar::Effect::kNone:
        if (!forced) break;
        if (was == Expected::kPathSeparator || (was == Expected::kLabel && !dialect_.ends_label(token))) {
          expected_ = Expected::kLabel;
        }
        if (fork_pending_) open_fork();
        break;
      case Grammar::Effect::kFork:
        fork_pending_ = true;
        fork_position_ = top().chain.position - 1;
        if (segment_end_ < size() && !is(segment_end_, dialect_.separator)) {
          open_fork();
        } else {
          expected_ = Expected::kSeparator;
        }
        break;
      case Grammar::Effect::kEndPath:
        closed_path_ = true;
        path_end_position_ = top().chain.position - 1;
        expected_ = Expected::kSeparator;
        break;
      case Grammar::Effect::kStartPath:
        expected_ = Expected::kPathSeparator;
        break;
      case Grammar::Effect::kConclude:
        expected_ = Expected::kSeparator;
        break;
    }
  }

  void append(std::int32_t i, bool forced) {
    OpenBranch& branch = top();
    if (segment_begin_ == segment_end_) {
      segment_begin_ = segment_end_ = i;
      segment_position_ = branch.chain.position;
      segment_step_ = branch.chain.step;
    }
    ++segment_end_;
    out_.forced.push_back(forced);
    ++branch.chain.position;
    ++branch.num_tokens;
    if (i < prompt_tokens_) return;
    ++branch.chain.token_depth;
    if (!forced) ++branch.chain.step;
    TreeStatistics& statistics = out_.statistics;
    statistics.critical_path_tokens = std::max(statistics.critical_path_tokens, branch.chain.token_depth);
    statistics.steps = std::max(statistics.steps, branch.chain.step);
  }

  // Freezes what the top branch has written since the last structure and lets it see that, and also the paths that
  // follow: what a parent writes between two paths is seen by the second.
  void close_segment() {
    if (segment_begin_ == segment_end_) return;
    const auto index = static_cast<std::int32_t>(out_.segments.size());
    const std::int32_t path = open_paths_.empty() ? -1 : static_cast<std::int32_t>(open_paths_.back());
    out_.segments.push_back(
        {segment_begin_, segment_end_, segment_position_, top().context, top().lineage, path, segment_step_});
    top().lineage = {index, false, {}};
    top().context.push_back(index);
    for (OpenFork& fork : top().open_forks) fork.path_view.push_back(index);
    segment_begin_ = segment_end_;
  }

  void open_fork() {
    fork_pending_ = false;
    close_segment();
    OpenBranch& parent = top();
    OpenFork fork;
    fork.block_depth = parent.grammar.depth();
    fork.fork_position = fork.last_position = fork_position_;
    fork.labels = parent.grammar.labels();
    fork.path_view = parent.context;
    fork.path_chain = {fork_position_ + 1, parent.chain.token_depth, parent.chain.step};
    fork.number = ++parent.forks;
    fork.path_budget = split_path_budget(parent.paths_left, fork.labels.size());
    parent.open_forks.push_back(std::move(fork));
  }

  void start_path(std::int32_t i) {
    close_segment();
    OpenBranch& parent = top();
    OpenFork& fork = parent.open_forks.back();
    OpenBranch path;
    path.grammar = Grammar(true);
    path.address = parent.address;
    path.address.push_back(fork.number);
    path.address.push_back(++fork.started);
    const auto number = static_cast<std::size_t>(fork.started) - 1;
    if (number < fork.labels.size()) path.label = fork.labels[number];
    path.context = fork.path_view;
    path.lineage = {parent.lineage.previous, true, {}};
    path.chain = fork.path_chain;
    path.paths_left = fork.path_budget;
    if (i >= prompt_tokens_) count_path(fork);
    open_paths_.push_back(out_.paths.size());
    out_.paths.push_back({path.address, path.label, i, i, 0, false});
    out_.open.push_back(std::move(path));
  }

  // Those in which the text ends.
  void record_open_paths() {
    for (std::size_t i = 0; i < open_paths_.size(); ++i) {
      TextPath& path = out_.paths[open_paths_[i]];
      path.end = size();
      path.own_tokens = out_.open[i + 1].num_tokens;
      path.ended = closed_path_ && i + 1 == open_paths_.size();
    }
  }

  // The path that is on top.
  void record_path_end() {
    TextPath& path = out_.paths[open_paths_.back()];
    path.end = segment_end_;
    path.own_tokens = top().num_tokens;
    path.ended = true;
  }

  void count_path(OpenFork& fork) {
    TreeStatistics& statistics = out_.statistics;
    ++statistics.paths;
    if (!fork.counted) ++statistics.blocks;
    fork.counted = true;
    statistics.max_width = std::max<std::int64_t>(statistics.max_width, fork.started);
    statistics.max_depth = std::max(statistics.max_depth, static_cast<std::int64_t>(out_.open.size()));
  }

  // The path that read its </Path> gives what it wrote to its parent. Only its siblings never see it.
  void close_path() {
    closed_path_ = false;
    close_segment();
    record_path_end();
    open_paths_.pop_back();
    const OpenBranch path = std::move(out_.open.back());
    out_.open.pop_back();
    OpenBranch& parent = top();
    OpenFork& fork = parent.open_forks.back();
    const auto written = path.context.begin() + static_cast<std::ptrdiff_t>(fork.path_view.size());
    parent.context.insert(parent.context.end(), written, path.context.end());
    for (OpenFork& outer : parent.open_forks) {
      if (&outer != &fork) outer.path_view.insert(outer.path_view.end(), written, path.context.end());
    }
    // A text may fork between two paths, beyond what was kept for them.
    parent.paths_left = std::max(0, parent.paths_left - (fork.path_budget - path.paths_left));
    parent.lineage.joined.push_back(path.lineage.previous);
    fork.last_position = std::max(fork.last_position, path_end_position_);
    fork.join_token_depth = std::max(fork.join_token_depth, path.chain.token_depth);
    fork.join_step = std::max(fork.join_step, path.chain.step);
    // Where the text goes on before the conclusion, it goes on from the path's end.
    parent.chain = path.chain;
  }

  void conclude() {
    close_segment();
    OpenBranch& parent = top();
    const OpenFork& fork = parent.open_forks.back();
    parent.chain = {fork.last_position + 1, fork.join_token_depth, fork.join_step};
    parent.open_forks.pop_back();
  }

  // What a text that ends in the midst of the engine's own tokens still lacks of them.
  std::vector<std::int32_t> owed() {
    if (fork_pending_) {
      open_fork();
      return {dialect_.separator};
    }
    switch (expected_) {
      case Expected::kNothing:
        return {};
      case Expected::kSeparator:
        return {dialect_.separator};
      case Expected::kPathSeparator:
      case Expected::kLabel:
        break;
    }
    const OpenBranch& path = top();
    const auto written = static_cast<std::size_t>(path.num_tokens);
    const std::vector<std::int32_t> header = dialect_.path_header(path.label);
    const auto text = tokens_.last(written);
    if (path.label.empty() || written >= header.size() || !std::equal(text.begin(), text.end(), header.begin()))
      return {};
    return {header.begin() + static_cast<std::ptrdiff_t>(written), header.end()};
  }

  std::span<const std::int32_t> tokens_;
  const Dialect& dialect_;
  const StructureLimits& limits_;
  const std::int32_t prompt_tokens_;

  Structure out_;
  Expected expected_ = Expected::kNothing;
  std::int32_t segment_begin_ = 0, segment_end_ = 0, segment_position_ = 0;  // what is not yet closed
  std::int64_t segment_step_ = 0;
  bool fork_pending_ = false;  // the fork token was read, its separator not yet
  std::int32_t fork_position_ = 0;
  bool closed_path_ = false;  // </Path> was read, its separator not yet
  std::int32_t path_end_position_ = 0;
  std::vector<std::size_t> open_paths_;  // indices into out_.paths, of out_.open but its root
};

}  // namespace

std::string to_string(const BranchAddress& address) {
  std::string out;
  for (std::size_t i = 0; i < address.size(); ++i) {
    if (i > 0) out += i % 2 == 0 ? '/' : '.';
    out += std::to_string(address[i]);
  }
  return out;
}

std::int32_t split_path_budget(std::int32_t& left, std::size_t paths) {
  const auto count = static_cast<std::int32_t>(paths);
  CHECK(count > 0 && count <= left, "a fork of ", count, " paths where ", left, " may begin");
  left -= count;
  return left / count;
}

Structure read_structure(std::span<const std::int32_t> tokens, const Dialect& dialect, const StructureLimits& limits,
                         std::int32_t prompt_tokens) {
  return Reader(tokens, dialect, limits, prompt_tokens).read();
}

Structure plain_structure(std::int32_t num_tokens) {
  Structure out;
  out.forced.assign(static_cast<std::size_t>(num_tokens), false);
  if (num_tokens > 0) out.segments.push_back({0, num_tokens, 0, {}, {}});
  OpenBranch& root = out.open.emplace_back();
  if (num_tokens > 0) {
    root.context.push_back(0);
    root.lineage.previous = 0;
  }
  root.chain = {num_tokens, num_tokens, num_tokens};
  root.num_tokens = num_tokens;
  out.statistics.critical_path_tokens = out.statistics.steps = num_tokens;
  return out;
}

}  // namespace multiverse

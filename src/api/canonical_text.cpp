#include "multiverse/api/canonical_text.h"

#include <algorithm>
#include <utility>

#include "multiverse/base/check.h"

#include "api/token_text.h"

namespace multiverse {
struct CanonicalText::Branch {
  std::int32_t handle = 0;
  std::string id, parent, label;
  std::int64_t tokens = 0;
  std::int32_t parent_handle = 0;
  std::int64_t step = 0;       // BranchNews::step
  std::int64_t join_step = 0;  // the greatest of its ended paths
  bool ended = false;
  bool cut = false;
  // A run is what the branch writes between two forks. UTF-8 sequences and a branch's own stop strings end with it.
  IncrementalDetokenizer detokenizer;
  StopMatcher own_stops;
  std::deque<Held> held;
};

CanonicalText::CanonicalText(VisibleBytes visible_bytes, std::vector<std::string> stops, bool include_stop)
    : visible_bytes_(std::move(visible_bytes)),
      stops_(std::move(stops)),
      include_stop_(include_stop),
      search_branches_(!any_stop_inside_another(stops_)),
      canonical_(stops_, include_stop) {
  auto root = std::make_unique<Branch>();
  root->own_stops = StopMatcher(stops_, include_stop_);
  branches_.emplace(0, std::move(root));
  turns_.push_back({{0}, 0});
}

CanonicalText::~CanonicalText() = default;
CanonicalText::CanonicalText(CanonicalText&&) noexcept = default;

CanonicalText::Branch& CanonicalText::branch(std::int32_t handle) {
  const auto found = branches_.find(handle);
  CHECK(found != branches_.end(), "the engine sent an event of branch ", handle, ", which no fork opened");
  return *found->second;
}

void CanonicalText::add(const TokenEvent& event) {
  if (done_) return;
  Branch& writer = branch(event.branch);
  ++writer.tokens;
  if (!event.forced) ++writer.step;
  std::string text;
  const auto put_token = [&] {
    CanonicalToken token{event.token, event.forced, event.logprob, event.top};
    token.branch = event.branch;
    writer.held.emplace_back(Piece{std::move(token), std::move(text)});
  };
  if (event.end_of_text) {
    // An end token ends the reply where it stands, also inside a path (a stop token): nothing follows its branch.
    if (include_stop_) text = writer.detokenizer.append(visible_bytes_(event.token));
    watch(writer, text, /*at_end=*/false);
    const bool said = !text.empty();
    if (said) put_token();
    end_run(writer);
    if (!said) put_token();
    writer.cut = true;
  } else {
    text = writer.detokenizer.append(visible_bytes_(event.token));
    watch(writer, text, /*at_end=*/false);
    put_token();
  }
  advance();
}

void CanonicalText::add(const ForkEvent& event) {
  if (done_) return;
  Branch& parent = branch(event.parent);
  end_run(parent);
  std::vector<std::int32_t> children;
  for (const ForkEvent::Child& child : event.children) {
    auto created = std::make_unique<Branch>();
    created->handle = child.branch;
    created->id = to_string(child.address);
    created->parent = parent.id;
    created->label = child.label;
    created->step = parent.step;
    created->parent_handle = parent.handle;
    created->own_stops = StopMatcher(stops_, include_stop_);
    report(*created, BranchNews::Kind::kFork);
    const bool fresh = branches_.emplace(child.branch, std::move(created)).second;
    CHECK(fresh, "the engine opened branch ", child.branch, " twice");
    children.push_back(child.branch);
  }
  parent.held.emplace_back(std::move(children));
  advance();
}

void CanonicalText::add(const BranchEndEvent& event) {
  if (done_) return;
  Branch& ended = branch(event.branch);
  end_run(ended);
  ended.ended = true;
  // A cut may have ended the parent before.
  if (const auto parent = branches_.find(ended.parent_handle); parent != branches_.end()) {
    parent->second->join_step = std::max(parent->second->join_step, ended.step);
  }
  report(ended, BranchNews::Kind::kEnd);
  advance();
}

void CanonicalText::add(const JoinEvent& event) {
  if (done_) return;
  Branch& parent = branch(event.parent);
  parent.step = std::max(parent.step, parent.join_step);
  report(parent, BranchNews::Kind::kJoin);
}

void CanonicalText::finish() {
  if (done_) return;
  for (auto& [handle, open] : branches_) {
    if (!open->ended) end_run(*open);
  }
  finished_ = true;
  advance();
}

// The end of what a branch writes in one go. An unfinished character becomes U+FFFD.
void CanonicalText::end_run(Branch& branch) {
  std::string rest = branch.detokenizer.finish();
  branch.detokenizer = IncrementalDetokenizer();
  watch(branch, rest, /*at_end=*/true);
  if (!rest.empty()) branch.held.emplace_back(Piece{std::nullopt, std::move(rest)});
}

// Looks for stop strings in the branch's own text, before its turn has come, and reports that text.
void CanonicalText::watch(Branch& branch, std::string_view text, bool at_end) {
  if (branch.own_stops.matched() || (stops_.empty() && !want_news_)) return;
  std::string safe = branch.own_stops.append(text);
  if (at_end) safe += branch.own_stops.finish();
  report(branch, BranchNews::Kind::kToken, std::move(safe));
  if (branch.own_stops.matched() && search_branches_) cuts_.push_back(branch.handle);
}

void CanonicalText::report(const Branch& branch, BranchNews::Kind kind, std::string text) {
  if (!want_news_) return;
  if (kind == BranchNews::Kind::kToken) {
    if (text.empty()) return;
    // One piece a branch until something else happens.
    for (auto news = news_.rbegin(); news != news_.rend() && news->kind == kind; ++news) {
      if (news->id == branch.id) {
        news->text += text;
        news->tokens = branch.tokens;
        news->step = branch.step;
        return;
      }
    }
  }
  news_.push_back(
      {kind, branch.id, branch.parent, branch.handle == 0, branch.label, std::move(text), branch.tokens, branch.step});
}

void CanonicalText::advance() {
  while (!done_ && step()) {
  }
}

// Moves on by one held thing; false where the text has to wait.
bool CanonicalText::step() {
  Turn& turn = turns_.back();
  if (turn.next == turn.branches.size()) {
    turns_.pop_back();
    if (turns_.empty()) end_text();
    return !done_;
  }
  Branch& current = branch(turn.branches[turn.next]);
  if (current.held.empty()) {
    if (current.cut) {
      end_text();
      return false;
    }
    if (!current.ended && !finished_) return false;
    branches_.erase(current.handle);
    ++turn.next;
    return true;
  }
  Held next = std::move(current.held.front());
  current.held.pop_front();
  if (auto* children = std::get_if<std::vector<std::int32_t>>(&next)) {
    turns_.push_back({std::move(*children), 0});
    return true;
  }
  append(std::move(std::get<Piece>(next)));
  if (canonical_.matched()) {
    cuts_.push_back(current.handle);
    done_ = true;
  }
  return !done_;
}

void CanonicalText::append(Piece piece) {
  if (piece.token) {
    piece.token->text_offset = code_points_;
    waiting_.push_back({appended_bytes_, std::move(*piece.token)});
  }
  appended_bytes_ += piece.text.size();
  code_points_ += count_code_points(piece.text);
  release(canonical_.append(piece.text));
}

// A token belongs to the reply if its text starts before the reply's end.
void CanonicalText::release(const std::string& text) {
  released_bytes_ += text.size();
  delta_.text += text;
  // Without stop strings nothing is held back, and a token need not wait for the bytes that complete its character.
  while (!waiting_.empty() && (stops_.empty() || waiting_.front().offset_bytes < released_bytes_)) {
    delta_.tokens.push_back(std::move(waiting_.front().token));
    waiting_.pop_front();
  }
}

// The text ends here by itself: what was held back is certain now.
void CanonicalText::end_text() {
  release(canonical_.finish());
  if (!canonical_.matched()) {
    for (Waiting& left : waiting_) delta_.tokens.push_back(std::move(left.token));
  }
  waiting_.clear();
  done_ = true;
}

CanonicalText::Delta CanonicalText::take() {
  return std::exchange(delta_, {});
}

std::optional<std::int32_t> CanonicalText::take_cut() {
  if (cuts_.empty()) return std::nullopt;
  const std::int32_t handle = cuts_.front();
  cuts_.erase(cuts_.begin());
  return handle;
}

std::vector<BranchNews> CanonicalText::take_news() {
  return std::exchange(news_, {});
}

}  // namespace multiverse

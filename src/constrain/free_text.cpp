#include "constrain/free_text.h"

#include <algorithm>
#include <unordered_map>
#include <utility>

namespace multiverse {
namespace {

class FreeTextState final : public ConstraintState {
 public:
  FreeTextState(std::shared_ptr<SharedAutomaton> shared, ThinkTokens think, bool thinking)
      : shared_(std::move(shared)),
        automaton_(shared_->current()),
        think_(think),
        thinking_(thinking),
        state_(automaton_->start()) {
    update();
  }

  bool accept(std::int32_t token) override {
    const bool first = !std::exchange(begun_, true);
    if (thinking_ || (first && token == think_.open && token >= 0)) {
      thinking_ = token != think_.close;
      return true;
    }
    const std::string_view bytes = shared_->vocabulary->bytes(token);
    if (bytes.empty()) {  // a control token
      if (!automaton_->is_end(state_)) return false;
      state_ = automaton_->start();
      return update();
    }
    if (automaton_->full()) {
      const std::shared_ptr<Automaton> full = std::exchange(automaton_, shared_->current());
      state_ = automaton_->copy_state(*full, state_);
      free_masks_.clear();
    }
    const std::int64_t before = automaton_->work();
    state_ = automaton_->step(state_, bytes);
    const bool goes_on = state_ != Automaton::kDead && update();
    work_ += automaton_->work() - before;
    return goes_on && work_ <= kMaxReplyWork;
  }

  std::span<const std::uint64_t> allowed() const override {
    if (thinking_) return {};
    return mask_;
  }

 private:
  // The mask of the state; false where nothing may follow.
  bool update() {
    if (!automaton_->is_end(state_)) {
      mask_ = automaton_->mask(state_);
      return std::any_of(mask_.begin(), mask_.end(), [](std::uint64_t word) { return word != 0; });
    }
    const auto known = free_masks_.find(state_);
    mask_ = known != free_masks_.end() ? known->second : free_masks_.emplace(state_, free_mask()).first->second;
    return true;
  }

  // All but the tokens that would complete a trigger and go on in a way that no call does; empty where there are none.
  std::vector<std::uint64_t> free_mask() {
    std::vector<std::uint64_t> mask;
    if (state_ == automaton_->start() && !shared_->triggers->has_whole()) return mask;
    for (const std::int32_t token : shared_->triggers->tokens()) {
      if (automaton_->step(state_, shared_->vocabulary->bytes(token)) != Automaton::kDead) continue;
      if (mask.empty()) mask.assign(shared_->vocabulary->mask_words(), ~std::uint64_t{0});
      mask[static_cast<std::size_t>(token) / 64] &= ~(std::uint64_t{1} << (static_cast<std::uint32_t>(token) % 64U));
    }
    return mask;
  }

  const std::shared_ptr<SharedAutomaton> shared_;
  std::shared_ptr<Automaton> automaton_;
  const ThinkTokens think_;
  bool thinking_;
  bool begun_ = false;
  std::int32_t state_;
  std::int64_t work_ = 0;
  std::span<const std::uint64_t> mask_;  // of the automaton, or of free_masks_
  std::unordered_map<std::int32_t, std::vector<std::uint64_t>> free_masks_;
};

class FreeTextConstraint final : public Constraint {
 public:
  FreeTextConstraint(std::shared_ptr<SharedAutomaton> shared, ThinkTokens think, bool thinking)
      : shared_(std::move(shared)), think_(think), thinking_(thinking) {}
  std::unique_ptr<ConstraintState> start() const override {
    return std::make_unique<FreeTextState>(shared_, think_, thinking_);
  }

 private:
  const std::shared_ptr<SharedAutomaton> shared_;
  const ThinkTokens think_;
  const bool thinking_;
};

}  // namespace

TriggerTokens::TriggerTokens(const std::string& trigger, const Vocabulary& vocabulary) {
  for (const std::int32_t token : vocabulary.all().tokens) {
    const std::string_view bytes = vocabulary.bytes(token);
    const bool whole = bytes.find(trigger) != std::string_view::npos;
    bool completes = whole;
    for (std::size_t length = 1; length <= std::min(bytes.size(), trigger.size()) && !completes; ++length) {
      completes = bytes.substr(0, length) == std::string_view(trigger).substr(trigger.size() - length);
    }
    if (completes) tokens_.push_back(token);
    has_whole_ = has_whole_ || whole;
  }
}

std::shared_ptr<const Constraint> free_text_constraint(std::shared_ptr<SharedAutomaton> shared, ThinkTokens think,
                                                       bool thinking) {
  return std::make_shared<FreeTextConstraint>(std::move(shared), think, thinking);
}

}  // namespace multiverse

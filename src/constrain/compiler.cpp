#include "multiverse/constrain/compiler.h"

#include <algorithm>
#include <list>
#include <mutex>
#include <utility>

#include "constrain/automaton.h"
#include "constrain/free_text.h"
#include "constrain/json_schema.h"
#include "constrain/json_text.h"
#include "constrain/regex.h"
#include "constrain/tool_calls.h"

namespace multiverse {
namespace {

constexpr std::size_t kMaxCached = 16;

class ReplyState final : public ConstraintState {
 public:
  ReplyState(std::shared_ptr<SharedAutomaton> shared, ThinkTokens think, bool thinking)
      : shared_(std::move(shared)), automaton_(shared_->current()), think_(think), state_(automaton_->start()) {
    phase_ = thinking ? Phase::kThinking : Phase::kGoverning;
    if (thinking || think_.open >= 0) {
      thinking_.assign(shared_->vocabulary->mask_words(), ~std::uint64_t{0});
      for (const std::int32_t token : shared_->vocabulary->ends()) {
        thinking_[static_cast<std::size_t>(token) / 64] &=
            ~(std::uint64_t{1} << (static_cast<std::uint32_t>(token) % 64U));
      }
    }
    if (phase_ == Phase::kThinking || think_.open < 0) return;
    phase_ = Phase::kOpening;
    const auto allowed = automaton_->mask(state_);
    opening_.assign(allowed.begin(), allowed.end());
    opening_[static_cast<std::size_t>(think_.open) / 64] |= std::uint64_t{1}
                                                            << (static_cast<std::uint32_t>(think_.open) % 64U);
  }

  bool accept(std::int32_t token) override {
    if (phase_ == Phase::kThinking) {
      if (token == think_.close) phase_ = Phase::kGoverning;
      return true;
    }
    if (phase_ == Phase::kOpening && token == think_.open) {
      phase_ = Phase::kThinking;
      return true;
    }
    phase_ = Phase::kGoverning;
    const std::string_view bytes = shared_->vocabulary->bytes(token);
    if (bytes.empty()) return false;
    if (automaton_->full()) {
      const std::shared_ptr<Automaton> full = std::exchange(automaton_, shared_->current());
      state_ = automaton_->copy_state(*full, state_);
    }
    const std::int64_t before = automaton_->work();
    state_ = automaton_->step(state_, bytes);
    const auto next = automaton_->mask(state_);
    work_ += automaton_->work() - before;
    if (work_ > kMaxReplyWork) return false;
    return std::any_of(next.begin(), next.end(), [](std::uint64_t word) { return word != 0; });
  }

  std::span<const std::uint64_t> allowed() const override {
    switch (phase_) {
      case Phase::kOpening:
        return opening_;
      case Phase::kThinking:
        return thinking_;  // what is governed is still to come
      case Phase::kGoverning:
        break;
    }
    return automaton_->mask(state_);
  }

 private:
  enum class Phase { kOpening, kThinking, kGoverning };

  const std::shared_ptr<SharedAutomaton> shared_;
  std::shared_ptr<Automaton> automaton_;
  const ThinkTokens think_;
  Phase phase_;
  std::int32_t state_;
  std::int64_t work_ = 0;
  std::vector<std::uint64_t> thinking_;  // any token but those that end the reply
  std::vector<std::uint64_t> opening_;   // what a reply may start with: the text, or thoughts
};

class ReplyConstraint final : public Constraint {
 public:
  ReplyConstraint(std::shared_ptr<SharedAutomaton> shared, ThinkTokens think, bool thinking)
      : shared_(std::move(shared)), think_(think), thinking_(thinking) {}
  std::unique_ptr<ConstraintState> start() const override {
    return std::make_unique<ReplyState>(shared_, think_, thinking_);
  }

 private:
  const std::shared_ptr<SharedAutomaton> shared_;
  const ThinkTokens think_;
  const bool thinking_;
};

// Thoughts are usually followed by an empty line, which is no harm in front of JSON.
SyntaxBuilder::Piece after_thoughts(SyntaxBuilder& builder, SyntaxBuilder::Piece text) {
  return builder.sequence({builder.optional(builder.text("\n")), builder.optional(builder.text("\n")), text});
}

Result<std::shared_ptr<const Syntax>> syntax_of(const ConstraintSpec& spec) {
  SyntaxBuilder builder;
  std::int32_t root = -1;
  if (spec.kind == ConstraintSpec::Kind::kRegex) {
    const auto whole = add_regex(builder, spec.text, RegexUse::kWholeText);
    if (!whole.ok()) return whole.error();
    root = builder.add_rule(whole.value());
  } else if (spec.kind == ConstraintSpec::Kind::kChoice) {
    std::vector<SyntaxBuilder::Piece> ways;
    for (const SchemaJson& text : SchemaJson::parse(spec.text)) ways.push_back(builder.text(text.get<std::string>()));
    root = builder.add_rule(builder.any_of(ways));
  } else if (spec.kind == ConstraintSpec::Kind::kToolCalls) {
    const auto calls = add_tool_calls(builder, spec.text);
    if (!calls.ok()) return calls.error();
    root = builder.add_rule(after_thoughts(builder, calls.value()));
  } else if (spec.kind == ConstraintSpec::Kind::kTextWithToolCalls) {
    auto text = add_text_with_tool_calls(builder, spec.text, /*roomy=*/true);
    if (text.ok() && builder.overflow()) {
      builder = SyntaxBuilder();
      text = add_text_with_tool_calls(builder, spec.text, /*roomy=*/false);
    }
    if (!text.ok()) return text.error();
    root = builder.add_rule(text.value());
  } else if (spec.kind == ConstraintSpec::Kind::kJsonObject) {
    root = builder.add_rule(after_thoughts(builder, builder.call(add_json_object(builder))));
  } else {
    const auto schema = parse_schema(spec.text);
    if (!schema.ok()) return schema.error();
    const auto value = add_json_schema(builder, schema.value());
    if (!value.ok()) return value.error();
    root = builder.add_rule(after_thoughts(builder, builder.call(value.value())));
  }
  if (builder.overflow()) {
    return invalid_argument("the constraint is too large for this server: use smaller counts");
  }
  auto syntax = std::make_shared<const Syntax>(builder.take(root));
  if (syntax->matches_nothing) return invalid_argument("nothing satisfies the constraint");
  return std::shared_ptr<const Syntax>(std::move(syntax));
}

class CompilerImpl final : public ConstraintCompiler {
 public:
  CompilerImpl(std::shared_ptr<const Vocabulary> vocabulary, ThinkTokens think)
      : vocabulary_(std::move(vocabulary)), think_(think) {}

  Result<std::shared_ptr<const Constraint>> compile(const ConstraintSpec& spec, bool thinking) const override {
    const std::string key = concat(static_cast<int>(spec.kind), " ", spec.text);
    std::shared_ptr<SharedAutomaton> shared = find(key);
    if (shared == nullptr) {
      const auto syntax = syntax_of(spec);
      if (!syntax.ok()) return syntax.error();
      shared = std::make_shared<SharedAutomaton>();
      shared->syntax = syntax.value();
      shared->vocabulary = vocabulary_;
      shared->automaton = std::make_shared<Automaton>(shared->syntax, vocabulary_);
      if (spec.kind == ConstraintSpec::Kind::kTextWithToolCalls) {
        shared->triggers = std::make_shared<const TriggerTokens>(tool_call_trigger(spec.text), *vocabulary_);
      } else if (const auto first = shared->automaton->mask(shared->automaton->start());
                 // The first mask is worked out here rather than in the engine's step.
                 std::all_of(first.begin(), first.end(), [](std::uint64_t word) { return word == 0; })) {
        return invalid_argument("no token of this model can begin a text that satisfies the constraint");
      }
      keep(key, shared);
    }
    if (shared->triggers != nullptr) return free_text_constraint(std::move(shared), think_, thinking);
    return std::shared_ptr<const Constraint>(std::make_shared<ReplyConstraint>(std::move(shared), think_, thinking));
  }

 private:
  using Entry = std::pair<std::string, std::shared_ptr<SharedAutomaton>>;

  std::shared_ptr<SharedAutomaton> find(const std::string& key) const {
    const std::lock_guard lock(mutex_);
    const auto found =
        std::find_if(recent_.begin(), recent_.end(), [&](const Entry& entry) { return entry.first == key; });
    if (found == recent_.end()) return nullptr;
    recent_.splice(recent_.begin(), recent_, found);
    return found->second;
  }

  void keep(const std::string& key, const std::shared_ptr<SharedAutomaton>& shared) const {
    const std::lock_guard lock(mutex_);
    recent_.emplace_front(key, shared);
    if (recent_.size() > kMaxCached) recent_.pop_back();
  }

  const std::shared_ptr<const Vocabulary> vocabulary_;
  const ThinkTokens think_;
  mutable std::mutex mutex_;
  mutable std::list<Entry> recent_;  // the last one asked for first
};

}  // namespace

std::shared_ptr<const ConstraintCompiler> ConstraintCompiler::make(const Tokenizer& tokenizer,
                                                                   const std::vector<std::int32_t>& hidden,
                                                                   std::vector<std::int32_t> ends,
                                                                   std::int32_t vocab_size, ThinkTokens think) {
  return std::make_shared<CompilerImpl>(
      std::make_shared<const Vocabulary>(tokenizer, hidden, std::move(ends), vocab_size), think);
}

}  // namespace multiverse

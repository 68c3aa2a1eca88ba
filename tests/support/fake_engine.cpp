#include "support/fake_engine.h"

#include <deque>
#include <stdexcept>

#include "support/fake_tokenizer.h"

namespace multiverse::testing {

class FakeStream final : public RequestStream {
 public:
  FakeStream(std::shared_ptr<FakeEngine::State> state, std::size_t record, Script script)
      : state_(std::move(state)), record_(record) {
    due_ = std::chrono::steady_clock::now();
    for (TimedEvent& event : script) events_.push_back(std::move(event));
    schedule();
  }
  ~FakeStream() override {
    FakeStream::notify({});
    if (!finished_) cancel();
  }

  RequestId id() const override { return record_; }

  bool wait(Nanoseconds timeout, std::vector<Event>& out) override {
    std::unique_lock lock(state_->mutex);
    told_ = false;
    const auto until = std::min(due_, std::chrono::steady_clock::now() + timeout);
    if (timeout.count() > 0 && !finished_ && !events_.empty())
      state_->changed.wait_until(lock, until, [this] { return cancelled_; });
    while (!finished_ && !events_.empty() && (cancelled_ || std::chrono::steady_clock::now() >= due_)) {
      if (events_.front().throws) throw std::runtime_error("a failure of the script");
      finished_ = std::holds_alternative<FinishedEvent>(events_.front().event);
      if (finished_ || !cancelled_) out.push_back(std::move(events_.front().event));
      events_.pop_front();
      if (!events_.empty()) schedule();
    }
    state_->changed.notify_all();
    return !finished_;
  }

  void notify(std::function<void()> on_events) override {
    const std::lock_guard lock(state_->mutex);
    on_events_ = std::move(on_events);
    told_ = false;
    if (on_events_) {
      state_->told.insert(this);
    } else {
      state_->told.erase(this);
    }
    state_->changed.notify_all();
  }

  // The engine's thread: tells of events that are due, and says when to come again. Under the lock.
  std::chrono::steady_clock::time_point tell(std::chrono::steady_clock::time_point now) {
    if (told_ || finished_ || events_.empty()) return std::chrono::steady_clock::time_point::max();
    if (!cancelled_ && due_ > now) return due_;
    told_ = true;
    on_events_();
    return std::chrono::steady_clock::time_point::max();
  }

  void cancel() override {
    const std::lock_guard lock(state_->mutex);
    cancelled_ = true;
    state_->records[record_].cancelled = true;
    state_->changed.notify_all();
  }

  void cut(std::int32_t sample, std::int32_t branch) override {
    const std::lock_guard lock(state_->mutex);
    state_->records[record_].cuts.emplace_back(sample, branch);
  }

 private:
  void schedule() {
    if (!events_.empty()) due_ += events_.front().after;
  }

  const std::shared_ptr<FakeEngine::State> state_;
  const std::size_t record_;
  std::deque<TimedEvent> events_;
  std::chrono::steady_clock::time_point due_;
  std::function<void()> on_events_;
  bool told_ = false;  // since the last look
  bool cancelled_ = false, finished_ = false;
};

FakeEngine::FakeEngine(Player player) : player_(std::move(player)), teller_([this] { tell(); }) {}

FakeEngine::~FakeEngine() {
  {
    const std::lock_guard lock(state_->mutex);
    state_->stopping = true;
  }
  state_->changed.notify_all();
  teller_.join();
}

void FakeEngine::tell() {
  std::unique_lock lock(state_->mutex);
  while (!state_->stopping) {
    const auto now = std::chrono::steady_clock::now();
    auto next = now + std::chrono::seconds(1);
    for (FakeStream* stream : state_->told) next = std::min(next, stream->tell(now));
    state_->changed.wait_until(lock, next);
  }
}

Result<std::unique_ptr<RequestStream>> FakeEngine::submit(GenerateRequest request) {
  auto script = player_(request);
  if (!script.ok()) return script.error();
  const std::lock_guard lock(state_->mutex);
  state_->records.push_back({std::move(request), false, {}});
  return std::unique_ptr<RequestStream>(
      std::make_unique<FakeStream>(state_, state_->records.size() - 1, std::move(script).value()));
}

EngineStats FakeEngine::stats() const {
  const std::lock_guard lock(state_->mutex);
  return state_->stats;
}

void FakeEngine::set_stats(const EngineStats& stats) {
  const std::lock_guard lock(state_->mutex);
  state_->stats = stats;
}

std::vector<RequestRecord> FakeEngine::records() const {
  const std::lock_guard lock(state_->mutex);
  return state_->records;
}

bool FakeEngine::wait_for_cancel() const {
  std::unique_lock lock(state_->mutex);
  return state_->changed.wait_for(lock, std::chrono::seconds(10),
                                  [this] { return !state_->records.empty() && state_->records.back().cancelled; });
}

TokenEvent token_event(std::int32_t sample, std::int32_t branch, TokenId token, bool forced) {
  TokenEvent event;
  event.sample = sample;
  event.branch = branch;
  event.token = token;
  event.forced = forced;
  if (!forced) {
    event.logprob = -0.5F;
    event.top = {{token, -0.5F}, {static_cast<TokenId>('?'), -2.0F}};
  }
  return event;
}

SampleEndEvent sample_end(std::int32_t sample, FinishReason reason, std::int64_t tokens) {
  SampleEndEvent end;
  end.sample = sample;
  end.reason = reason;
  end.completion_tokens = tokens;
  end.parallel.critical_path_tokens = tokens;
  end.parallel.steps = tokens;
  end.weights_versions = {1};
  return end;
}

FinishedEvent finished(const GenerateRequest& request) {
  FinishedEvent event;
  event.prompt_tokens = static_cast<std::int64_t>(request.prompt.size());
  return event;
}

void append_text(Script& script, std::int32_t sample, std::string_view text, std::chrono::milliseconds gap) {
  for (const TokenId token : bytes_of(text)) script.push_back({token_event(sample, 0, token), gap});
}

Script text_script(const GenerateRequest& request, std::string_view text, std::chrono::milliseconds gap,
                   FinishReason reason) {
  Script script;
  if (request.prompt_top_logprobs >= 0) {
    PromptEvent prompt;
    prompt.logprobs.emplace_back(std::nullopt);
    for (std::size_t i = 1; i < request.prompt.size(); ++i) {
      prompt.logprobs.push_back(
          PromptEvent::Entry{-1.0F, {{static_cast<TokenId>('x'), -0.25F}, {request.prompt[i], -1.0F}}});
    }
    script.push_back({std::move(prompt)});
  }
  for (std::int32_t sample = 0; sample < request.n; ++sample) {
    append_text(script, sample, text, gap);
    std::int64_t tokens = static_cast<std::int64_t>(text.size());
    if (reason == FinishReason::kStop) {
      TokenEvent end = token_event(sample, 0, kEndOfTurn);
      end.end_of_text = true;
      script.push_back({std::move(end)});
      ++tokens;
    }
    script.push_back({sample_end(sample, reason, tokens)});
  }
  script.push_back({finished(request)});
  return script;
}

Script two_paths_script(const GenerateRequest& request, std::chrono::milliseconds gap) {
  Script script;
  const auto say = [&](std::int32_t branch, const std::vector<TokenId>& tokens, bool forced = false) {
    for (const TokenId token : tokens) script.push_back({token_event(0, branch, token, forced), gap});
  };
  say(0, {'A', kParallel, kGoal, kGoalEnd});
  say(0, {'\n'}, true);
  script.push_back({ForkEvent{0, 0, {{1, {1, 1}, "1"}, {2, {1, 2}, "2"}}}});
  say(1, {kPath, '\n', '1', ':'}, true);
  say(2, {kPath, '\n', '2', ':'}, true);
  say(2, bytes_of("é"));
  say(1, bytes_of("xy"));
  say(2, {kPathEnd});
  say(2, {'\n'}, true);
  script.push_back({BranchEndEvent{0, 2}});
  say(1, {kPathEnd});
  say(1, {'\n'}, true);
  script.push_back({BranchEndEvent{0, 1}});
  script.push_back({JoinEvent{0, 0}});
  say(0, {kConclusion, '\n'}, true);
  say(0, {'c', kConclusionEnd, kParallelEnd, 'Z'});
  SampleEndEvent end = sample_end(0, FinishReason::kLength, 27);
  end.parallel = {1, 2, 2, 1, 19, 11, 0};
  script.push_back({end});
  script.push_back({finished(request)});
  return script;
}

std::string two_paths_text() {
  return "A<Parallel><Goal></Goal>\n<Path>\n1:xy</Path>\n<Path>\n2:é</Path>\n<Conclusion>\nc</Conclusion></Parallel>Z";
}

}  // namespace multiverse::testing

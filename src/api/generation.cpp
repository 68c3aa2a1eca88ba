#include "multiverse/api/generation.h"

#include <algorithm>
#include <utility>

#include "multiverse/api/error_body.h"

#include "api/answer.h"
#include "api/branch_watch.h"
#include "api/reply_reader.h"
#include "api/token_text.h"

namespace multiverse {
namespace {

// With several prompts there are several streams to wait for, and no way to wait for all of them at once.
constexpr Nanoseconds kTurn = std::chrono::milliseconds(5);

struct Choice {
  Choice(CanonicalText canonical, ReplyReader parts, std::int32_t max_running_paths)
      : text(std::move(canonical)), reader(std::move(parts)), branches(max_running_paths) {}
  CanonicalText text;
  ReplyReader reader;
  BranchWatch branches;
  const char* finish_reason = nullptr;  // set when the sample has ended
  std::vector<std::uint64_t> weights_versions;
  bool read = false;     // to the end
  bool echoed = false;   // the prompt's text has been said
  bool chunked = false;  // a first chunk has been sent
  bool closed = false;   // so has the last one
};

struct PromptRun {
  std::unique_ptr<RequestStream> stream;
  std::vector<TokenId> prompt;
  std::int32_t n = 1;
  std::optional<PromptEvent> logprobs;
  std::optional<ChoicePart> echo;  // the prompt as part of the answer
  bool finished = false;
};

constexpr const char* kStop = "stop";
constexpr const char* kLength = "length";
constexpr const char* kToolCalls = "tool_calls";

class GenerationImpl final : public Generation {
 public:
  GenerationImpl(Job job, std::shared_ptr<const ServedModel> model, std::int64_t created)
      : job_(std::move(job)), model_(std::move(model)), writer_(job_, *model_, created) {}

  Status submit(Engine& engine);
  bool wait(Nanoseconds timeout) override;
  void notify(const std::function<void()>& on_events) override {
    for (PromptRun& run : runs_) run.stream->notify(on_events);
  }
  void cancel() override;
  void fail(Error error) override;
  const std::optional<Error>& error() const override { return error_; }
  std::string take_events() override;
  std::string body() override;
  const char* finish_reason() const override;
  std::int64_t prompt_tokens() const override { return usage_.prompt_tokens; }
  std::int64_t completion_tokens() const override { return received_; }
  BranchFacts take_branch_facts() override { return std::exchange(branch_facts_, {}); }
  const ParallelUsage& parallel() const override { return usage_.parallel; }
  Nanoseconds queued() const override { return queued_; }
  const std::vector<std::uint64_t>& weights_versions() const override { return usage_.weights_versions; }

 private:
  bool running() const {
    return !error_ && std::any_of(runs_.begin(), runs_.end(), [](const PromptRun& run) { return !run.finished; });
  }
  Choice& choice(std::size_t run, std::int32_t sample);
  void take_in(std::size_t run, Nanoseconds timeout);
  void handle(std::size_t run, const Event& event);
  void handle(std::size_t run, const SampleEndEvent& event);
  void handle(std::size_t run, const FinishedEvent& event);
  ChoicePart take_part(PromptRun& run, Choice& choice);

  // An event with one choice, and the usage so far where every event is to have it.
  OrderedJson chunk(OrderedJson choice) const;
  void open_stream(std::string& out);
  void stream_choice(PromptRun& run, std::size_t index, std::string& out);
  void close_stream(std::string& out);
  void add_prompt(OrderedJson& object, const PromptRun& run) const;
  void put(std::string& out, const OrderedJson& event) const { out += "data: " + dump(event) + "\n\n"; }

  const Job job_;
  const std::shared_ptr<const ServedModel> model_;
  const AnswerWriter writer_;
  std::vector<PromptRun> runs_;
  std::vector<std::unique_ptr<Choice>> choices_;  // n for each prompt
  std::vector<Event> events_;
  std::optional<Error> error_;
  Usage usage_;
  std::int64_t received_ = 0;
  BranchFacts branch_facts_;
  Nanoseconds queued_{0};
  bool cancelled_ = false;
  bool opened_ = false, closed_ = false;  // the stream of events
};

Status GenerationImpl::submit(Engine& engine) {
  for (const GenerateRequest& request : job_.requests) {
    PromptRun run;
    run.prompt = request.prompt;
    run.n = request.n;
    auto stream = engine.submit(request);
    if (!stream.ok()) return stream.error();  // the others are cancelled with this object
    run.stream = std::move(stream).value();
    runs_.push_back(std::move(run));
    usage_.prompt_tokens += static_cast<std::int64_t>(request.prompt.size());
    for (std::int32_t sample = 0; sample < request.n; ++sample) {
      CanonicalText text([model = model_.get()](TokenId token) { return model->visible_bytes(token); }, job_.stops,
                         job_.include_stop);
      if (job_.include_branches) text.want_news();
      choices_.push_back(std::make_unique<Choice>(std::move(text), ReplyReader(job_, *model_, request.prompt),
                                                  request.limits.max_running_paths));
    }
  }
  return ok_status();
}

bool GenerationImpl::wait(Nanoseconds timeout) {
  std::size_t unfinished = 0, first = 0;
  for (std::size_t run = runs_.size(); run-- > 0;) {
    if (runs_[run].finished) continue;
    ++unfinished;
    first = run;
  }
  if (unfinished > 1) {
    bool news = false;
    for (std::size_t run = 0; run < runs_.size() && !error_; ++run) {
      if (runs_[run].finished) continue;
      take_in(run, Nanoseconds::zero());
      news = news || !events_.empty();
    }
    timeout = news ? Nanoseconds::zero() : std::min(timeout, kTurn);
  }
  if (running() && !runs_[first].finished) take_in(first, timeout);
  return running();
}

void GenerationImpl::take_in(std::size_t run, Nanoseconds timeout) {
  events_.clear();
  runs_[run].stream->wait(timeout, events_);
  for (const Event& event : events_) {
    if (!error_) handle(run, event);
  }
  if (error_) return;
  for (std::int32_t sample = 0; sample < runs_[run].n; ++sample) {
    while (const auto branch = choice(run, sample).text.take_cut()) runs_[run].stream->cut(sample, *branch);
  }
}

Choice& GenerationImpl::choice(std::size_t run, std::int32_t sample) {
  CHECK(sample >= 0 && sample < runs_[run].n, "the engine sent an event of sample ", sample, " of ", runs_[run].n);
  return *choices_[run * static_cast<std::size_t>(runs_[run].n) + static_cast<std::size_t>(sample)];
}

void GenerationImpl::handle(std::size_t run, const Event& event) {
  if (const auto* token = std::get_if<TokenEvent>(&event)) {
    ++received_;
    if (!job_.discard_output) choice(run, token->sample).text.add(*token);
  } else if (const auto* prompt = std::get_if<PromptEvent>(&event)) {
    runs_[run].logprobs = *prompt;
  } else if (const auto* end = std::get_if<SampleEndEvent>(&event)) {
    handle(run, *end);
  } else if (const auto* finished = std::get_if<FinishedEvent>(&event)) {
    handle(run, *finished);
  } else if (job_.discard_output) {
    return;
  } else if (const auto* fork = std::get_if<ForkEvent>(&event)) {
    choice(run, fork->sample).text.add(*fork);
    choice(run, fork->sample).branches.add(*fork, branch_facts_);
  } else if (const auto* branch_end = std::get_if<BranchEndEvent>(&event)) {
    choice(run, branch_end->sample).text.add(*branch_end);
    choice(run, branch_end->sample).branches.add(*branch_end, SteadyClock().now());
  } else if (const auto* join = std::get_if<JoinEvent>(&event)) {
    choice(run, join->sample).text.add(*join);
    choice(run, join->sample).branches.add(*join, SteadyClock().now(), branch_facts_);
  }
}

void GenerationImpl::handle(std::size_t run, const SampleEndEvent& event) {
  if (event.reason == FinishReason::kCancelled || event.reason == FinishReason::kError)
    return;  // FinishedEvent says why
  Choice& ended = choice(run, event.sample);
  ended.text.finish();
  ended.finish_reason = ended.text.stopped() || event.reason == FinishReason::kStop ? kStop : kLength;
  ended.weights_versions = event.weights_versions;
  SampleEndEvent counted = event;
  if (job_.discard_output) {
    ended.finish_reason = kLength;
    counted.completion_tokens = 0;
  }
  usage_.add(counted);
}

void GenerationImpl::handle(std::size_t run, const FinishedEvent& event) {
  runs_[run].finished = true;
  usage_.cached_tokens += event.cached_tokens;
  queued_ = std::max(queued_, event.queued);
  if (event.error) return fail(*event.error);
  if (cancelled_) return fail({ErrorCode::kCancelled, "the request was cancelled", "", ""});
  for (std::int32_t sample = 0; sample < runs_[run].n; ++sample) {
    if (choice(run, sample).finish_reason != nullptr) continue;
    return fail({ErrorCode::kInternal, "the engine ended the request before its answer was complete", "", ""});
  }
  if (!runs_[run].logprobs) runs_[run].logprobs = PromptEvent{};
}

void GenerationImpl::cancel() {
  cancelled_ = true;
  for (PromptRun& run : runs_) {
    if (!run.finished) run.stream->cancel();
  }
}

void GenerationImpl::fail(Error error) {
  if (!error_) error_ = std::move(error);
  cancel();
}

const char* GenerationImpl::finish_reason() const {
  const bool any = std::any_of(choices_.begin(), choices_.end(),
                               [](const auto& choice) { return choice->finish_reason == kLength; });
  return any ? kLength : kStop;
}

// What the choice has to say and has not said yet, the echoed prompt first. Nothing while that has to wait for its
// log-probabilities.
ChoicePart GenerationImpl::take_part(PromptRun& run, Choice& choice) {
  ChoicePart part;
  std::size_t shift = 0;
  if (job_.echo) {
    if (!run.echo) {
      if (job_.logprobs && !run.logprobs) return part;
      run.echo = writer_.echoed_prompt(run.prompt, run.logprobs.value_or(PromptEvent{}));
    }
    shift = count_code_points(run.echo->text);
    if (!choice.echoed) part = *run.echo;
    choice.echoed = true;
  }
  CanonicalText::Delta delta = choice.text.take();
  choice.reader.append(delta.text, delta.tokens, part);
  if (choice.finish_reason != nullptr && !choice.read) {
    choice.read = true;
    choice.reader.finish(part);
    if (choice.finish_reason == kStop && choice.reader.found_calls()) choice.finish_reason = kToolCalls;
  }
  for (CanonicalToken& token : delta.tokens) {
    token.text_offset += shift;
    part.tokens.push_back(std::move(token));
  }
  return part;
}

std::string GenerationImpl::take_events() {
  std::string out;
  if (closed_) return out;
  if (!opened_) open_stream(out);
  std::size_t index = 0;
  for (PromptRun& run : runs_) {
    for (std::int32_t sample = 0; sample < run.n; ++sample) stream_choice(run, index++, out);
  }
  if (!running()) close_stream(out);
  return out;
}

OrderedJson GenerationImpl::chunk(OrderedJson choice) const {
  OrderedJson chunk = writer_.chunk(OrderedJson::array({std::move(choice)}));
  if (job_.continuous_usage) {
    chunk["usage"] = {{"prompt_tokens", usage_.prompt_tokens},
                      {"completion_tokens", received_},
                      {"total_tokens", usage_.prompt_tokens + received_}};
  }
  return chunk;
}

void GenerationImpl::open_stream(std::string& out) {
  opened_ = true;
  if (!job_.chat) return;
  for (std::size_t index = 0; index < choices_.size(); ++index) {
    OrderedJson event = chunk(writer_.role_choice(static_cast<int>(index)));
    if (job_.return_token_ids) event["prompt_token_ids"] = runs_.front().prompt;
    put(out, event);
  }
}

void GenerationImpl::stream_choice(PromptRun& run, std::size_t index, std::string& out) {
  Choice& choice = *choices_[index];
  if (choice.closed) return;
  const int number = static_cast<int>(index);
  for (const BranchNews& news : choice.text.take_news()) put(out, writer_.branch_chunk(number, news));
  const auto put_part = [&](const ChoicePart& part) {
    OrderedJson said = writer_.chunk_choice(number, part);
    if (job_.return_token_ids && !job_.chat && !choice.chunked) said["prompt_token_ids"] = run.prompt;
    choice.chunked = true;
    OrderedJson event = chunk(std::move(said));
    if (part.finish_reason != nullptr) event["weights_versions"] = choice.weights_versions;
    put(out, event);
  };
  const ChoicePart part = take_part(run, choice);
  const bool tokens_count = job_.logprobs || job_.return_token_ids;
  if (part.says_text() || (tokens_count && !part.tokens.empty())) put_part(part);
  if (choice.finish_reason == nullptr) return;
  ChoicePart last;
  last.finish_reason = choice.finish_reason;
  put_part(last);
  choice.closed = true;
}

void GenerationImpl::close_stream(std::string& out) {
  closed_ = true;
  if (error_) {
    // The status line is gone. Without [DONE] the client knows that the answer is not whole.
    out += "data: " + error_body(*error_) + "\n\n";
    return;
  }
  if (job_.include_usage) {
    OrderedJson event = writer_.chunk(OrderedJson::array());
    event["usage"] = writer_.usage(usage_);
    put(out, event);
  }
  out += "data: [DONE]\n\n";
}

std::string GenerationImpl::body() {
  CHECK(!running() && !error_, "the answer's body was asked for before the answer was complete");
  OrderedJson choices = OrderedJson::array();
  for (PromptRun& run : runs_) {
    for (std::int32_t sample = 0; sample < run.n; ++sample) {
      const std::size_t index = choices.size();
      ChoicePart part = take_part(run, *choices_[index]);
      part.finish_reason = choices_[index]->finish_reason;
      choices.push_back(writer_.full_choice(static_cast<int>(index), part));
      if (!job_.chat) add_prompt(choices.back(), run);
    }
  }
  OrderedJson answer = writer_.full_answer(std::move(choices), usage_);
  if (job_.chat) add_prompt(answer, runs_.front());
  return dump(answer);
}

// What is asked for of the prompt: in each choice of a text completion, once in a chat answer, as vLLM has it.
void GenerationImpl::add_prompt(OrderedJson& object, const PromptRun& run) const {
  if (job_.return_token_ids) object["prompt_token_ids"] = run.prompt;
  if (job_.prompt_logprobs) object["prompt_logprobs"] = writer_.prompt_logprobs(run.prompt, *run.logprobs);
}

}  // namespace

Result<std::unique_ptr<Generation>> Generation::start(Job job, std::shared_ptr<const ServedModel> model, Engine& engine,
                                                      std::int64_t created) {
  auto generation = std::make_unique<GenerationImpl>(std::move(job), std::move(model), created);
  const Status submitted = generation->submit(engine);
  if (!submitted.ok()) return submitted.error();
  return std::unique_ptr<Generation>(std::move(generation));
}

Status warm_up(Engine& engine) {
  GenerateRequest request;
  request.prompt = {0};
  request.max_tokens = 1;
  request.sampling.temperature = 0.0F;
  auto stream = engine.submit(std::move(request));
  if (!stream.ok()) return stream.error();
  std::vector<Event> events;
  while (stream.value()->wait(std::chrono::seconds(1), events)) {
  }
  for (const Event& event : events) {
    const auto* finished = std::get_if<FinishedEvent>(&event);
    if (finished != nullptr && finished->error) return *finished->error;
  }
  return ok_status();
}

}  // namespace multiverse

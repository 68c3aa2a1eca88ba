// Deterministic work of one thread for scripts/measure/instructions.py, which counts its instructions under callgrind:
//   instruction_guard scheduler|http MODEL_DIR DIALECT_FILE
// What is counted happens below measured_work(); what stands around it is not.
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "multiverse/api/generation.h"
#include "multiverse/api/job.h"
#include "multiverse/base/check.h"
#include "multiverse/scheduler/scheduler.h"

#include "commands/given_executor.h"
#include "commands/places.h"
#include "commands/synthetic_trees.h"
#include "http/request_head.h"
#include "support/manual_clock.h"

// The linker gives this to all callers of multiverse::random_bits(): hash tables with the same secrets in every run.
extern "C" std::uint64_t wrapped_random_bits() asm("__wrap__ZN10multiverse11random_bitsEv");
extern "C" std::uint64_t wrapped_random_bits() {
  static std::uint64_t state = 0x9E3779B97F4A7C15U;
  state = state * 6364136223846793005U + 1442695040888963407U;
  return state ^ state >> 29U;
}

namespace multiverse {
namespace {

constexpr std::string_view kWords[] = {"compute", "gcd(221,143)", "then 84*23", "and", "steps",
                                       "=",       "1932",         "in parallel"};

std::string words(std::size_t count) {
  std::string text;
  for (std::size_t i = 0; i < count; ++i) {
    text += kWords[(i * 5 + i / 7) % std::size(kWords)];
    text += i % 9 == 8 ? '\n' : ' ';
  }
  return text;
}

void append(std::vector<TokenId>& text, const std::vector<TokenId>& tokens) {
  text.insert(text.end(), tokens.begin(), tokens.end());
}

// A prompt, then two blocks of `paths` paths of different lengths; `salt` tells requests apart.
GenerateRequest answer(std::int32_t salt, std::int32_t paths, const Dialect& dialect) {
  GenerateRequest request;
  request.prompt = synthetic_plan(200 + 11 * salt, 0, salt, dialect);
  std::vector<TokenId> text = request.prompt;
  for (std::int32_t block = 0; block < 2; ++block) {
    append(text, synthetic_plan(30, paths, salt + block, dialect));
    append(text, {dialect.fork, dialect.separator});
    for (std::int32_t path = 1; path <= paths; ++path) {
      append(text, dialect.path_header(std::to_string(path)));
      append(text, synthetic_plan(20 + 9 * path, 0, path, dialect));
      append(text, {dialect.path_close, dialect.separator});
    }
    append(text, dialect.conclusion_header());
    append(text, synthetic_plan(25, 0, salt, dialect));
    append(text, {dialect.conclusion_close, dialect.block_close});
  }
  const auto prompt = static_cast<std::int32_t>(request.prompt.size());
  request.max_tokens = static_cast<std::int32_t>(text.size()) - prompt;
  Result<Recording> recording = Recording::read(text, prompt, &dialect, request.limits);
  CHECK(recording.ok(), recording.error().message);
  request.recording = std::make_shared<const Recording>(std::move(recording).value());
  return request;
}

// Requests that share rows: prefill, forks, decoding, joins, their ends.
class SchedulerWork {
 public:
  SchedulerWork() {
    for (std::int32_t salt = 0; salt < 12; ++salt) requests_.push_back(answer(salt, 2 + salt % 5, dialect_));
  }
  std::int64_t run() {
    GivenExecutor executor({"given", kSyntheticVocabulary, 4096, 512, 1 << 20, 0, 0});
    SchedulerConfig config;
    config.max_rows = 512;
    config.max_prefill_tokens = 256;
    config.tree = {1 << 20, std::int64_t{1} << 40, {}, 0};
    Scheduler scheduler(executor, &dialect_, config, clock_);
    for (std::size_t i = 0; i < requests_.size(); ++i) scheduler.add(i + 1, requests_[i]);
    std::int64_t events = 0;
    while (!scheduler.idle()) {
      scheduler.step();
      scheduler.take_events(
          [&events](RequestId, const std::vector<Event>& some) { events += static_cast<std::int64_t>(some.size()); });
      clock_.time += std::chrono::milliseconds(1);
    }
    return events;
  }

 private:
  const Dialect dialect_ = synthetic_dialect();
  testing::ManualClock clock_;
  std::vector<GenerateRequest> requests_;
};

// Hands out one event at a time, as a decoding engine does.
class OneByOne final : public RequestStream {
 public:
  explicit OneByOne(const std::vector<Event>& events) : events_(events) {}
  RequestId id() const override { return 1; }
  bool wait(Nanoseconds, std::vector<Event>& out) override {
    out.push_back(events_[next_++]);
    return next_ < events_.size();
  }
  void notify(std::function<void()>) override {}
  void cancel() override {}
  void cut(std::int32_t, std::int32_t) override {}

 private:
  const std::vector<Event>& events_;
  std::size_t next_ = 0;
};

class ScriptedEngine final : public Engine {
 public:
  explicit ScriptedEngine(std::vector<Event> events) : events_(std::move(events)) {}
  void stop() override {}
  Result<std::unique_ptr<RequestStream>> submit(GenerateRequest) override {
    return std::unique_ptr<RequestStream>(std::make_unique<OneByOne>(events_));
  }
  EngineStats stats() const override { return {}; }
  const ExecutorInfo& executor_info() const override { return info_; }
  const EngineConfig& config() const override { return config_; }

 private:
  const std::vector<Event> events_;
  const ExecutorInfo info_{"scripted", 1 << 18, 1, 1, 1 << 20, 0, 0};
  const EngineConfig config_;
};

// A chat request's head and body read and tokenised with the shipped model's texts, and its answer as a stream.
class HttpWork {
 public:
  HttpWork(const std::string& model_dir, const std::string& dialect_file)
      : model_(load(model_dir, dialect_file)), engine_(events()) {
    body_ =
        R"({"model": "guard", "stream": true, "stream_options": {"include_usage": true}, "temperature": 0.5, "seed": 7,
      "stop": ["never said"], "max_tokens": 2000, "messages": [{"role": "user", "content": ")";
    for (const char c : words(600)) c == '\n' ? body_ += "\\n" : body_ += c;
    body_ += "\"}]}";
    head_ =
        "POST /v1/chat/completions HTTP/1.1\r\nHost: localhost:8000\r\nUser-Agent: guard\r\nAccept: */*\r\n"
        "Content-Type: application/json\r\nContent-Length: " +
        std::to_string(body_.size());
  }
  std::int64_t run() {
    const auto head = parse_head(head_);
    CHECK(std::holds_alternative<RequestHead>(head), "the head was refused");
    Result<Job> job = parse_chat_request(body_, *model_);
    CHECK(job.ok(), job.error().message);
    auto generation = Generation::start(std::move(job).value(), model_, engine_, 1'700'000'000);
    CHECK(generation.ok(), generation.error().message);
    std::size_t bytes = 0;
    std::string last = generation.value()->take_events();
    for (bool more = true; more;) {
      bytes += last.size();
      more = generation.value()->wait(Nanoseconds{0});
      last = generation.value()->take_events();
    }
    // Nothing is searched for: ids are random, and so is how often a search finds a letter in them.
    CHECK(!generation.value()->error() && last.ends_with("data: [DONE]\n\n"), "the stream did not end");
    return static_cast<std::int64_t>(bytes + last.size());
  }

 private:
  static std::shared_ptr<ServedModel> load(const std::string& model_dir, const std::string& dialect_file) {
    auto model = std::make_shared<ServedModel>();
    model->names = {"guard"};
    auto tokenizer = Tokenizer::load(model_dir);
    CHECK(tokenizer.ok(), tokenizer.error().message);
    model->tokenizer = std::move(tokenizer).value();
    auto chat_template = ChatTemplate::load(model_dir);
    CHECK(chat_template.ok(), chat_template.error().message);
    model->chat_template = std::move(chat_template).value();
    auto dialect = load_dialect(dialect_file, *model->tokenizer);
    CHECK(dialect.ok(), dialect.error().message);
    model->dialect = std::move(dialect).value();
    model->vocab_size = model->tokenizer->size();
    model->max_model_len = 1 << 20;
    return model;
  }
  std::vector<Event> events() const {
    std::vector<Event> events;
    std::int64_t tokens = 0;
    for (const TokenId token : model_->tokenizer->encode(words(150), Trust::kNone)) {
      TokenEvent event;
      event.token = token;
      event.logprob = -0.5F;
      events.emplace_back(event);
      ++tokens;
    }
    SampleEndEvent end;
    end.reason = FinishReason::kLength;
    end.completion_tokens = end.parallel.critical_path_tokens = end.parallel.steps = tokens;
    end.weights_versions = {1};
    events.emplace_back(end);
    events.emplace_back(FinishedEvent{});
    return events;
  }

  const std::shared_ptr<ServedModel> model_;
  ScriptedEngine engine_;
  std::string head_, body_;
};

}  // namespace
}  // namespace multiverse

// The name that callgrind's --toggle-collect is given. The first run, which fills what is filled once, is not counted.
template <class Work>
[[gnu::noinline]] std::int64_t measured_work(Work& work) {
  return work.run();
}

template <class Work>
int count(Work work) {
  const std::int64_t before = work.run();
  const std::int64_t now = measured_work(work);
  CHECK(before == now, "the work differs from run to run: ", before, " and ", now);
  std::printf("%s\n", __VERSION__);  // of the compiler, on which the count depends
  return 0;
}

int main(int argc, char** argv) {
  const std::string_view name = argc > 1 ? argv[1] : "";
  if (name == "scheduler") return count(multiverse::SchedulerWork());
  if (name == "http" && argc == 4) return count(multiverse::HttpWork(argv[2], argv[3]));
  std::fputs("usage: instruction_guard scheduler | instruction_guard http MODEL_DIR DIALECT_FILE\n", stderr);
  return 2;
}

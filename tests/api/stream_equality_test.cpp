// A stream says what the answer without a stream says: 1,000 seeded prompts through the real engine and scheduler, with
// blocks, nested and malformed ones, stop strings, characters cut across tokens, thoughts apart or not; in parallel and
// serially. The policy stands in for the model.
#include <gtest/gtest.h>

#include <cstdlib>
#include <map>
#include <nlohmann/json.hpp>
#include <random>

#include "multiverse/api/generation.h"

#include "tests/support/fake_dialect.h"
#include "tests/support/fake_executor.h"
#include "tests/support/test_seed.h"

namespace multiverse::testing {
namespace {

using Json = nlohmann::json;

// Ids as fake_dialect() has them.
class Texts final : public Tokenizer {
 public:
  Texts() {
    static const std::vector<std::string> kTags{"<Parallel>",   "</Parallel>",   "<Goal>",  "</Goal>",
                                                "<Outline>",    "</Outline>",    "<Path>",  "</Path>",
                                                "<Conclusion>", "</Conclusion>", "<Think>", "</Think>"};
    // Words among which characters come in parts, whole, and broken.
    static const std::vector<std::string> kWords{"a",        "b ",       "ab", "é",  "\xE6\xBC", "\xA2",
                                                 "\xF0\x9F", "\x99\x82", "\"", "\\", "c"};
    for (std::int32_t id = 0; id < kVocabulary; ++id)
      bytes_.push_back(kWords[static_cast<std::size_t>(id) % kWords.size()]);
    bytes_[kEndOfText] = "<|end|>";
    for (std::size_t i = 0; i < kTags.size(); ++i) bytes_[kParallel + i] = kTags[i];
    bytes_[kNewline] = "\n";
    for (std::size_t digit = 0; digit < 10; ++digit) bytes_[kDigit + digit] = std::to_string(digit);
    bytes_[kDot] = ".";
    bytes_[kColon] = ":";
  }
  std::vector<std::int32_t> encode(const TrustedText&, const std::vector<std::int32_t>&) const override { return {}; }
  std::string_view token_bytes(std::int32_t id) const override { return bytes_[static_cast<std::size_t>(id)]; }
  bool is_special(std::int32_t id) const override { return id < kNewline; }
  std::optional<std::int32_t> token_id(std::string_view) const override { return std::nullopt; }
  std::int32_t size() const override { return kVocabulary; }

 private:
  std::vector<std::string> bytes_;
};

struct Said {
  std::string content, reasoning, reason;
};
using Answer = std::map<int, Said>;  // by choice

std::string shown(const Answer& answer) {
  std::string text;
  for (const auto& [index, said] : answer) {
    text += concat("\n", index, " (", said.reason, "): [", said.reasoning, "] ", said.content);
  }
  return text;
}

void add(Said& said, const Json& message) {
  if (message.contains("content")) said.content += message["content"].get<std::string>();
  if (message.contains("reasoning")) said.reasoning += message["reasoning"].get<std::string>();
}

Answer of_body(const std::string& body) {
  Answer answer;
  const Json whole = Json::parse(body);
  for (const Json& choice : whole["choices"]) {
    Said& said = answer[choice["index"]];
    add(said, choice["message"]);
    said.reason = choice["finish_reason"];
  }
  return answer;
}

// Each event has to be JSON, so whole characters, by itself.
void add_events(Answer& answer, const std::string& events, bool& done) {
  for (std::size_t at = 0; at < events.size();) {
    const std::size_t end = events.find("\n\n", at);
    ASSERT_EQ(events.compare(at, 6, "data: "), 0);
    const std::string data = events.substr(at + 6, end - at - 6);
    at = end + 2;
    done = data == "[DONE]";
    if (done) continue;
    const Json event = Json::parse(data);
    for (const Json& choice : event["choices"]) {
      Said& said = answer[choice["index"]];
      add(said, choice["delta"]);
      if (!choice["finish_reason"].is_null()) said.reason += choice["finish_reason"].get<std::string>();
    }
  }
}

class StreamEquality : public ::testing::Test {
 protected:
  StreamEquality() {
    EngineConfig config;
    config.eos_tokens = {kEndOfText};
    const Habits habits{.noise = 0.02, .more_outlines = 0.6, .block = 0.06, .end_path = 0.2, .end_of_text = 0.05};
    engine_ = Engine::start(std::make_unique<FakeExecutor>(2000, structured_policy(habits)), fake_dialect(), config);
    model_->names = {"m"};
    model_->tokenizer = std::make_shared<Texts>();
    model_->dialect = fake_dialect();
    model_->vocab_size = kVocabulary;
    model_->max_model_len = 4096;
  }

  Job job(std::mt19937_64& random) const {
    Job made;
    made.chat = true;
    made.split_reasoning = random() % 2 == 0;
    made.include_stop = random() % 2 == 0;
    static const std::vector<std::string> kStops{"aba", "b c",    "漢", "</Path>\n<", "\xF0\x9F\x99\x82",
                                                 "1:",  "</Conc", "ab"};
    for (auto count = random() % 3; count > 0; --count) made.stops.push_back(kStops[random() % kStops.size()]);
    GenerateRequest request;
    for (auto count = 1 + random() % 20; count > 0; --count) {
      request.prompt.push_back(kWord + static_cast<TokenId>(random() % 32));
    }
    if (random() % 3 == 0) request.prompt.push_back(kThink);
    request.seed = random();
    request.n = 1 + static_cast<std::int32_t>(random() % 2);
    request.max_tokens = random() % 4 == 0 ? 20 + static_cast<std::int32_t>(random() % 200) : 400;
    if (random() % 5 == 0) request.stop_tokens = {kWord + 3};
    made.requests.push_back(std::move(request));
    return made;
  }

  std::unique_ptr<Generation> start(Job job, bool stream, Mode mode) {
    job.stream = stream;
    job.requests[0].mode = mode;
    auto started = Generation::start(std::move(job), model_, *engine_, 0);
    CHECK(started.ok(), started.error().message);
    return std::move(started).value();
  }

  static Answer answered(Generation& generation) {
    while (generation.wait(std::chrono::seconds(5))) {
    }
    return of_body(generation.body());
  }

  static Answer streamed(Generation& generation) {
    Answer answer;
    bool done = false;
    add_events(answer, generation.take_events(), done);
    for (bool more = true; more;) {
      more = generation.wait(std::chrono::seconds(5));
      add_events(answer, generation.take_events(), done);
    }
    EXPECT_TRUE(done);
    return answer;
  }

  std::unique_ptr<Engine> engine_;
  std::shared_ptr<ServedModel> model_ = std::make_shared<ServedModel>();
};

TEST_F(StreamEquality, OfAThousandPrompts) {
  const std::uint64_t seed = test_seed();
  SCOPED_TRACE(concat("MULTIVERSE_TEST_SEED=", seed));
  int forked = 0, compared = 0, compared_serially = 0;
  for (std::uint64_t prompt = 0; prompt < 1000 && !HasFailure(); ++prompt) {
    std::mt19937_64 random(seed + prompt);
    const Job asked = job(random);
    // All at once, so that events of different branches and requests come mixed.
    const auto answer = start(asked, false, Mode::kParallel);
    const auto parallel = start(asked, true, Mode::kParallel);
    const auto serial = start(asked, true, Mode::kSerial);
    const Answer expected = answered(*answer), in_parallel = streamed(*parallel), serially = streamed(*serial);
    ASSERT_EQ(expected.size(), static_cast<std::size_t>(asked.requests[0].n));
    // A budget ends a sample wherever its paths are by then: serially elsewhere than in parallel. And until the engine
    // hears of a stop string in a path, later paths go on using the budget up.
    const auto spared = [&](const Generation& one) {
      return one.parallel().blocks == 0 || one.completion_tokens() < asked.requests[0].max_tokens;
    };
    if (asked.stops.empty() || (spared(*answer) && spared(*parallel))) {
      ++compared;
      EXPECT_EQ(shown(in_parallel), shown(expected)) << "prompt " << prompt << ", in parallel";
    }
    if (spared(*answer) && spared(*serial)) {
      ++compared_serially;
      EXPECT_EQ(shown(serially), shown(expected)) << "prompt " << prompt << ", serially";
    }
    forked += answer->parallel().blocks > 0 ? 1 : 0;
  }
  std::printf("%d prompts forked; %d compared in parallel, %d serially\n", forked, compared, compared_serially);
  EXPECT_GT(forked, 150);
  EXPECT_GT(compared, 500);
  EXPECT_GT(compared_serially, 300);
}

}  // namespace
}  // namespace multiverse::testing

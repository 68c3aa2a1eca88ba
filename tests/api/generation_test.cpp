#include "multiverse/api/generation.h"

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "support/fake_engine.h"
#include "support/fake_tokenizer.h"

namespace multiverse {
namespace {

using testing::fake_model;
using testing::FakeEngine;
using testing::Script;
using Json = nlohmann::ordered_json;

constexpr std::int64_t kCreated = 1'700'000'000;

std::unique_ptr<Generation> start(const std::string& body, bool chat, FakeEngine& engine) {
  const auto model = fake_model();
  auto job = chat ? parse_chat_request(body, *model) : parse_completion_request(body, *model);
  EXPECT_TRUE(job.ok()) << job.error().message;
  auto generation = Generation::start(std::move(job).value(), model, engine, kCreated);
  EXPECT_TRUE(generation.ok());
  return std::move(generation).value();
}

Json answer(const std::string& body, bool chat, FakeEngine& engine) {
  const auto generation = start(body, chat, engine);
  while (generation->wait(std::chrono::seconds(1))) {
  }
  EXPECT_FALSE(generation->error());
  return Json::parse(generation->body());
}

// The whole stream as sent, with the id replaced.
std::string stream(const std::string& body, bool chat, FakeEngine& engine) {
  const auto generation = start(body, chat, engine);
  std::string out = generation->take_events();
  bool more = true;
  while (more) {
    more = generation->wait(std::chrono::seconds(1));
    out += generation->take_events();
  }
  const std::string prefix = chat ? "chatcmpl-" : "cmpl-";
  for (std::size_t at = out.find("\"" + prefix); at != std::string::npos; at = out.find("\"" + prefix, at + 1)) {
    out.replace(at + 1, prefix.size() + 32, "ID");
  }
  return out;
}

std::vector<Json> events(const std::string& sse) {
  std::vector<Json> all;
  std::size_t at = 0;
  while (at < sse.size()) {
    const std::size_t end = sse.find("\n\n", at);
    EXPECT_EQ(sse.compare(at, 6, "data: "), 0);
    const std::string data = sse.substr(at + 6, end - at - 6);
    if (data != "[DONE]") all.push_back(Json::parse(data));
    at = end + 2;
  }
  return all;
}

FakeEngine saying(const std::string& text, FinishReason reason = FinishReason::kStop) {
  return FakeEngine([=](const GenerateRequest& request) { return testing::text_script(request, text, {}, reason); });
}

const std::string kChat = R"({"messages":[{"role":"user","content":"q"}])";

TEST(Answer, OfAChat) {
  FakeEngine engine = saying("hé");
  Json body = answer(kChat + "}", true, engine);
  EXPECT_EQ(body["id"].get<std::string>().substr(0, 9), "chatcmpl-");
  body.erase("id");
  // The prompt: 1 + 5 + 1 + 1 + 1 + 1 + 10 tokens.
  EXPECT_EQ(
      body.dump(),
      R"({"object":"chat.completion","created":1700000000,"model":"fake-model","choices":[{"index":0,"message":)"
      R"({"role":"assistant","content":"hé","refusal":null},"logprobs":null,"finish_reason":"stop"}],"usage":)"
      R"({"prompt_tokens":20,"completion_tokens":4,"total_tokens":24,"prompt_tokens_details":{"cached_tokens":0},)"
      R"("completion_tokens_details":{"parallel":{"blocks":0,"paths":0,"max_width":0,"max_depth":0,)"
      R"("critical_path_tokens":4,"steps":4,"malformed":0}}},"weights_versions":[1]})");
}

TEST(Stream, OfAChatByteForByte) {
  FakeEngine engine = saying("hi", FinishReason::kLength);
  const std::string head =
      R"(data: {"id":"ID","object":"chat.completion.chunk","created":1700000000,"model":"fake-model","choices":[)";
  EXPECT_EQ(stream(kChat + R"(,"stream":true})", true, engine),
            head + R"({"index":0,"delta":{"role":"assistant","content":""},"logprobs":null,"finish_reason":null}]})" +
                "\n\n" + head + R"({"index":0,"delta":{"content":"hi"},"logprobs":null,"finish_reason":null}]})" +
                "\n\n" + head +
                R"({"index":0,"delta":{},"logprobs":null,"finish_reason":"length"}],"weights_versions":[1]})" +
                "\n\ndata: [DONE]\n\n");
}

TEST(Stream, UsageOnlyWhereAskedForAndLast) {
  FakeEngine engine = saying("hi");
  const auto without = events(stream(kChat + R"(,"stream":true})", true, engine));
  for (const Json& event : without) EXPECT_FALSE(event.contains("usage"));
  const auto with = events(stream(kChat + R"(,"stream":true,"stream_options":{"include_usage":true}})", true, engine));
  for (std::size_t i = 0; i + 1 < with.size(); ++i) {
    EXPECT_TRUE(with[i].at("usage").is_null());
    EXPECT_FALSE(with[i].at("choices").empty());
  }
  EXPECT_TRUE(with.back().at("choices").empty());
  EXPECT_EQ(with.back()["usage"]["completion_tokens"], 3);
}

TEST(Stream, UsageSoFarInEveryChunk) {
  FakeEngine engine([](const GenerateRequest& request) { return testing::two_paths_script(request); });
  const auto sent =
      events(stream(kChat + R"(,"stream":true,"stream_options":{"include_usage":true,"continuous_usage_stats":true}})",
                    true, engine));
  std::int64_t before = 0;
  for (const Json& event : sent) {
    const Json& usage = event.at("usage");
    EXPECT_GE(usage["completion_tokens"], before);
    EXPECT_EQ(usage["total_tokens"],
              usage["prompt_tokens"].get<std::int64_t>() + usage["completion_tokens"].get<std::int64_t>());
    before = usage["completion_tokens"];
  }
  ASSERT_GE(sent.size(), 3U);
  EXPECT_EQ(sent.back()["usage"]["completion_tokens"], sent[sent.size() - 2]["usage"]["completion_tokens"]);
  EXPECT_EQ(sent.back()["usage"]["prompt_tokens"], sent.front()["usage"]["prompt_tokens"]);
}

TEST(Stream, EqualsTheAnswerWithBranchesAndWithout) {
  FakeEngine engine([](const GenerateRequest& request) { return testing::two_paths_script(request); });
  const Json whole = answer(kChat + "}", true, engine);
  EXPECT_EQ(whole["choices"][0]["message"]["content"], testing::two_paths_text());
  EXPECT_EQ(whole["usage"]["completion_tokens_details"]["parallel"].dump(),
            R"({"blocks":1,"paths":2,"max_width":2,"max_depth":1,"critical_path_tokens":19,"steps":11,"malformed":0})");

  std::string text;
  std::map<std::string, std::string> branches;
  std::map<std::string, std::int64_t> tokens, steps;
  std::vector<std::string> structure;
  const auto sent =
      events(stream(kChat + R"(,"stream":true,"stream_options":{"include_branches":true}})", true, engine));
  for (const Json& event : sent) {
    if (!event.contains("branch")) {
      text += event["choices"][0]["delta"].value("content", "");
      continue;
    }
    EXPECT_TRUE(event["choices"].empty());
    const Json& branch = event["branch"];
    EXPECT_EQ(branch["index"], 0);
    branches[branch["id"]] += branch["text"];
    tokens[branch["id"]] = branch["tokens"];
    EXPECT_GE(branch["step"], steps[branch["id"]]);
    steps[branch["id"]] = branch["step"];
    if (branch["event"] != "token")
      structure.push_back(branch["event"].get<std::string>() + branch["id"].get<std::string>());
  }
  EXPECT_EQ(text, testing::two_paths_text());
  EXPECT_EQ(branches["1.1"], "<Path>\n1:xy</Path>\n");
  EXPECT_EQ(branches["1.2"], "<Path>\n2:é</Path>\n");
  EXPECT_EQ(branches[""], "A<Parallel><Goal></Goal>\n<Conclusion>\nc</Conclusion></Parallel>Z");
  EXPECT_EQ(tokens[""] + tokens["1.1"] + tokens["1.2"], whole["usage"]["completion_tokens"].get<std::int64_t>());
  const std::vector<std::string> expected{"fork1.1", "fork1.2", "end1.2", "end1.1", "join"};
  EXPECT_EQ(structure, expected);
  // Two paths of the same length after four drawn tokens; the root goes on from the longest, to the usage's steps.
  EXPECT_EQ(steps, (std::map<std::string, std::int64_t>{{"", 11}, {"1.1", 7}, {"1.2", 7}}));
}

TEST(Stream, AStopStringInAHeldPathReachesTheEngine) {
  FakeEngine engine([](const GenerateRequest& request) { return testing::two_paths_script(request); });
  const std::string stop = R"(,"stop":["é</Pa"]})";
  const Json body = answer(kChat + stop, true, engine);
  const std::string text = testing::two_paths_text();
  EXPECT_EQ(body["choices"][0]["message"]["content"], text.substr(0, text.find("é</Pa")));
  EXPECT_EQ(body["choices"][0]["finish_reason"], "stop");
  const auto cuts = engine.records().back().cuts;
  ASSERT_FALSE(cuts.empty());
  EXPECT_EQ(cuts[0], (std::pair<std::int32_t, std::int32_t>{0, 2}));
}

TEST(Answer, SeveralPromptsAndSamples) {
  FakeEngine engine = saying("x");
  const Json body = answer(R"({"prompt":["a","bc"],"n":2})", false, engine);
  ASSERT_EQ(body["choices"].size(), 4U);
  for (int i = 0; i < 4; ++i) {
    EXPECT_EQ(body["choices"][static_cast<std::size_t>(i)]["index"], i);
    EXPECT_EQ(body["choices"][static_cast<std::size_t>(i)]["text"], "x");
  }
  EXPECT_EQ(body["usage"]["prompt_tokens"], 3);
  EXPECT_EQ(body["usage"]["completion_tokens"], 8);
  EXPECT_EQ(body["usage"]["completion_tokens_details"]["parallel"]["critical_path_tokens"], 2);
}

TEST(Answer, LogprobsOfAChat) {
  FakeEngine engine([](const GenerateRequest& request) { return testing::two_paths_script(request); });
  const Json body = answer(kChat + R"(,"logprobs":true,"top_logprobs":1,"return_token_ids":true})", true, engine);
  const Json& choice = body["choices"][0];
  const Json& content = choice["logprobs"]["content"];
  ASSERT_EQ(content.size(), choice["token_ids"].size());
  EXPECT_EQ(content[0].dump(),
            R"({"token":"A","logprob":-0.5,"bytes":[65],"top_logprobs":[{"token":"A","logprob":-0.5,"bytes":[65]}]})");
  EXPECT_EQ(choice["token_ids"][5], testing::kPath);
  EXPECT_TRUE(content[5]["logprob"].is_null());
  EXPECT_TRUE(content[5]["top_logprobs"].empty());
  EXPECT_EQ(body["prompt_token_ids"].size(), 20U);
}

TEST(Answer, EchoWithLogprobsAndOffsets) {
  FakeEngine engine = saying("é");
  const Json body = answer(R"({"prompt":"pé","echo":true,"logprobs":1,"prompt_logprobs":1})", false, engine);
  const Json& choice = body["choices"][0];
  EXPECT_EQ(choice["text"], "péé");
  EXPECT_EQ(choice["logprobs"]["tokens"].size(), 6U);  // 3 of the prompt, 2 bytes, the end
  EXPECT_EQ(choice["logprobs"]["text_offset"].dump(), "[0,1,1,2,2,3]");
  EXPECT_TRUE(choice["logprobs"]["token_logprobs"][0].is_null());
  EXPECT_EQ(choice["logprobs"]["token_logprobs"][1], -1.0);
  EXPECT_TRUE(choice["prompt_logprobs"][0].is_null());
  EXPECT_EQ(
      choice["prompt_logprobs"][1].dump(),
      R"({"195":{"logprob":-1.0,"decoded_token":"�","rank":2},"120":{"logprob":-0.25,"decoded_token":"x","rank":1}})");
}

TEST(Answer, ScoringAPromptGeneratesNothing) {
  FakeEngine engine = saying("z", FinishReason::kLength);
  const Json body = answer(R"({"prompt":"ab","echo":true,"logprobs":0,"max_tokens":0})", false, engine);
  EXPECT_EQ(body["choices"][0]["text"], "ab");
  EXPECT_EQ(body["choices"][0]["logprobs"]["tokens"].size(), 2U);
  EXPECT_EQ(body["choices"][0]["finish_reason"], "length");
  EXPECT_EQ(body["usage"]["completion_tokens"], 0);
}

TEST(Stream, AFailureEndsItWithoutDone) {
  FakeEngine engine([](const GenerateRequest& request) {
    Script script;
    testing::append_text(script, 0, "a");
    FinishedEvent end = testing::finished(request);
    end.error = Error{ErrorCode::kInternal, "the device failed", "", ""};
    script.push_back({end});
    return script;
  });
  const std::string sent = stream(kChat + R"(,"stream":true})", true, engine);
  EXPECT_EQ(sent.find("[DONE]"), std::string::npos);
  EXPECT_EQ(events(sent).back()["error"]["type"], "server_error");
}

TEST(Generation, ARefusedPromptCancelsTheOthers) {
  int calls = 0;
  FakeEngine engine([&](const GenerateRequest& request) -> Result<Script> {
    if (++calls == 2) return Error{ErrorCode::kOverloaded, "full", "", ""};
    return testing::text_script(request, "x", std::chrono::seconds(10));
  });
  const auto model = fake_model();
  auto job = parse_completion_request(R"({"prompt":["a","b"]})", *model);
  ASSERT_TRUE(job.ok());
  const auto generation = Generation::start(std::move(job).value(), model, engine, kCreated);
  ASSERT_FALSE(generation.ok());
  EXPECT_EQ(generation.error().code, ErrorCode::kOverloaded);
  EXPECT_TRUE(engine.records().at(0).cancelled);
}

TEST(WarmUp, TellsOfAFailure) {
  FakeEngine works = saying("x");
  EXPECT_TRUE(warm_up(works).ok());
  FakeEngine fails([](const GenerateRequest& request) {
    FinishedEvent end = testing::finished(request);
    end.error = Error{ErrorCode::kInternal, "out of memory", "", ""};
    return Script{{end}};
  });
  EXPECT_FALSE(warm_up(fails).ok());
}

const std::string kTools = R"(,"tools":[{"type":"function","function":{"name":"add","parameters":{"type":"object"}}}])";
const std::string kCall = "Well.\n<tool_call>\n{\"name\": \"add\", \"arguments\": {\"x\": 1}}\n</tool_call>";

TEST(Answer, HasToolCallsApart) {
  FakeEngine engine = saying(kCall + "\n" + kCall.substr(6));
  Json choice = answer(kChat + kTools + "}", true, engine)["choices"][0];
  EXPECT_EQ(choice["finish_reason"], "tool_calls");
  EXPECT_EQ(choice["message"]["content"], "Well.");
  Json& calls = choice["message"]["tool_calls"];
  ASSERT_EQ(calls.size(), 2U);
  for (Json& call : calls) {
    EXPECT_EQ(call["id"].get<std::string>().substr(0, 5), "call_");
    call.erase("id");
    EXPECT_EQ(call.dump(), R"({"type":"function","function":{"name":"add","arguments":"{\"x\": 1}"}})");
  }
  FakeEngine only = saying(kCall.substr(5));
  EXPECT_TRUE(answer(kChat + kTools + "}", true, only)["choices"][0]["message"]["content"].is_null());
  FakeEngine cut = saying(kCall, FinishReason::kLength);
  EXPECT_EQ(answer(kChat + kTools + "}", true, cut)["choices"][0]["finish_reason"], "length");
  FakeEngine none = saying("No tools.");
  EXPECT_EQ(answer(kChat + kTools + "}", true, none)["choices"][0]["finish_reason"], "stop");
}

TEST(Stream, SaysToolCallsAsDeltas) {
  FakeEngine engine([](const GenerateRequest& request) {
    return testing::text_script(request, kCall, std::chrono::milliseconds(1));
  });
  std::string name, arguments, content, id;
  std::vector<Json> sent = events(stream(kChat + kTools + R"(,"stream":true})", true, engine));
  for (const Json& event : sent) {
    const Json& delta = event["choices"][0]["delta"];
    if (delta.contains("content")) content += delta["content"].get<std::string>();
    if (!delta.contains("tool_calls")) continue;
    const Json& call = delta["tool_calls"][0];
    EXPECT_EQ(call["index"], 0);
    EXPECT_EQ(call.contains("id"), id.empty());
    if (call.contains("id")) id = call["id"];
    if (call["function"].contains("name")) name += call["function"]["name"].get<std::string>();
    arguments += call["function"]["arguments"].get<std::string>();
  }
  EXPECT_EQ(content, "Well.");
  EXPECT_EQ(name, "add");
  EXPECT_EQ(arguments, R"({"x": 1})");
  EXPECT_EQ(sent.back()["choices"][0]["finish_reason"], "tool_calls");
}

TEST(Answer, KeepsTheStopStringWhereAskedTo) {
  FakeEngine engine = saying("one, two");
  const auto text = [&](const std::string& more) {
    return answer(R"({"prompt":"p","stop":["two","t","ne,"])" + more + "}", false, engine)["choices"][0]["text"];
  };
  EXPECT_EQ(text(""), "o");
  EXPECT_EQ(text(R"(,"include_stop_str_in_output":true)"), "one,");
}

}  // namespace
}  // namespace multiverse

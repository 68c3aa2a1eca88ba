#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "multiverse/api/error_body.h"
#include "multiverse/api/job.h"

#include "support/fake_tokenizer.h"

namespace multiverse {
namespace {

using testing::bytes_of;
using testing::fake_model;

// A chat body with `more` beside a message.
std::string chat_body(const std::string& more) {
  return R"({"messages":[{"role":"user","content":"hi"}])" + (more.empty() ? "" : "," + more) + "}";
}
std::string text_body(const std::string& more) {
  return R"({"prompt":"hi")" + (more.empty() ? "" : "," + more) + "}";
}

Job chat_job(const std::string& more) {
  auto job = parse_chat_request(chat_body(more), *fake_model());
  if (job.ok()) return std::move(job).value();
  ADD_FAILURE() << more << ": " << job.error().message;
  Job empty;
  empty.requests.emplace_back();
  return empty;
}

TEST(ChatRequest, DefaultsAreNeutral) {
  const Job job = chat_job("");
  ASSERT_EQ(job.requests.size(), 1U);
  const GenerateRequest& request = job.requests[0];
  EXPECT_EQ(request.sampling.temperature, 1.0F);
  EXPECT_EQ(request.sampling.top_k, 0);
  EXPECT_EQ(request.sampling.top_p, 1.0F);
  EXPECT_EQ(request.n, 1);
  EXPECT_EQ(request.max_tokens, 0);
  EXPECT_EQ(request.top_logprobs, -1);
  EXPECT_EQ(request.mode, Mode::kParallel);
  EXPECT_EQ(request.limits.max_paths, 128);
  EXPECT_FALSE(job.stream);
}

TEST(ChatRequest, TheModelsDefaultsApplyWhereTheRequestIsSilent) {
  const auto model = fake_model();
  model->generation.temperature = 0.6;
  model->generation.top_k = 20;
  model->generation.top_p = 0.9;
  auto job = parse_chat_request(chat_body(R"("top_p":0.5)"), *model);
  ASSERT_TRUE(job.ok());
  const SamplingParams& sampling = job.value().requests[0].sampling;
  EXPECT_FLOAT_EQ(sampling.temperature, 0.6F);
  EXPECT_EQ(sampling.top_k, 20);
  EXPECT_FLOAT_EQ(sampling.top_p, 0.5F);
  model->generation.do_sample = false;
  job = parse_chat_request(chat_body(""), *model);
  ASSERT_TRUE(job.ok());
  EXPECT_EQ(job.value().requests[0].sampling.temperature, 0.0F);
}

TEST(ChatRequest, EveryFieldReachesTheEngine) {
  const Job job = chat_job(
      R"("temperature":0.5,"top_p":0.25,"top_k":-1,"min_p":0.125,"repetition_penalty":1.5,"presence_penalty":-2,
      "frequency_penalty":2,"logit_bias":{"7":-100,"3":1.5},"seed":-1,"n":8,"max_completion_tokens":9,"min_tokens":2,
      "stop":["a","b"],"stop_token_ids":[5],"ignore_eos":true,"logprobs":true,"top_logprobs":20,"stream":true,
      "stream_options":{"include_usage":true,"include_branches":true},"cache_salt":"s","priority":-3,"user":"u",
      "return_token_ids":true,"metadata":{"a":"b"},"store":false,"service_tier":"auto","model":"fake",
      "multiverse":{"mode":"serial","max_running_paths":2,"max_paths":3,"max_depth":4,"max_path_tokens":5,
      "structure":"strict"})");
  const GenerateRequest& request = job.requests[0];
  EXPECT_EQ(request.sampling.temperature, 0.5F);
  EXPECT_EQ(request.sampling.top_p, 0.25F);
  EXPECT_EQ(request.sampling.top_k, 0);
  EXPECT_EQ(request.sampling.min_p, 0.125F);
  EXPECT_EQ(request.sampling.repetition_penalty, 1.5F);
  EXPECT_EQ(request.sampling.presence_penalty, -2.0F);
  EXPECT_EQ(request.sampling.frequency_penalty, 2.0F);
  const std::vector<std::pair<TokenId, float>> bias{{3, 1.5F}, {7, -100.0F}};
  EXPECT_EQ(request.sampling.logit_bias, bias);
  EXPECT_EQ(request.seed, ~0ULL);
  EXPECT_EQ(request.n, 8);
  EXPECT_EQ(request.max_tokens, 9);
  EXPECT_EQ(request.min_tokens, 2);
  EXPECT_EQ(request.stop_tokens, std::vector<TokenId>{5});
  EXPECT_TRUE(request.ignore_eos);
  EXPECT_EQ(request.top_logprobs, 20);
  EXPECT_EQ(request.cache_salt, "s");
  EXPECT_EQ(request.priority, -3);
  EXPECT_EQ(request.mode, Mode::kSerial);
  EXPECT_TRUE(request.strict);
  EXPECT_EQ(request.limits.max_running_paths, 2);
  EXPECT_EQ(request.limits.max_paths, 3);
  EXPECT_EQ(request.limits.max_depth, 4);
  EXPECT_EQ(request.limits.max_path_tokens, 5);
  const std::vector<std::string> stops{"a", "b"};
  EXPECT_EQ(job.stops, stops);
  EXPECT_TRUE(job.stream && job.include_usage && job.include_branches && job.return_token_ids);
  EXPECT_TRUE(job.ignored_params.empty());
}

TEST(ChatRequest, WhatUsersTypeNeverBecomesASpecialToken) {
  const auto job = parse_chat_request(
      R"({"messages":[{"role":"user","content":"<|im_end|><Path>"},
      {"role":"assistant","content":[{"type":"text","text":"<Path><|im_end"},{"type":"text","text":"|>"}]}]})",
      *fake_model());
  ASSERT_TRUE(job.ok()) << job.error().message;
  std::vector<TokenId> expected;
  const auto add = [&](const std::vector<TokenId>& more) { expected.insert(expected.end(), more.begin(), more.end()); };
  add({testing::kStartOfTurn});
  add(bytes_of("user\n<|im_end|><Path>"));
  add({testing::kEndOfTurn, '\n', testing::kStartOfTurn});
  add(bytes_of("assistant\n"));
  add({testing::kPath});
  add(bytes_of("<|im_end|>"));
  add({testing::kEndOfTurn, '\n', testing::kStartOfTurn});
  add(bytes_of("assistant\n"));
  EXPECT_EQ(job.value().requests[0].prompt, expected);
}

TEST(ChatRequest, UnknownFieldsAreListed) {
  const Job job = chat_job(R"("temprature":1,"multiverse":{"max_path":1},"stream":true,"stream_options":{"x":1})");
  const std::vector<std::string> expected{"stream_options.x", "multiverse.max_path", "temprature"};
  EXPECT_EQ(job.ignored_params, expected);
}

TEST(CompletionRequest, TakesStringsIdsAndBatches) {
  const auto model = fake_model();
  const auto prompts = [&](const std::string& prompt) {
    const auto job = parse_completion_request("{\"prompt\":" + prompt + "}", *model);
    std::vector<std::vector<TokenId>> all;
    if (job.ok()) {
      for (const GenerateRequest& request : job.value().requests) all.push_back(request.prompt);
    }
    return all;
  };
  using Prompts = std::vector<std::vector<TokenId>>;
  EXPECT_EQ(prompts(R"("a<Path>")"), (Prompts{{'a', testing::kPath}}));
  EXPECT_EQ(prompts("[1,2]"), (Prompts{{1, 2}}));
  EXPECT_EQ(prompts(R"(["a","b"])"), (Prompts{{'a'}, {'b'}}));
  EXPECT_EQ(prompts("[[1],[2,3]]"), (Prompts{{1}, {2, 3}}));
  const auto plain = parse_completion_request(R"({"prompt":"<Path>","parse_special":false})", *model);
  ASSERT_TRUE(plain.ok());
  EXPECT_EQ(plain.value().requests[0].prompt, bytes_of("<Path>"));
  EXPECT_EQ(plain.value().requests[0].max_tokens, 16);
}

TEST(CompletionRequest, ZeroTokensOnlyWhereThePromptIsWanted) {
  const auto model = fake_model();
  const auto scoring = parse_completion_request(text_body(R"("max_tokens":0,"echo":true,"logprobs":3)"), *model);
  ASSERT_TRUE(scoring.ok()) << scoring.error().message;
  EXPECT_TRUE(scoring.value().discard_output);
  EXPECT_EQ(scoring.value().requests[0].max_tokens, 1);
  EXPECT_EQ(scoring.value().requests[0].prompt_top_logprobs, 3);
  const auto nothing = parse_completion_request(text_body(R"("max_tokens":0)"), *model);
  ASSERT_FALSE(nothing.ok());
  EXPECT_EQ(nothing.error().param, "max_tokens");
}

struct BadField {
  const char* json;
  const char* param;
};

class BadChatField : public ::testing::TestWithParam<BadField> {};

TEST_P(BadChatField, IsNamed) {
  const auto job = parse_chat_request(chat_body(GetParam().json), *fake_model());
  ASSERT_FALSE(job.ok()) << GetParam().json;
  EXPECT_EQ(http_status(job.error().code), 400);
  EXPECT_EQ(job.error().param, GetParam().param) << job.error().message;
  EXPECT_FALSE(job.error().message.empty());
}

INSTANTIATE_TEST_SUITE_P(
    All, BadChatField,
    ::testing::Values(
        BadField{R"("temperature":2.1)", "temperature"}, BadField{R"("temperature":-0.1)", "temperature"},
        BadField{R"("temperature":"1")", "temperature"}, BadField{R"("temperature":true)", "temperature"},
        BadField{R"("temperature":[])", "temperature"}, BadField{R"("top_p":0)", "top_p"},
        BadField{R"("top_p":1.01)", "top_p"}, BadField{R"("top_k":-2)", "top_k"}, BadField{R"("top_k":1.5)", "top_k"},
        BadField{R"("top_k":2147483648)", "top_k"}, BadField{R"("min_p":-1)", "min_p"},
        BadField{R"("min_p":2)", "min_p"}, BadField{R"("repetition_penalty":0)", "repetition_penalty"},
        BadField{R"("presence_penalty":2.5)", "presence_penalty"},
        BadField{R"("frequency_penalty":-2.5)", "frequency_penalty"}, BadField{R"("logit_bias":[1])", "logit_bias"},
        BadField{R"("logit_bias":{"x":1})", "logit_bias"}, BadField{R"("logit_bias":{"01":1})", "logit_bias"},
        BadField{R"("logit_bias":{"-1":1})", "logit_bias"}, BadField{R"("logit_bias":{"9999":1})", "logit_bias"},
        BadField{R"("logit_bias":{"1":101})", "logit_bias"}, BadField{R"("logit_bias":{"1":null})", "logit_bias"},
        BadField{R"("logit_bias":{"99999999999999999999":1})", "logit_bias"},
        BadField{R"("seed":9223372036854775808)", "seed"}, BadField{R"("seed":1.0)", "seed"}, BadField{R"("n":0)", "n"},
        BadField{R"("n":9)", "n"}, BadField{R"("n":-1)", "n"}, BadField{R"("max_tokens":-1)", "max_tokens"},
        BadField{R"("max_tokens":0)", "max_tokens"}, BadField{R"("max_tokens":2147483648)", "max_tokens"},
        BadField{R"("max_tokens":1,"max_completion_tokens":2)", "max_completion_tokens"},
        BadField{R"("max_tokens":2,"min_tokens":3)", "min_tokens"}, BadField{R"("stop":"")", "stop"},
        BadField{R"("stop":1)", "stop"}, BadField{R"("stop":["a","b","c","d","e"])", "stop"},
        BadField{R"("stop":["a",1])", "stop"}, BadField{R"("stop_token_ids":[-1])", "stop_token_ids"},
        BadField{R"("stop_token_ids":[999])", "stop_token_ids"}, BadField{R"("stop_token_ids":7)", "stop_token_ids"},
        BadField{R"("ignore_eos":1)", "ignore_eos"}, BadField{R"("logprobs":2)", "logprobs"},
        BadField{R"("logprobs":true,"top_logprobs":21)", "top_logprobs"},
        BadField{R"("top_logprobs":2)", "top_logprobs"}, BadField{R"("prompt_logprobs":21)", "prompt_logprobs"},
        BadField{R"("prompt_logprobs":1,"stream":true)", "prompt_logprobs"}, BadField{R"("stream":"yes")", "stream"},
        BadField{R"("stream_options":{"include_usage":true})", "stream_options"},
        BadField{R"("stream":true,"stream_options":{"include_usage":1})", "stream_options.include_usage"},
        BadField{R"("multiverse":[])", "multiverse"}, BadField{R"("multiverse":{"mode":"fast"})", "multiverse.mode"},
        BadField{R"("multiverse":{"max_paths":129})", "multiverse.max_paths"},
        BadField{R"("multiverse":{"max_paths":0})", "multiverse.max_paths"},
        BadField{R"("multiverse":{"max_depth":7})", "multiverse.max_depth"},
        BadField{R"("multiverse":{"structure":"loose"})", "multiverse.structure"},
        BadField{R"("cache_salt":1)", "cache_salt"}, BadField{R"("priority":"high")", "priority"},
        BadField{R"("tool_choice":"auto")", "tool_choice"}, BadField{R"("reasoning_effort":"low")", "reasoning_effort"},
        BadField{R"("best_of":2)", "best_of"}, BadField{R"("continue_final_message":true)", "continue_final_message"},
        BadField{R"("chat_template":"x")", "chat_template"}, BadField{R"("model":7)", "model"},
        BadField{R"("chat_template_kwargs":{"messages":[]})", "chat_template_kwargs"},
        BadField{R"("chat_template_kwargs":{"a b":1})", "chat_template_kwargs"},
        BadField{R"("chat_template_kwargs":{"stile":1})", "chat_template_kwargs"},
        BadField{R"("chat_template_kwargs":3)", "chat_template_kwargs"}));

struct BadMessages {
  const char* json;
  const char* param;
};
class BadChatMessages : public ::testing::TestWithParam<BadMessages> {};

TEST_P(BadChatMessages, AreNamed) {
  const auto job = parse_chat_request(std::string("{\"messages\":") + GetParam().json + "}", *fake_model());
  ASSERT_FALSE(job.ok()) << GetParam().json;
  EXPECT_EQ(http_status(job.error().code), 400);
  EXPECT_EQ(job.error().param, GetParam().param) << job.error().message;
}

INSTANTIATE_TEST_SUITE_P(
    All, BadChatMessages,
    ::testing::Values(BadMessages{"null", "messages"}, BadMessages{"[]", "messages"}, BadMessages{"{}", "messages"},
                      BadMessages{"[1]", "messages"}, BadMessages{R"([{"content":"x"}])", "messages[0].role"},
                      BadMessages{R"([{"role":"robot","content":"x"}])", "messages[0].role"},
                      BadMessages{R"([{"role":"user"}])", "messages[0].content"},
                      BadMessages{R"([{"role":"user","content":1}])", "messages[0].content"},
                      BadMessages{
                          R"([{"role":"user","content":[{"type":"image_url","image_url":{"url":"http://x"}}]}])",
                          "messages[0].content"},
                      BadMessages{R"([{"role":"user","content":["x"]}])", "messages[0].content"},
                      BadMessages{R"([{"role":"user","content":"a"},{"role":"tool","content":"b","tool_call_id":1}])",
                                  "messages[1].tool_call_id"},
                      BadMessages{R"([{"role":"user","content":"raise"}])", "messages"}));

class BadCompletionField : public ::testing::TestWithParam<BadField> {};

TEST_P(BadCompletionField, IsNamed) {
  const auto job = parse_completion_request(std::string("{") + GetParam().json + "}", *fake_model());
  ASSERT_FALSE(job.ok()) << GetParam().json;
  EXPECT_EQ(http_status(job.error().code), 400);
  EXPECT_EQ(job.error().param, GetParam().param) << job.error().message;
}

INSTANTIATE_TEST_SUITE_P(
    All, BadCompletionField,
    ::testing::Values(BadField{"", "prompt"}, BadField{R"("prompt":null)", "prompt"},
                      BadField{R"("prompt":"")", "prompt"}, BadField{R"("prompt":[])", "prompt"},
                      BadField{R"("prompt":[[]])", "prompt"}, BadField{R"("prompt":[""])", "prompt"},
                      BadField{R"("prompt":[-1])", "prompt"}, BadField{R"("prompt":[269])", "prompt"},
                      BadField{R"("prompt":[1.0])", "prompt"}, BadField{R"("prompt":[1,"a"])", "prompt"},
                      BadField{R"("prompt":["a",[1]],"n":9)", "n"},
                      BadField{R"("prompt":["1","2","3","4","5","6","7","8","9"])", "prompt"},
                      BadField{R"("prompt":{"a":1})", "prompt"},
                      BadField{R"("prompt":"a","logprobs":true)", "logprobs"},
                      BadField{R"("prompt":"a","logprobs":21)", "logprobs"},
                      BadField{R"("prompt":"a","echo":1)", "echo"}, BadField{R"("prompt":"a","suffix":"b")", "suffix"},
                      BadField{R"("prompt":"a","parse_special":0)", "parse_special"}));

// Values that no integer field may trip over: refused by name, or accepted, never worse.
TEST(Hostile, EveryIntegerFieldAgainstEveryValue) {
  const std::vector<std::string> fields{
      "top_k",          "seed",       "n",        "max_tokens",   "max_completion_tokens",
      "min_tokens",     "priority",   "logprobs", "top_logprobs", "prompt_logprobs",
      "stop_token_ids", "temperature"};
  const std::vector<std::string> values{"-9223372036854775808",
                                        "-1",
                                        "0",
                                        "1",
                                        "9223372036854775807",
                                        "9223372036854775808",
                                        "\"1\"",
                                        "true",
                                        "null",
                                        "[]",
                                        "{}",
                                        "1e300",
                                        "0.5"};
  const auto model = fake_model();
  for (const std::string& field : fields) {
    for (const std::string& value : values) {
      const std::string more = "\"" + field + "\":" + value;
      for (const auto& job :
           {parse_chat_request(chat_body(more), *model), parse_completion_request(text_body(more), *model)}) {
        EXPECT_EQ(job.ok() ? 400 : http_status(job.error().code), 400) << more;
      }
    }
  }
}

class BadJson : public ::testing::TestWithParam<std::string> {};

TEST_P(BadJson, IsRefusedFast) {
  const auto job = parse_completion_request(GetParam(), *fake_model());
  ASSERT_FALSE(job.ok());
  EXPECT_EQ(http_status(job.error().code), 400);
  EXPECT_LT(job.error().message.size(), 300U);
}

std::string nested(int depth) {
  return "{\"prompt\":\"a\",\"x\":" + std::string(static_cast<std::size_t>(depth), '[') +
         std::string(static_cast<std::size_t>(depth), ']') + "}";
}

std::string many_keys(int count) {
  std::string body = "{\"prompt\":\"a\"";
  for (int i = 0; i < count; ++i) body += ",\"k" + std::to_string(i) + "\":0";
  return body + "}";
}

INSTANTIATE_TEST_SUITE_P(All, BadJson,
                         ::testing::Values("", "{", "[]", "1", "null", "{}x", R"({"prompt":"a","prompt":"b"})",
                                           R"({"prompt":"a","x":{"y":1,"y":2}})", nested(64), nested(100'000),
                                           many_keys(1'000'000), R"({"prompt":"\ud800"})", R"({"prompt":"\udc00x"})",
                                           "{\"prompt\":\"\xC3\"}", "{\"prompt\":\"\xED\xA0\x80\"}",
                                           R"({"prompt":"a","temperature":1e400})",
                                           R"({"prompt":"a","temperature":NaN})",
                                           R"({"prompt":"a","temperature":Infinity})", R"({"prompt":"a","n":-})",
                                           "{\"prompt\":\"a\nb\"}", std::string("{\"prompt\":\"a\0\"}", 14)));

TEST(Json, DepthAtTheLimitIsRead) {
  EXPECT_TRUE(parse_completion_request(nested(63), *fake_model()).ok());
}

TEST(Request, AnUnknownModelIs404) {
  const auto job = parse_chat_request(chat_body(R"("model":"other")"), *fake_model());
  ASSERT_FALSE(job.ok());
  EXPECT_EQ(http_status(job.error().code), 404);
  EXPECT_EQ(job.error().code_name, "model_not_found");
}

TEST(Request, LimitsHoldExactly) {
  const auto model = fake_model();
  const auto stop_of = [](std::size_t bytes) { return "\"stop\":\"" + std::string(bytes, 'x') + "\""; };
  EXPECT_TRUE(parse_chat_request(chat_body(stop_of(256)), *model).ok());
  EXPECT_FALSE(parse_chat_request(chat_body(stop_of(257)), *model).ok());
  const auto messages = [](int count) {
    std::string body = "{\"messages\":[";
    for (int i = 0; i < count; ++i) body += std::string(i > 0 ? "," : "") + R"({"role":"user","content":"x"})";
    return body + "]}";
  };
  EXPECT_TRUE(parse_chat_request(messages(4096), *model).ok());
  EXPECT_FALSE(parse_chat_request(messages(4097), *model).ok());
}

TEST(ErrorBody, HasOpenAisShape) {
  EXPECT_EQ(error_body(invalid_argument("no \"x\"", "n")),
            R"({"error":{"message":"no \"x\"","type":"invalid_request_error","param":"n","code":null}})");
  EXPECT_EQ(error_body({ErrorCode::kOverloaded, "full", "", "queue_full"}),
            R"({"error":{"message":"full","type":"rate_limit_error","param":null,"code":"queue_full"}})");
}

}  // namespace
}  // namespace multiverse

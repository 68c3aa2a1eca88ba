// What a reply is to be: formats, constraints and tools as requests name them.
#include <gtest/gtest.h>

#include <string>

#include "multiverse/api/error_body.h"
#include "multiverse/api/job.h"

#include "api/raw_json.h"
#include "support/fake_tokenizer.h"

namespace multiverse {
namespace {

using testing::bytes_of;
using testing::fake_model;

// Constraints look at its tokenizer.
const ServedModel& served() {
  static const auto kModel = fake_model();
  return *kModel;
}

std::string chat_body(const std::string& more) {
  return R"({"messages":[{"role":"user","content":"hi"}],)" + more + "}";
}

std::string tool(const std::string& name, const std::string& parameters = R"({"type":"object"})") {
  return R"({"type":"function","function":{"name":")" + name + R"(","parameters":)" + parameters + "}}";
}
const std::string kTools = R"("tools":[)" + tool("add") + "," + tool("sub") + "]";

bool has(std::span<const std::uint64_t> mask, TokenId token) {
  const auto bit = static_cast<std::size_t>(token);
  return ((mask[bit / 64] >> (bit % 64)) & 1U) != 0;
}

// The only texts that the job's constraint takes, of those given.
bool takes(const Job& job, std::string_view text) {
  const Constraint* constraint = job.requests.at(0).constraint.get();
  if (constraint == nullptr) return true;
  const auto state = constraint->start();
  const auto may = [&state](TokenId token) { return state->allowed().empty() || has(state->allowed(), token); };
  for (const TokenId token : bytes_of(text)) {
    if (!may(token)) return false;
    if (!state->accept(token)) return false;
  }
  return may(testing::kEndOfTurn);
}

Job job_of(const Result<Job>& job) {
  EXPECT_TRUE(job.ok()) << job.error().message;
  return job.value();
}
Job chat_job(const std::string& more) {
  return job_of(parse_chat_request(chat_body(more), served()));
}

TEST(ResponseFormat, TextIsFree) {
  EXPECT_EQ(chat_job(R"("response_format":{"type":"text"})").requests[0].constraint, nullptr);
}

TEST(ResponseFormat, HoldsTheReply) {
  const Job object = chat_job(R"("response_format":{"type":"json_object"})");
  EXPECT_TRUE(takes(object, R"({"a": [1]})"));
  EXPECT_FALSE(takes(object, "[1]"));
  const Job schema = chat_job(
      R"("response_format":{"type":"json_schema","json_schema":{"name":"n","strict":true,"schema":
      {"type":"object","properties":{"z":{"type":"integer"},"a":{"const":"x"}},"required":["z","a"]}}})");
  EXPECT_TRUE(takes(schema, R"({"z": 1, "a": "x"})"));
  EXPECT_FALSE(takes(schema, R"({"a": "x", "z": 1})")) << "the properties come in the client's order";
  const auto completion =
      parse_completion_request(R"({"prompt":"p","structured_outputs":{"choice":["yes","no\n."]}})", served());
  EXPECT_TRUE(takes(job_of(completion), "yes"));
  EXPECT_TRUE(takes(job_of(completion), "no\n."));
  EXPECT_FALSE(takes(job_of(completion), "nox."));
  EXPECT_TRUE(takes(chat_job(R"("structured_outputs":{"regex":"[ab]{2}"})"), "ab"));
  EXPECT_TRUE(takes(chat_job(R"("structured_outputs":{"json":"{\"enum\":[7]}"})"), "7"));
  EXPECT_TRUE(takes(chat_job(R"("structured_outputs":{"json":{"enum":[7]}})"), "7"));
  EXPECT_TRUE(takes(chat_job(R"("structured_outputs":{"json_object":true})"), "{}"));
}

TEST(ResponseFormat, GovernsWhatFollowsThoughts) {
  const auto model = fake_model();
  const auto open =
      parse_completion_request(R"({"prompt":"<|im_end|><Think>so far","structured_outputs":{"choice":["x"]}})", *model);
  EXPECT_TRUE(has(job_of(open).requests[0].constraint->start()->allowed(), 'q')) << "the prompt opened the thoughts";
  const auto closed =
      parse_completion_request(R"({"prompt":"<Think>so far</Think>","structured_outputs":{"choice":["x"]}})", *model);
  EXPECT_FALSE(has(job_of(closed).requests[0].constraint->start()->allowed(), 'q'));
  const auto earlier = parse_completion_request(
      R"({"prompt":"<Think>never closed<|im_end|>","structured_outputs":{"choice":["x"]}})", *model);
  EXPECT_FALSE(has(job_of(earlier).requests[0].constraint->start()->allowed(), 'q'));
}

TEST(Tools, AreShownToTheTemplateAsTheClientWroteThem) {
  const auto model = fake_model();
  const std::string shown = R"([ {"type":"function","function":{"name":"f","parameters":{"type":"object",)"
                            R"("properties":{"z":{},"a":{}}}}}])";
  const Job job = chat_job(R"("tools":)" + shown);
  const auto text = model->tokenizer->decode(job.requests[0].prompt);
  EXPECT_NE(text.find("# tools " + shown), std::string::npos) << text;
  EXPECT_EQ(job.tools.format, ToolFormat::kQwen);
  EXPECT_EQ(job.tools.names, std::vector<std::string>{"f"});
  EXPECT_EQ(job.tools.most, kMaxToolCalls);
  EXPECT_EQ(chat_job(R"("parallel_tool_calls":false,"tools":)" + shown).tools.most, 1);
  const Job none = chat_job(R"("tool_choice":"none","tools":)" + shown);
  EXPECT_EQ(model->tokenizer->decode(none.requests[0].prompt).find("# tools"), std::string::npos);
  EXPECT_EQ(none.tools.format, ToolFormat::kNone);
}

TEST(Tools, ForcedCallsAreMasked) {
  const std::string add = "<tool_call>\n{\"name\": \"add\", \"arguments\": {}}\n</tool_call>";
  const std::string sub = "<tool_call>\n{\"name\": \"sub\", \"arguments\": {}}\n</tool_call>";
  const Job required = chat_job(kTools + R"(,"tool_choice":"required")");
  EXPECT_TRUE(takes(required, add));
  EXPECT_TRUE(takes(required, sub + "\n" + add));
  EXPECT_FALSE(takes(required, "text"));
  const Job one = chat_job(kTools + R"(,"tool_choice":"required","parallel_tool_calls":false)");
  EXPECT_TRUE(takes(one, sub));
  EXPECT_FALSE(takes(one, sub + "\n" + add));
  const Job named = chat_job(kTools + R"(,"tool_choice":{"type":"function","function":{"name":"sub"}})");
  EXPECT_TRUE(takes(named, sub));
  EXPECT_FALSE(takes(named, add));
  EXPECT_EQ(named.tools.most, 1);

  static const auto llama = fake_model();
  llama->tool_format = ToolFormat::kLlama;
  const auto job = parse_chat_request(chat_body(kTools + R"(,"tool_choice":"required")"), *llama);
  EXPECT_TRUE(takes(job_of(job), R"({"name": "add", "parameters": {}})"));
}

TEST(Tools, CallsThatTheModelChoosesToMakeSatisfyTheirSchemas) {
  const auto call = [](const std::string& name, const std::string& arguments) {
    return "Let me see.<tool_call>\n{\"name\": \"" + name + "\", \"arguments\": " + arguments + "}\n</tool_call>";
  };
  const std::string number = R"({"type":"object","properties":{"x":{"type":"integer"}},"required":["x"]})";
  const std::string odd = R"({"type":"object","properties":{"u":{"type":"string","format":"uri"}}})";
  const Job job = chat_job("\"tools\":[" + tool("add", number) + "," + tool("odd", odd) + "],\"min_tokens\":3");
  EXPECT_TRUE(takes(job, "Just <tool_call> text."));
  EXPECT_TRUE(takes(job, call("add", R"({"x": 5})") + call("add", R"({"x": 6})") + "Done."));
  EXPECT_FALSE(takes(job, call("add", R"({"x": "5"})")));
  EXPECT_FALSE(takes(job, call("mul", "{}")));
  EXPECT_TRUE(takes(job, call("odd", R"({"u": 5})"))) << "its schema can't be kept: any object";
  std::string strict = tool("odd", odd);
  strict.insert(strict.find("\"parameters\""), "\"strict\":true,");
  const auto refused = parse_chat_request(chat_body("\"tools\":[" + strict + "]"), served());
  ASSERT_FALSE(refused.ok());
  EXPECT_EQ(refused.error().param, "tools");
  EXPECT_NE(refused.error().message.find("format"), std::string::npos) << refused.error().message;
}

TEST(Tools, AModelWithoutThemRefuses) {
  const auto model = fake_model();
  model->tool_format = ToolFormat::kNone;
  const auto refused = parse_chat_request(chat_body(kTools), *model);
  ASSERT_FALSE(refused.ok());
  EXPECT_EQ(refused.error().param, "tools");
  EXPECT_EQ(refused.error().code_name, "unsupported_parameter");
  EXPECT_TRUE(parse_chat_request(chat_body(kTools + R"(,"tool_choice":"none")"), *model).ok());
  EXPECT_TRUE(parse_chat_request(chat_body(R"("tools":[])"), *model).ok());
}

TEST(Tools, StandInTheHistory) {
  const auto job = parse_chat_request(
      R"({"messages":[{"role":"user","content":"q"},{"role":"assistant","content":null,"tool_calls":[{"id":"c",
      "type":"function","function":{"name":"f","arguments":"{}"}}]},{"role":"tool","tool_call_id":"c","content":"7"}]})",
      served());
  ASSERT_TRUE(job.ok()) << job.error().message;
  EXPECT_NE(served().tokenizer->decode(job.value().requests[0].prompt).find(R"("name":"f")"), std::string::npos);
}

struct Bad {
  std::string json;
  const char* param;
  const char* says;
};
class BadOutput : public ::testing::TestWithParam<Bad> {};

TEST_P(BadOutput, IsNamed) {
  const auto job = parse_chat_request(chat_body(GetParam().json), served());
  ASSERT_FALSE(job.ok()) << GetParam().json;
  EXPECT_EQ(http_status(job.error().code), 400);
  EXPECT_EQ(job.error().param, GetParam().param) << job.error().message;
  EXPECT_NE(job.error().message.find(GetParam().says), std::string::npos) << job.error().message;
}

std::string schema(const std::string& text) {
  return R"("response_format":{"type":"json_schema","json_schema":{"name":"n","schema":)" + text + "}}";
}
constexpr const char* kSchemaParam = "response_format.json_schema.schema";

INSTANTIATE_TEST_SUITE_P(
    All, BadOutput,
    ::testing::Values(
        Bad{R"("response_format":"json")", "response_format", "object"},
        Bad{R"("response_format":{})", "response_format.type", "json_schema"},
        Bad{R"("response_format":{"type":"grammar"})", "response_format.type", "'json_object'"},
        Bad{R"("response_format":{"type":"json_schema"})", "response_format.json_schema", "missing"},
        Bad{R"("response_format":{"type":"json_schema","json_schema":{"name":"n"}})", kSchemaParam, "missing"},
        Bad{R"("response_format":{"type":"json_schema","json_schema":{"name":1,"schema":{}}})",
            "response_format.json_schema.name", "string"},
        Bad{R"("response_format":{"type":"json_object","schema":{}})", "response_format.schema", "not supported"},
        Bad{schema(R"({"type":"array","uniqueItems":true})"), kSchemaParam, "'uniqueItems'"},
        Bad{schema(R"({"$ref":"https://example.com"})"), kSchemaParam, "'$ref'"},
        Bad{schema("[]"), kSchemaParam, "object"}, Bad{schema("false"), kSchemaParam, "nothing satisfies"},
        Bad{R"("structured_outputs":{})", "structured_outputs", "one of"},
        Bad{R"("structured_outputs":{"regex":"a","choice":["b"]})", "structured_outputs", "one of"},
        Bad{R"x("structured_outputs":{"regex":"(?=a)"})x", "structured_outputs.regex", "regular expression"},
        Bad{R"("structured_outputs":{"regex":7})", "structured_outputs.regex", "string"},
        Bad{R"("structured_outputs":{"choice":[]})", "structured_outputs.choice", "1 to"},
        Bad{R"("structured_outputs":{"choice":[""]})", "structured_outputs.choice", "1 to"},
        Bad{R"("structured_outputs":{"json":"{"})", "structured_outputs.json", "not JSON"},
        Bad{R"("structured_outputs":{"grammar":"root ::= x"})", "structured_outputs.grammar", "not supported"},
        Bad{R"("structured_outputs":{"regex":"a"},"response_format":{"type":"json_object"})", "structured_outputs",
            "not both"},
        Bad{R"("structured_outputs":{"regex":"a"},"min_tokens":3)", "min_tokens", "go together"},
        Bad{R"("guided_regex":"a")", "guided_regex", "not supported"},
        Bad{R"("reasoning_format":"deepseek")", "reasoning_format", "'split'"},
        Bad{R"("include_stop_str_in_output":1)", "include_stop_str_in_output", "true or false"},
        Bad{R"("tools":7)", "tools", "array"}, Bad{R"("tools":[7])", "tools", "objects"},
        Bad{R"("tools":[{"type":"web"}])", "tools[0].type", "'function'"},
        Bad{R"("tools":[{"type":"function"}])", "tools[0].function", "missing"},
        Bad{R"("tools":[)" + tool("a b") + "]", "tools[0].function.name", "letters"},
        Bad{R"("tools":[)" + tool("a") + "," + tool("a") + "]", "tools[1].function.name", "two of"},
        Bad{R"("tools":[)" + tool("a", "[]") + "]", "tools[0].function.parameters", "object"},
        Bad{R"("tool_choice":"auto")", "tool_choice", "no 'tools'"},
        Bad{kTools + R"(,"tool_choice":"any")", "tool_choice", "'required'"},
        Bad{kTools + R"(,"tool_choice":{"type":"function","function":{"name":"x"}})", "tool_choice", "none of"},
        Bad{kTools + R"(,"tool_choice":{"type":"allowed_tools"})", "tool_choice", "'required'"},
        Bad{kTools + R"(,"parallel_tool_calls":1)", "parallel_tool_calls", "true or false"},
        Bad{kTools + R"(,"response_format":{"type":"json_object"})", "tools", "go together"},
        Bad{R"("tools":[)" + tool("a", R"({"type":"object","minProperties":1})") + R"(],"tool_choice":"required")",
            "tools", "'minProperties'"}));

TEST(BadHistory, OfToolCalls) {
  for (const char* calls : {"7", "[7]", R"([{"function":{}}])", R"([{"function":{"name":"f","arguments":{}}}])",
                            R"([{"type":"custom","function":{"name":"f","arguments":""}}])"}) {
    const auto job =
        parse_chat_request(std::string(R"({"messages":[{"role":"assistant","tool_calls":)") + calls + "}]}", served());
    ASSERT_FALSE(job.ok()) << calls;
    EXPECT_EQ(job.error().param, "messages[0].tool_calls");
  }
}

TEST(Tools, LimitsHoldExactly) {
  const auto many = [](int count) {
    std::string list;
    for (int i = 0; i < count; ++i) {
      const std::string schema =
          R"({"type":"object","properties":{"p)" + std::to_string(i) + R"(":{"type":"string"}}})";
      list += (i > 0 ? "," : "") + tool("f" + std::to_string(i), schema);
    }
    return chat_body("\"tools\":[" + list + "]");
  };
  EXPECT_TRUE(parse_chat_request(many(128), served()).ok());
  EXPECT_FALSE(parse_chat_request(many(129), served()).ok());
}

TEST(RawJson, GivesPartsAsTheyWereWritten) {
  const std::string json = R"( {"a" : "}]\"\\" , "\u0062":{ "c" :[1, {"x":"]"} ,"y" ] , "d":-1e3},"e":null } )";
  EXPECT_EQ(raw_member(json, {"a"}), R"("}]\"\\")");
  EXPECT_EQ(raw_member(json, {"b", "d"}), "-1e3");
  EXPECT_EQ(raw_member(json, {"e"}), "null");
  EXPECT_EQ(raw_member(json, {"b", "x"}), "");
  EXPECT_EQ(raw_member(json, {"a", "x"}), "");
  const std::vector<std::string_view> elements{"1", R"({"x":"]"})", R"("y")"};
  EXPECT_EQ(raw_elements(raw_member(json, {"b", "c"})), elements);
  EXPECT_TRUE(raw_elements("[ ]").empty());
  EXPECT_TRUE(raw_elements("{}").empty());
}

}  // namespace
}  // namespace multiverse

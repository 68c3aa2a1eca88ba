// Replies taken apart: the parts don't depend on how the text came, and what is no call stays text.
#include "api/reply_reader.h"

#include <gtest/gtest.h>

#include <random>

#include "api/token_text.h"
#include "support/fake_tokenizer.h"
#include "tests/support/test_seed.h"

namespace multiverse {
namespace {

using testing::fake_model;

Job reading(ToolFormat format, std::int32_t most = 4, bool split = false) {
  Job job;
  job.chat = true;
  job.split_reasoning = split;
  job.tools = {format, {"add", "sub"}, most};
  return job;
}

void join(ChoicePart& whole, const ChoicePart& part) {
  whole.text += part.text;
  whole.reasoning += part.reasoning;
  for (const ToolCallPart& call : part.tool_calls) {
    if (static_cast<std::size_t>(call.index) == whole.tool_calls.size()) {
      EXPECT_FALSE(call.id.empty());
      whole.tool_calls.push_back(call);
    } else {
      ASSERT_EQ(static_cast<std::size_t>(call.index) + 1, whole.tool_calls.size());
      EXPECT_TRUE(call.id.empty() && call.name.empty());
      whole.tool_calls.back().arguments += call.arguments;
    }
  }
}

std::string shown(const ChoicePart& part) {
  std::string text = "[" + part.reasoning + "][" + part.text + "]";
  for (const ToolCallPart& call : part.tool_calls) text += " " + call.name + call.arguments;
  return text;
}

// Tokens of a text in which <Think> and </Think> are tags, and what they say in pieces of so many tokens.
std::string read(const Job& job, const std::string& text, std::mt19937_64* random, bool thinking = false) {
  const auto model = fake_model();
  const std::vector<TokenId> tokens = model->tokenizer->encode(text, Trust::kAll);
  std::vector<TokenId> prompt{'p'};
  if (thinking) prompt.push_back(testing::kThink);
  ReplyReader reader(job, *model, prompt);
  ChoicePart whole;
  IncrementalDetokenizer detokenizer;
  std::size_t code_points = 0;
  for (std::size_t i = 0; i < tokens.size();) {
    const std::size_t count = random == nullptr ? tokens.size() : 1 + (*random)() % 4;
    std::string piece;
    std::vector<CanonicalToken> said;
    for (std::size_t end = std::min(tokens.size(), i + count); i < end; ++i) {
      CanonicalToken token{tokens[i], false, 0.0F, {}};
      token.text_offset = code_points;
      said.push_back(token);
      const std::string said_now = detokenizer.append(model->visible_bytes(tokens[i]));
      piece += said_now;
      code_points += count_code_points(said_now);
    }
    ChoicePart part;
    reader.append(piece, said, part);
    join(whole, part);
  }
  ChoicePart last;
  reader.finish(last);
  join(whole, last);
  return shown(whole);
}

struct Case {
  ToolFormat format;
  const char* text;
  const char* expected;
};

const std::vector<Case>& cases() {
  static const std::vector<Case> kCases{
      {ToolFormat::kQwen, "plain < text", "[][plain < text]"},
      {ToolFormat::kQwen, "<tool_call>\n{\"name\": \"add\", \"arguments\": {\"x\": [1, {}]}}\n</tool_call>",
       "[][] add{\"x\": [1, {}]}"},
      {ToolFormat::kQwen, "Well.\n<tool_call>{\"name\":\"add\",\"arguments\":{}}</tool_call>\n", "[][Well.] add{}"},
      {ToolFormat::kQwen,
       "\n\n<tool_call>\n{\"name\": \"add\", \"arguments\": {\"s\": \"}\\\"{\"}}\n</tool_call>\n<tool_call>\n"
       "{\"type\": \"function\", \"name\": \"sub\", \"arguments\": {}}\n</tool_call>",
       "[][] add{\"s\": \"}\\\"{\"} sub{}"},
      {ToolFormat::kQwen, "<tool_call>\n{\"name\": \"mul\", \"arguments\": {}}\n</tool_call>",
       "[][<tool_call>\n{\"name\": \"mul\", \"arguments\": {}}\n</tool_call>]"},
      {ToolFormat::kQwen, "<tool_call>\n{\"arguments\": {}}", "[][<tool_call>\n{\"arguments\": {}}]"},
      {ToolFormat::kQwen, "<tool_call>\n{\"name\": \"add\", \"argu", "[][<tool_call>\n{\"name\": \"add\", \"argu]"},
      {ToolFormat::kQwen, "<tool_call>\n{\"name\": \"add\", \"arguments\": {\"x\": ", "[][] add{\"x\": "},
      {ToolFormat::kQwen, "<tool_call>\n{\"name\": \"add\", \"arguments\": {}}\n</tool", "[][] add{}"},
      {ToolFormat::kQwen, "<tool_call>\n{\"name\": \"add\", \"arguments\": {}} and more", "[][} and more] add{}"},
      {ToolFormat::kQwen, "<tool_call><tool_call>{\"name\":\"sub\",\"arguments\":{}}</tool_call>",
       "[][<tool_call>] sub{}"},
      {ToolFormat::kQwen, "<Think>\n<tool_call>{\"name\":\"add\",\"arguments\":{}}</tool_call></Think>\nSo",
       "[][<Think>\n<tool_call>{\"name\":\"add\",\"arguments\":{}}</tool_call></Think>\nSo]"},
      {ToolFormat::kLlama, "{\"name\": \"add\", \"parameters\": {\"x\": 1}}", "[][] add{\"x\": 1}"},
      {ToolFormat::kLlama, "\n{\"name\": \"add\", \"parameters\": {}}; {\"name\": \"sub\", \"parameters\": {}}",
       "[][] add{} sub{}"},
      {ToolFormat::kLlama, "Say {\"name\": \"add\", \"parameters\": {}}",
       "[][Say {\"name\": \"add\", \"parameters\": {}}]"},
      {ToolFormat::kLlama, "{\"a\": 1}", "[][{\"a\": 1}]"},
      {ToolFormat::kNone, "<tool_call>\n{\"name\": \"add\", \"arguments\": {}}",
       "[][<tool_call>\n{\"name\": \"add\", \"arguments\": {}}]"},
  };
  return kCases;
}

TEST(ToolCallReader, FindsCallsHoweverTheTextComes) {
  std::mt19937_64 random(testing::test_seed());
  for (const Case& one : cases()) {
    EXPECT_EQ(read(reading(one.format), one.text, nullptr), one.expected);
    for (int round = 0; round < 30; ++round) {
      ASSERT_EQ(read(reading(one.format), one.text, &random), one.expected) << one.text;
    }
  }
}

TEST(ToolCallReader, LeavesOutCallsBeyondTheMost) {
  const std::string call = "<tool_call>{\"name\":\"add\",\"arguments\":{}}</tool_call>";
  EXPECT_EQ(read(reading(ToolFormat::kQwen, 1), call + call + "end", nullptr), "[][end] add{}");
}

// Random texts of what calls are made of: in any pieces the same parts as at once, and without calls the same text.
TEST(ToolCallReader, AgreesWithItselfOnRandomTexts) {
  static const std::vector<std::string> kBits{"<tool_call>",
                                              "</tool_call>",
                                              "{\"name\": ",
                                              "\"add\"",
                                              ", \"arguments\": ",
                                              "{",
                                              "}",
                                              "\"",
                                              "\\",
                                              "\n",
                                              " ",
                                              "x",
                                              "<",
                                              "<Think>",
                                              "</Think>",
                                              "{\"name\": \"add\", \"arguments\": {",
                                              "}}\n</tool_call>",
                                              "é"};
  std::mt19937_64 random(testing::test_seed());
  for (int round = 0; round < 3000; ++round) {
    std::string text;
    for (auto count = random() % 12; count > 0; --count) text += kBits[random() % kBits.size()];
    const Job job = reading(ToolFormat::kQwen, 2, round % 2 == 0);
    const bool thinking = round % 3 == 0;
    ASSERT_EQ(read(job, text, &random, thinking), read(job, text, nullptr, thinking)) << text;
  }
}

TEST(Thoughts, AreToldApartByTheirTokens) {
  const Job split = reading(ToolFormat::kNone, 1, true);
  EXPECT_EQ(read(split, "<Think>\nhm</Think>\n\nYes </Think>", nullptr), "[\nhm][\n\nYes </Think>]");
  EXPECT_EQ(read(split, "No <Think>x</Think>", nullptr), "[][No <Think>x</Think>]");
  EXPECT_EQ(read(split, "<Think>cut", nullptr), "[cut][]");
  EXPECT_EQ(read(split, "still</Think>done", nullptr, /*thinking=*/true), "[still][done]");
  EXPECT_EQ(read(reading(ToolFormat::kNone), "<Think>a</Think>b", nullptr), "[][<Think>a</Think>b]");
}

}  // namespace
}  // namespace multiverse

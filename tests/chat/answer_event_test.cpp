#include "multiverse/chat/answer_event.h"

#include <gtest/gtest.h>

namespace multiverse {
namespace {

TEST(AnswerEvent, ReadsWhatOurServerSends) {
  const auto text =
      read_answer_event(R"({"choices":[{"index":0,"delta":{"content":"hé"},"finish_reason":null}],"usage":null})");
  ASSERT_TRUE(text.ok());
  EXPECT_EQ(text.value().content, "hé");
  EXPECT_FALSE(text.value().branch || text.value().counts);

  const auto branch = read_answer_event(
      R"({"choices":[],"branch":{"id":"1.2/1.1","parent":"1.2","label":"2.1","index":0,"event":"token","text":"x","tokens":41}})");
  ASSERT_TRUE(branch.ok() && branch.value().branch);
  EXPECT_EQ(branch.value().branch->id, "1.2/1.1");
  EXPECT_EQ(branch.value().branch->label, "2.1");
  EXPECT_EQ(branch.value().branch->text, "x");
  EXPECT_EQ(branch.value().branch->tokens, 41);

  const auto usage = read_answer_event(
      R"({"choices":[],"usage":{"completion_tokens":9,"completion_tokens_details":{"parallel":{"critical_path_tokens":5,"steps":4,"paths":2}}}})");
  ASSERT_TRUE(usage.ok() && usage.value().counts);
  EXPECT_EQ(usage.value().counts->completion_tokens, 9);
  EXPECT_EQ(usage.value().counts->critical_path_tokens, 5);
  EXPECT_EQ(usage.value().counts->steps, 4);

  EXPECT_EQ(read_answer_event(R"({"choices":[{"delta":{},"finish_reason":"length"}]})").value().finish_reason,
            "length");
  EXPECT_EQ(read_answer_event(R"({"error":{"message":"full"}})").value().error, "full");
}

TEST(AnswerEvent, StrangeEventsAreNoCrash) {
  for (const char* data : {"", "nonsense", "[]", "3", "null", "\xFF"})
    EXPECT_FALSE(read_answer_event(data).ok()) << data;
  for (const char* data :
       {"{}", R"({"choices":{}})", R"({"choices":[3]})", R"({"choices":[{"delta":[]}]})",
        R"({"choices":[{"delta":{"content":5}}]})", R"({"branch":{"id":3,"event":"token"}})",
        R"({"branch":{"id":"1.1","event":"fly"}})", R"({"branch":[]})", R"({"usage":[],"choices":null})"}) {
    const auto event = read_answer_event(data);
    ASSERT_TRUE(event.ok()) << data;
    EXPECT_TRUE(event.value().content.empty() && !event.value().branch && !event.value().counts) << data;
  }
}

TEST(AnswerEvent, ErrorBodies) {
  EXPECT_EQ(read_error_message(R"({"error":{"message":"'n' is 0","param":"n"}})"), "'n' is 0");
  EXPECT_EQ(read_error_message(R"({"error":"gone"})"), "gone");
  EXPECT_EQ(read_error_message("Bad Gateway\n<html>"), "Bad Gateway");
  EXPECT_EQ(read_error_message(""), "(no message)");
}

}  // namespace
}  // namespace multiverse

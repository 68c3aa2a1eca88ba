#include "multiverse/api/structure_report.h"

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "support/fake_tokenizer.h"

namespace multiverse {
namespace {

using Json = nlohmann::ordered_json;

std::string failure(const std::string& body, const ServedModel& model) {
  const auto answer = inspect_body(body, model);
  EXPECT_FALSE(answer.ok()) << body;
  return answer.ok() ? "" : answer.error().param + ": " + answer.error().message;
}

TEST(Inspect, AnswersWithTheTextInSegments) {
  const auto body = inspect_body(R"({"text": "aé<Path>b"})", *testing::fake_model());
  ASSERT_TRUE(body.ok());
  const Json report = Json::parse(body.value());
  EXPECT_EQ(report["tokens"], 5);  // é has two bytes, the control token is one
  EXPECT_EQ(report["steps"], 5);
  ASSERT_EQ(report["segments"].size(), 1U);
  EXPECT_EQ(report["segments"][0].dump(), R"({"id":"","text":"aé<Path>b","tokens":5,"first_step":0,"last_step":5})");
  EXPECT_TRUE(report["tree"].empty());
}

TEST(Inspect, SaysWhatItCannotRead) {
  const auto model = testing::fake_model();
  EXPECT_EQ(failure("{}", *model), "text: 'text' is missing: the text whose tree is wanted");
  EXPECT_EQ(failure(R"({"text": 3})", *model).substr(0, 5), "text:");
  const std::string large(kMaxInspectedBytes + 1, 'x');
  EXPECT_NE(failure(R"({"text": ")" + large + "\"}", *model).find("1048576"), std::string::npos);
  auto sequential = *model;
  sequential.dialect.reset();
  EXPECT_NE(failure(R"({"text": "x"})", sequential).find("no control tokens"), std::string::npos);
}

}  // namespace
}  // namespace multiverse

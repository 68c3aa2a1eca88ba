// Dialect files: what they say, what is wrong with them, and which one a tokenizer speaks.
#include "multiverse/dialect/dialect.h"

#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>

#include "tests/support/fake_dialect.h"

namespace multiverse::testing {
namespace {

const std::string kNpr = R"({"tokens": {"goal_open": "<guideline>", "fork": "</guideline>", "outline_open": "<plan>",
  "path_open": "<step>", "path_close": "</step>", "conclusion_open": "<takeaway>", "conclusion_close": "</takeaway>"})";

TokenSource npr_tokens() {
  return fake_token_source({{"<guideline>", kGoal},
                            {"</guideline>", kEndGoal},
                            {"<plan>", kOutline},
                            {"<step>", kPath},
                            {"</step>", kEndPath},
                            {"<takeaway>", kConclusion},
                            {"</takeaway>", kEndConclusion}});
}

class DialectFiles : public ::testing::Test {
 protected:
  DialectFiles() : dir_(::testing::TempDir() + "multiverse_dialects") {
    std::filesystem::remove_all(dir_);
    std::filesystem::create_directory(dir_);
  }
  std::string write(const std::string& name, const std::string& text) {
    std::string file = dir_ + "/" + name;
    std::ofstream(file) << text;
    return file;
  }
  std::string error_of(const std::string& text) {
    const Result<Dialect> dialect = Dialect::load(write("x.json", text), npr_tokens());
    return dialect.ok() ? "" : dialect.error().message;
  }
  const std::string dir_;
};

TEST_F(DialectFiles, AFileIsAllThatAFamilyNeeds) {
  const Dialect& dialect = third_dialect();
  EXPECT_EQ(dialect.name, "third");
  EXPECT_TRUE(dialect.opens_block(kGoal));
  EXPECT_TRUE(dialect.closes_block(kEndParallel));
  EXPECT_EQ(dialect.max_depth, 2);
  EXPECT_EQ(dialect.outline_close, -1);
  EXPECT_EQ(dialect.path_header("2.1"),
            (std::vector<std::int32_t>{kPath, kNewline, kDigit + 2, kDot, kDigit + 1, kColon}));
  EXPECT_TRUE(dialect.is_label_token(kDigit));
  EXPECT_FALSE(dialect.is_label_token(kWord));
}

TEST_F(DialectFiles, AMistakeIsNamed) {
  EXPECT_EQ(error_of(kNpr + "}"), "");
  EXPECT_NE(error_of("{").find("is not a JSON object"), std::string::npos);
  EXPECT_NE(error_of(kNpr + R"(, "max_depth": 0})").find("max_depth is 0"), std::string::npos);
  EXPECT_NE(error_of(kNpr + R"(, "depth": 1})").find("unknown key \"depth\""), std::string::npos);
  EXPECT_NE(error_of(kNpr + R"(, "separator": "\n\n"})").find("must be one token"), std::string::npos);
  EXPECT_NE(error_of(R"({"tokens": {"fork": "<plan>"}})").find("block_close"), std::string::npos);
  EXPECT_NE(error_of(R"({"tokens": {"fork": "<other>"}})").find("no token \"<other>\" (fork)"), std::string::npos);
  const Result<Dialect> missing = Dialect::load(dir_ + "/none.json", npr_tokens());
  ASSERT_FALSE(missing.ok());
  EXPECT_NE(missing.error().message.find("none.json: cannot be read"), std::string::npos);
}

TEST_F(DialectFiles, TheFirstWhoseTokensThereAreIsTaken) {
  write("a.json", R"({"tokens": {"fork": "<other>"}})");
  write("b.json", kNpr + R"(, "name": "npr"})");
  write("c.json", kNpr + R"(, "name": "later"})");
  const auto found = Dialect::detect(dir_, npr_tokens());
  ASSERT_TRUE(found.ok());
  ASSERT_TRUE(found.value().has_value());
  EXPECT_EQ(found.value()->name, "npr");
  const auto none = Dialect::detect(dir_, fake_token_source({}));
  ASSERT_TRUE(none.ok());
  EXPECT_FALSE(none.value().has_value());
}

TEST_F(DialectFiles, AWrongFileIsLeftOutAloudAndOneOfAnotherFamilyIsNot) {
  write("a.json", R"({"tokens": {"fork": "<other>"}})");
  write("b.json", kNpr + R"(, "max_dept": 1})");
  ::testing::internal::CaptureStderr();
  const auto found = Dialect::detect(dir_, npr_tokens());
  const std::string said = ::testing::internal::GetCapturedStderr();
  ASSERT_TRUE(found.ok());
  EXPECT_FALSE(found.value().has_value());
  EXPECT_NE(said.find("a dialect is left out"), std::string::npos) << said;
  EXPECT_NE(said.find("max_dept"), std::string::npos) << said;
  EXPECT_EQ(said.find("a.json"), std::string::npos) << said;
}

}  // namespace
}  // namespace multiverse::testing

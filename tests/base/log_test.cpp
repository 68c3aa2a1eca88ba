#include "multiverse/base/log.h"

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>
#include <string>

namespace multiverse {
namespace {

// What the call writes to stderr.
template <class Call>
std::string written(const Call& call) {
  ::testing::internal::CaptureStderr();
  call();
  return ::testing::internal::GetCapturedStderr();
}

const std::string kHostile = "a\r\nb\x1b[31m\"\\ \xff\xc3\xa9\x7f";

TEST(Log, ATextLineIsOneLineWhateverAClientSays) {
  const std::string line = written([] {
    log(LogLevel::kWarning, kHostile, {{"status", std::int64_t{200}}, {"route", "/x\ny"}, {"none", ""}});
  });
  EXPECT_EQ(line.find('\n'), line.size() - 1);
  EXPECT_EQ(line.find('\x1b'), std::string::npos);
  EXPECT_NE(line.find(" warning a\\x0d\\x0ab\\x1b"), std::string::npos) << line;
  EXPECT_NE(line.find(" status=200 route=/x\\x0ay\n"), std::string::npos) << line;
}

TEST(Log, AJsonLineIsOneObjectWhateverAClientSays) {
  set_log_format(LogFormat::kJson);
  const std::string line = written([] {
    log(LogLevel::kError, kHostile, {{"status", std::int64_t{200}}, {"route", "/x\"}\ny"}, {"none", ""}});
  });
  set_log_format(LogFormat::kText);
  EXPECT_EQ(line.find('\n'), line.size() - 1);
  const auto object = nlohmann::json::parse(line);
  EXPECT_EQ(object["level"], "error");
  EXPECT_EQ(object["message"], "a\r\nb\x1b[31m\"\\ \xef\xbf\xbd\xc3\xa9\x7f");
  EXPECT_EQ(object["status"], 200);
  EXPECT_EQ(object["route"], "/x\"}\ny");
  EXPECT_FALSE(object.contains("none"));
  EXPECT_EQ(object["time"].get<std::string>().size(), std::string("2026-01-01T00:00:00.000Z").size());
}

TEST(Log, LessImportantMessagesAreLeftOut) {
  set_log_level(LogLevel::kWarning);
  EXPECT_EQ(written([] { log(LogLevel::kInfo, "quiet"); }), "");
  set_log_level(LogLevel::kInfo);
  EXPECT_NE(written([] { log(LogLevel::kInfo, "heard"); }), "");
}

}  // namespace
}  // namespace multiverse

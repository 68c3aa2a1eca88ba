#include "multiverse/api/reload.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>

namespace multiverse {
namespace {

namespace fs = std::filesystem;

class ReloadRequests : public ::testing::Test {
 protected:
  void SetUp() override {
    fs::create_directories(root_ / "step-1");
    fs::create_directories(base_ / "elsewhere");
    std::ofstream(root_ / "file") << "x";
    fs::create_directory_symlink(base_ / "elsewhere", root_ / "way-out");
    fs::create_directory_symlink(root_ / "step-1", root_ / "latest");
  }
  void TearDown() override { fs::remove_all(base_); }

  std::string refusal(const std::string& path) const {
    const auto request = parse_reload_request(concat(R"({"path": ")", path, R"("})"), places_);
    return request.ok() ? "" : request.error().message;
  }

  const fs::path base_ = fs::canonical(fs::temp_directory_path()) / concat("reload-test-", getpid());
  const fs::path root_ = base_ / "training";
  const WeightPlaces places_{"/models/served", root_.string()};
};

TEST_F(ReloadRequests, WithoutAPathTheServedFolderIsReadAgain) {
  for (const char* body : {"", "{}", R"({"mode": "recompute"})"}) {
    const auto request = parse_reload_request(body, places_);
    ASSERT_TRUE(request.ok()) << request.error().message;
    EXPECT_EQ(request.value().model_dir, "/models/served");
    EXPECT_EQ(request.value().mode, ReloadMode::kRecompute);
  }
}

TEST_F(ReloadRequests, PathsLeadToFoldersBelowTheRoot) {
  for (const std::string& path :
       {std::string("step-1"), std::string("./step-1/../step-1"), std::string("latest"), (root_ / "step-1").string()}) {
    const auto request = parse_reload_request(concat(R"({"mode": "keep", "path": ")", path, R"("})"), places_);
    ASSERT_TRUE(request.ok()) << request.error().message;
    EXPECT_EQ(request.value().model_dir, (root_ / "step-1").string());
    EXPECT_EQ(request.value().mode, ReloadMode::kKeep);
  }
}

TEST_F(ReloadRequests, RefusesEverythingElse) {
  for (const char* path : {"..", "../elsewhere", "way-out", "step-1/../../elsewhere", "/", "/etc", "/nowhere"}) {
    EXPECT_EQ(refusal(path), concat("'path' is '", path,
                                    "', which lies elsewhere; it names a model folder below the "
                                    "folder of --reload-dir"));
  }
  EXPECT_NE(refusal("step-2").find("which is not there"), std::string::npos);
  EXPECT_NE(refusal("file").find("which is no folder"), std::string::npos);
  EXPECT_NE(refusal("").find("which is no name of a folder"), std::string::npos);
  EXPECT_NE(refusal("step-1\\u0000").find("which is no name of a folder"), std::string::npos);
  EXPECT_EQ(parse_reload_request(R"({"mode": "gently"})", places_).error().param, "mode");
  EXPECT_EQ(parse_reload_request(R"({"made": "keep"})", places_).error().message,
            "'made' is no field of this route; known: path, mode");
  EXPECT_FALSE(parse_reload_request("[]", places_).ok());
}

}  // namespace
}  // namespace multiverse

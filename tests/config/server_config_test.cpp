#include "multiverse/config/server_config.h"

#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <random>

#include "config/knob.h"

namespace multiverse {
namespace {

using Strings = std::vector<std::string>;
using Json = nlohmann::ordered_json;

class ServerConfigTest : public testing::Test {
 protected:
  void SetUp() override {
    path_ = std::filesystem::path(testing::TempDir()) /
            (std::string("server_config_") + testing::UnitTest::GetInstance()->current_test_info()->name() + ".json");
  }
  void TearDown() override { std::filesystem::remove(path_); }
  std::string file(const std::string& text) {
    std::ofstream(path_) << text;
    return path_.string();
  }

  std::filesystem::path path_;
};

ServerConfig loaded(const Strings& arguments, const Strings& environment = {}) {
  const auto options = load_serve_options(arguments, environment);
  if (!options.ok()) {
    ADD_FAILURE() << options.error().message;
    return {};
  }
  return options.value().config;
}

Error error_of(const Strings& arguments, const Strings& environment = {}) {
  const auto options = load_serve_options(arguments, environment);
  if (options.ok()) {
    ADD_FAILURE() << "no error";
    return {};
  }
  return options.error();
}

TEST_F(ServerConfigTest, DefaultsStand) {
  const ServerConfig config = loaded({"--model", "dir/name/"});
  EXPECT_EQ(config.model, "dir/name/");
  EXPECT_EQ(config.served_model_name, Strings{"name"});
  EXPECT_EQ(config.host, "127.0.0.1");
  EXPECT_EQ(config.port, 8000);
  EXPECT_EQ(config.max_body_bytes, 8 << 20);
  EXPECT_TRUE(config.prefix_cache);
  EXPECT_FALSE(config.deterministic);
}

TEST_F(ServerConfigTest, EachPlaceOverridesTheOneBefore) {
  const std::string path = file(R"({
    // a comment
    "model": "from-file", "port": 1, "max_rows": 1, "max_n": 1, "kv_cache_bytes": "8G", "deterministic": true
  })");
  const ServerConfig config =
      loaded({"--config", path, "--max-n=3", "--no-deterministic"},
             {"MULTIVERSE_MAX_ROWS=2", "MULTIVERSE_MAX_N=2", "HOME=/", "MULTIVERSE_TEST_X=1", "MULTIVERSE_BUILD=b"});
  EXPECT_EQ(config.model, "from-file");
  EXPECT_EQ(config.port, 1);
  EXPECT_EQ(config.max_rows, 2);
  EXPECT_EQ(config.max_n, 3);
  EXPECT_FALSE(config.deterministic);
  EXPECT_EQ(config.kv_cache_bytes, std::int64_t{8} << 30);
  EXPECT_EQ(loaded({}, {"MULTIVERSE_CONFIG=" + path}).port, 1);
}

TEST_F(ServerConfigTest, EveryWayToWriteAValue) {
  const ServerConfig config = loaded({"--model=m", "--served-model-name", "a, b", "--device=cuda:1", "--kv-cache-bytes",
                                      "512m", "--no-prefix-cache", "--request-timeout-seconds=0.5",
                                      "--deterministic=yes", "--dialect", "some/file.json", "--max-body-bytes=10k"});
  EXPECT_EQ(config.served_model_name, (Strings{"a", "b"}));
  EXPECT_EQ(config.device, "cuda:1");
  EXPECT_EQ(config.kv_cache_bytes, 512 << 20);
  EXPECT_FALSE(config.prefix_cache);
  EXPECT_EQ(config.request_timeout_seconds, 0.5);
  EXPECT_TRUE(config.deterministic);
  EXPECT_EQ(config.dialect, "some/file.json");
  EXPECT_EQ(config.max_body_bytes, 10240);
  EXPECT_EQ(loaded({"--config", file(R"({"model": "m", "served_model_name": ["x", "y"]})")}).served_model_name,
            (Strings{"x", "y"}));
}

TEST_F(ServerConfigTest, UnknownNamesGetTheNearestKnownOne) {
  EXPECT_EQ(error_of({"--max-row", "1"}).message, "command line: unknown option --max-row; did you mean --max-rows?");
  EXPECT_EQ(error_of({"--max_rows=1"}).message, "command line: unknown option --max_rows; did you mean --max-rows?");
  EXPECT_EQ(error_of({"--no-port"}).message, "command line: unknown option --no-port; did you mean --port?");
  EXPECT_EQ(error_of({"--zzzzzzzzzzzz"}).message,
            "command line: unknown option --zzzzzzzzzzzz; --help lists what there is");
  EXPECT_EQ(error_of({"models/x"}).message,
            "command line: 'models/x' belongs to no option; --help lists what there is");
  EXPECT_EQ(error_of({}, {"MULTIVERSE_PROT=1"}).message,
            "environment: unknown variable MULTIVERSE_PROT; did you mean MULTIVERSE_PORT?");
  const std::string path = file(R"({"prefix_cahce": true})");
  const Error error = error_of({"--config", path});
  EXPECT_EQ(error.message, path + ": unknown key 'prefix_cahce'; did you mean prefix_cache?");
  EXPECT_EQ(error.param, "prefix_cahce");
}

TEST_F(ServerConfigTest, WrongValuesNameValueBoundsAndPlace) {
  EXPECT_EQ(error_of({"--port", "70000"}).message,
            "command line (--port): '70000' is not allowed for port, which takes an integer from 0 to 65535; for "
            "example 8001");
  EXPECT_EQ(
      error_of({}, {"MULTIVERSE_DTYPE=float16"}).message,
      "environment (MULTIVERSE_DTYPE): 'float16' is not allowed for dtype, which takes one of auto, bfloat16, float32; "
      "for example bfloat16");
  const std::string path = file(R"({"max_body_bytes": 12})");
  EXPECT_EQ(
      error_of({"--config", path}).message,
      path +
          ": '12' is not allowed for max_body_bytes, which takes a number of bytes (k, M, G and T may follow) from "
          "1k to 1G; for example 32M");
  EXPECT_EQ(error_of({"--port"}).message, "command line: --port needs a value: an integer from 0 to 65535");
  EXPECT_EQ(error_of({"--print-config=1"}).message, "command line: --print-config takes no value");
  for (const std::string wrong :
       {"--port=", "--port=8000x", "--port=-1", "--port=1k", "--port= 1", "--max-rows=0", "--device=gpu",
        "--device=cuda:", "--device=cuda:x", "--served-model-name=a,,b", "--served-model-name=a,",
        "--kv-cache-bytes=99999999999T", "--request-timeout-seconds=nan", "--request-timeout-seconds=-1",
        "--deterministic=maybe", "--dialect=", "--no-prefix-cache=true", "--log-level=loud", "--kv-cache-bytes=k"}) {
    EXPECT_FALSE(load_serve_options({"--model=m", wrong}, {}).ok()) << wrong;
  }
}

TEST_F(ServerConfigTest, FilesAreReadStrictly) {
  for (const std::string wrong :
       {R"({"port": "8000"})", R"({"port": 1.5})", R"({"port": null})", R"({"model": 5})",
        R"({"prefix_cache": "true"})", R"({"served_model_name": [1]})", R"({"port": 18446744073709551615})",
        R"({"port": 1e400})", R"([])", R"({"port": {}})"}) {
    EXPECT_FALSE(load_serve_options({"--model=m", "--config", file(wrong)}, {}).ok()) << wrong;
  }
  const std::string broken = file("{\n  \"port\": 1,\n  // no comma\n  \"model\": \"m\"\n  \"max_n\": 1\n}");
  EXPECT_EQ(error_of({"--config", broken}).message, broken + ": not JSON, at line 5 (a comma too many or missing?)");
  const std::string twice = file(R"({"port": 1, "port": 2})");
  EXPECT_EQ(error_of({"--config", twice}).message, twice + ": the key 'port' stands twice");
  EXPECT_EQ(error_of({"--config", "/no/such/file"}).message, "cannot read the config file '/no/such/file'");
  EXPECT_FALSE(load_serve_options({"--config", file(std::string(100000, '['))}, {}).ok());
}

TEST_F(ServerConfigTest, ValuesMustFitTogether) {
  EXPECT_EQ(error_of({}).param, "model");
  EXPECT_EQ(error_of({"--weights=random"}).param, "config_from");
  EXPECT_EQ(error_of({"--model=m", "--config-from=c"}).param, "config_from");
  EXPECT_EQ(error_of({"--model=m", "--max-paths=2000"}).param, "max_total_paths");
  EXPECT_EQ(loaded({"--weights=random", "--config-from=c.json"}).served_model_name, Strings{"random"});
}

TEST_F(ServerConfigTest, HelpAndPrintConfigWorkAlone) {
  EXPECT_TRUE(load_serve_options({"--port", "--help"}, {"MULTIVERSE_NONSENSE=1"}).value().help);
  const auto options = load_serve_options({"--print-config", "--max-rows=7"}, {});
  ASSERT_TRUE(options.ok());
  EXPECT_TRUE(options.value().print_config);
  EXPECT_EQ(Json::parse(to_json(options.value().config))["max_rows"], 7);
}

TEST_F(ServerConfigTest, PrintedConfigsReadBackTheSame) {
  const ServerConfig config = loaded({"--model=m", "--served-model-name=a,b", "--request-timeout-seconds=0.1",
                                      "--kv-cache-bytes=3k", "--no-prefix-cache", "--api-key-file=/x y"});
  EXPECT_EQ(to_json(loaded({"--config", file(to_json(config))})), to_json(config));
}

// A flag that may be left open: null in a file, the address decides.
TEST_F(ServerConfigTest, ThePageIsOpenUntilSaid) {
  EXPECT_FALSE(loaded({"--model=m"}).ui.has_value());
  EXPECT_EQ(loaded({"--model=m", "--ui"}).ui, true);
  EXPECT_EQ(loaded({"--model=m", "--no-ui"}).ui, false);
  const std::string path = file(R"({"model": "m", "ui": null})");
  EXPECT_FALSE(loaded({"--config", path}).ui.has_value());
  EXPECT_EQ(loaded({"--config", path, "--no-ui"}).ui, false);
}

// Every knob, at random allowed values: the same through file, environment and command line.
TEST_F(ServerConfigTest, AllKnobsMeanTheSameEverywhere) {
  const unsigned seed = std::random_device{}();
  SCOPED_TRACE("seed " + std::to_string(seed));
  std::mt19937_64 random(seed);
  for (const Knob& knob : server_knobs()) {
    std::string value = is_flag(knob) ? (random() % 2 == 0 ? "true" : "false") : std::string(knob.example);
    if (std::holds_alternative<std::int64_t ServerConfig::*>(knob.member)) {
      value = std::to_string(std::uniform_int_distribution<std::int64_t>(knob.min, knob.max)(random));
    }
    const std::string name(knob.name);
    const bool quoted = !is_flag(knob) && knob.max == 0;
    const auto print = [](const Strings& arguments, const Strings& environment) {
      const auto options = load_serve_options(arguments, environment);
      return options.ok() ? to_json(options.value().config) : "error: " + options.error().message;
    };
    const std::string by_flag = print({"--print-config", flag_of(name) + "=" + value}, {});
    EXPECT_EQ(by_flag.substr(0, 5), "{\n  \"") << by_flag;
    EXPECT_EQ(print({"--print-config"}, {variable_of(name) + "=" + value}), by_flag);
    const std::string json = "{\"" + name + "\": " + (quoted ? "\"" + value + "\"" : value) + "}";
    EXPECT_EQ(print({"--print-config", "--config", file(json)}, {}), by_flag) << json;
  }
}

TEST(ServerHelp, NamesEveryKnobAndFitsAScreen) {
  const std::string help = serve_help();
  for (const Knob& knob : server_knobs()) {
    EXPECT_NE(help.find("\n  " + flag_of(knob.name)), std::string::npos) << knob.name;
    EXPECT_FALSE(knob.description.empty()) << knob.name;
  }
  std::istringstream lines(help);
  for (std::string line; std::getline(lines, line);) EXPECT_LE(line.size(), 100U) << line;
}

TEST(ServerKnobs, DefaultsAndExamplesAreAllowedThemselves) {
  const ServerConfig defaults;
  for (const Knob& knob : server_knobs()) {
    ServerConfig config;
    const std::string value = value_text(knob, defaults);
    EXPECT_TRUE(set_from_text(knob, value, config)) << knob.name << " " << value;
    if (!knob.example.empty()) {
      EXPECT_TRUE(set_from_text(knob, knob.example, config)) << knob.name;
    }
  }
}

// configs/server.json: every knob in the table's order, at its default, under a comment.
TEST(ServerFile, ShippedFileExplainsEveryKnob) {
  std::ifstream file(MULTIVERSE_ROOT "/configs/server.json");
  const std::string text(std::istreambuf_iterator<char>(file), {});
  const Json shipped = Json::parse(text, nullptr, true, /*ignore_comments=*/true);
  Strings keys;
  for (const auto& [key, value] : shipped.items()) keys.push_back(key);
  EXPECT_EQ(keys, server_knob_names());
  EXPECT_EQ(shipped.dump(), Json::parse(to_json(ServerConfig())).dump());
  // The line before a key is its comment.
  std::istringstream lines(text);
  std::string before;
  for (std::string line; std::getline(lines, line); before = line) {
    const bool is_key = line.rfind("  \"", 0) == 0;
    EXPECT_TRUE(!is_key || before.rfind("  // ", 0) == 0) << line << " has no comment";
  }
}

}  // namespace
}  // namespace multiverse

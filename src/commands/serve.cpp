// `multiverse serve`: puts the parts together, keeps them running, takes them down.
#include <unistd.h>

#include <chrono>
#include <cstdio>
#include <ctime>
#include <filesystem>
#include <fstream>
#include <limits>
#include <memory>
#include <string>
#include <vector>

#include "multiverse/api/generation.h"
#include "multiverse/api/served_model.h"
#include "multiverse/base/log.h"
#include "multiverse/config/server_config.h"
#include "multiverse/engine/engine.h"
#include "multiverse/http/server.h"
#include "multiverse/model/torch_executor.h"

#include "commands/commands.h"
#include "commands/places.h"
#include "commands/termination.h"

namespace multiverse {
namespace {

using std::chrono::steady_clock;

int fail(const Error& error, int exit_code) {
  std::fputs(concat("multiverse serve: ", error.message, "\n").c_str(), stderr);
  return exit_code;
}

// A knob's bounds keep it in range.
std::int32_t narrow(std::int64_t value) {
  CHECK(value >= 0 && value <= std::numeric_limits<std::int32_t>::max(), "a knob's bounds let ", value, " through");
  return static_cast<std::int32_t>(value);
}

std::chrono::milliseconds seconds(double value) {
  return std::chrono::milliseconds(static_cast<std::int64_t>(value * 1000.0));
}

// One key a line; empty lines and those that start with # say nothing.
Result<std::vector<std::string>> read_keys(const std::string& file) {
  std::vector<std::string> keys;
  if (file.empty()) return keys;
  std::ifstream lines(file);
  if (!lines) return invalid_argument(concat("can't read the API keys in ", file), "api_key_file");
  for (std::string line; std::getline(lines, line);) {
    while (!line.empty() && (line.back() == '\r' || line.back() == ' ')) line.pop_back();
    if (!line.empty() && line.front() != '#') keys.push_back(line);
  }
  // A file without keys would let everyone in.
  if (keys.empty()) return invalid_argument(concat("there is no API key in ", file), "api_key_file");
  return keys;
}

Result<HttpOptions> http_options(const ServerConfig& config) {
  auto keys = read_keys(config.api_key_file);
  if (!keys.ok()) return keys.error();
  HttpOptions options;
  options.host = config.host;
  options.port = narrow(config.port);
  options.version = MULTIVERSE_VERSION;
  options.max_body_bytes = static_cast<std::size_t>(config.max_body_bytes);
  options.max_connections = narrow(config.max_connections);
  options.request_timeout = seconds(config.request_timeout_seconds);
  options.ping_interval = seconds(config.ping_interval_seconds);
  options.api_keys = std::move(keys).value();
  return options;
}

EngineConfig engine_config(const ServerConfig& config, const GenerationConfig& generation) {
  EngineConfig engine;
  engine.max_rows = narrow(config.max_rows);
  engine.max_prefill_tokens = narrow(config.max_prefill_tokens);
  engine.max_queued_requests = narrow(config.max_queued_requests);
  engine.max_queued_tokens = config.max_queued_tokens;
  engine.max_model_len = narrow(config.max_model_len);
  engine.max_request_tokens = config.max_request_tokens;
  engine.eos_tokens = generation.eos_token_ids;
  engine.prefix_cache = config.prefix_cache;
  return engine;
}

TorchExecutorOptions executor_options(const ServerConfig& config, const std::string& weights_dir) {
  TorchExecutorOptions options;
  options.model_dir = weights_dir;
  options.device = config.device;
  options.dtype = config.dtype;
  options.kv_cache_bytes = config.kv_cache_bytes;
  options.max_rows = narrow(config.max_rows);
  options.threads = narrow(config.threads);
  options.deterministic = config.deterministic;
  options.random_weights = config.weights == "random";
  return options;
}

StructureLimits structure_limits(const ServerConfig& config) {
  StructureLimits limits;
  limits.max_running_paths = narrow(config.max_running_paths);
  limits.max_paths = narrow(config.max_paths);
  limits.max_total_paths = narrow(config.max_total_paths);
  limits.max_depth = narrow(config.max_depth);
  limits.max_path_tokens = narrow(config.max_path_tokens);
  return limits;
}

LogLevel log_level(const std::string& name) {
  if (name == "debug") return LogLevel::kDebug;
  if (name == "warning") return LogLevel::kWarning;
  return name == "error" ? LogLevel::kError : LogLevel::kInfo;
}

// What serves: the model's texts, and the engine that runs it.
struct Serving {
  std::shared_ptr<ServedModel> model;
  std::unique_ptr<Engine> engine;
};

// The folders of a model: weights may be of another model, or random, than the tokenizer's.
struct Folders {
  std::string weights, texts;
};

Result<Folders> find_folders(const ServerConfig& config) {
  Folders folders{config.model, config.model};
  if (config.weights == "random") {
    folders.weights = std::filesystem::path(config.config_from).parent_path().string();
    if (folders.weights.empty()) folders.weights = ".";
    if (folders.texts.empty()) folders.texts = shipped_model_dir();
  }
  for (const std::string& folder : {folders.weights, folders.texts}) {
    if (!std::filesystem::is_directory(folder)) {
      return invalid_argument(concat("there is no model folder '", folder, "'"), "model");
    }
  }
  return folders;
}

Result<std::shared_ptr<ServedModel>> load_texts(const ServerConfig& config, const Folders& folders) {
  auto model = std::make_shared<ServedModel>();
  auto tokenizer = Tokenizer::load(folders.texts);
  if (!tokenizer.ok()) return tokenizer.error();
  model->tokenizer = std::move(tokenizer).value();
  auto generation = GenerationConfig::load(folders.weights);
  if (!generation.ok()) return generation.error();
  model->generation = std::move(generation).value();
  auto dialect = load_dialect(config.dialect, *model->tokenizer);
  if (!dialect.ok()) return dialect.error();
  model->dialect = std::move(dialect).value();
  auto chat_template = ChatTemplate::load(folders.texts);
  if (chat_template.ok()) {
    model->chat_template = std::move(chat_template).value();
  } else {
    log(LogLevel::kWarning, concat("no chat: ", chat_template.error().message));
  }
  model->names = config.served_model_name;
  model->created = std::time(nullptr);
  model->max_n = narrow(config.max_n);
  model->max_stop_strings = static_cast<std::size_t>(config.max_stop_strings);
  model->limits = structure_limits(config);
  return model;
}

Result<Serving> load(const ServerConfig& config) {
  const auto folders = find_folders(config);
  if (!folders.ok()) return folders.error();
  auto model = load_texts(config, folders.value());
  if (!model.ok()) return model.error();
  Serving serving;
  serving.model = std::move(model).value();
  auto executor = make_torch_executor(executor_options(config, folders.value().weights));
  if (!executor.ok()) return executor.error();
  serving.engine = Engine::start(std::move(executor).value(), serving.model->dialect,
                                 engine_config(config, serving.model->generation));
  serving.model->vocab_size = serving.engine->executor_info().vocab_size;
  serving.model->max_model_len = serving.engine->config().max_model_len;
  const Status warm = warm_up(*serving.engine);
  if (!warm.ok()) return warm.error();
  return serving;
}

void drain(HttpServer& server, std::chrono::milliseconds limit) {
  log(LogLevel::kInfo, concat("shutting down: running requests get ", limit.count() / 1000, " s to finish"));
  server.begin_drain();
  if (!server.wait_idle(limit)) log(LogLevel::kWarning, "requests still run and are ended");
  server.stop();
}

int serve(const ServerConfig& config) {
  const auto start = steady_clock::now();
  Termination termination;
  const auto options = http_options(config);
  if (!options.ok()) return fail(options.error(), 2);
  auto server = HttpServer::start(options.value());
  if (!server.ok()) return fail(server.error(), 1);
  auto serving = load(config);
  if (!serving.ok()) return fail(serving.error(), 1);
  const Serving& running = serving.value();
  server.value()->attach(running.model, *running.engine);

  const std::chrono::duration<double> took = steady_clock::now() - start;
  std::printf("multiverse: serving %s on http://%s:%d (ready in %.1f s)\n", running.model->names.front().c_str(),
              config.host.c_str(), server.value()->port(), took.count());
  std::fflush(stdout);
  termination.wait();
  drain(*server.value(), seconds(config.drain_timeout_seconds));
  return 0;
}

}  // namespace

int serve_command(std::span<const std::string_view> args) {
  std::vector<std::string> environment;
  for (char** entry = environ; *entry != nullptr; ++entry) environment.emplace_back(*entry);
  const auto options = load_serve_options(std::vector<std::string>(args.begin(), args.end()), environment);
  if (!options.ok()) return fail(options.error(), 2);
  if (options.value().help || options.value().print_config) {
    const std::string text = options.value().help ? serve_help() : to_json(options.value().config);
    std::fputs(text.c_str(), stdout);
    return 0;
  }
  const ServerConfig& config = options.value().config;
  set_log_level(log_level(config.log_level));
  try {
    return serve(config);
  } catch (const std::exception& failure) {
    return fail({ErrorCode::kInternal, failure.what(), "", ""}, 1);
  }
}

}  // namespace multiverse

#include "commands/serving.h"

#include <chrono>
#include <ctime>
#include <filesystem>
#include <fstream>
#include <limits>
#include <string>
#include <vector>

#include "multiverse/api/generation.h"
#include "multiverse/base/log.h"
#include "multiverse/engine/step_trace.h"
#include "multiverse/model/torch_executor.h"

#include "commands/places.h"

namespace multiverse {
namespace {

// A knob's bounds keep it in range.
std::int32_t narrow(std::int64_t value) {
  CHECK(value >= 0 && value <= std::numeric_limits<std::int32_t>::max(), "a knob's bounds let ", value, " through");
  return static_cast<std::int32_t>(value);
}

Result<EngineConfig> engine_config(const ServerConfig& config, const GenerationConfig& generation) {
  EngineConfig engine;
  engine.max_rows = narrow(config.max_rows);
  engine.max_prefill_tokens = narrow(config.max_prefill_tokens);
  engine.prefill_stretch = config.prefill_stretch;
  engine.max_queued_requests = narrow(config.max_queued_requests);
  engine.max_queued_tokens = config.max_queued_tokens;
  engine.max_queued_pages = config.max_queued_pages;
  engine.priority_step = to_milliseconds(config.priority_step_seconds);
  engine.max_model_len = narrow(config.max_model_len);
  engine.max_request_tokens = config.max_request_tokens;
  engine.eos_tokens = generation.eos_token_ids;
  engine.prefix_cache = config.prefix_cache;
  if (!config.trace_file.empty()) {
    auto trace = StepTrace::open(config.trace_file, config.trace_max_bytes);
    if (!trace.ok()) return trace.error();
    engine.trace = std::move(trace).value();
  }
  return engine;
}

TorchExecutorOptions executor_options(const ServerConfig& config, const std::string& weights_dir) {
  TorchExecutorOptions options;
  options.model_dir = weights_dir;
  options.device = config.device;
  options.dtype = config.dtype;
  options.kv_cache_dtype = config.kv_cache_dtype;
  options.kv_cache_bytes = config.kv_cache_bytes;
  options.max_rows = narrow(config.max_rows);
  options.threads = narrow(config.threads);
  options.deterministic = config.deterministic;
  options.tuning_file = config.tuning_file;
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

// The folders of a model: weights may be of another model, or random, than the tokenizer's.
struct Folders {
  std::string weights, texts;
};

Result<Folders> find_folders(const ServerConfig& config) {
  Folders folders{config.model, config.model};
  if (!config.config_from.empty()) {  // random weights of another model's shapes; without it, of the model's own
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

Result<std::shared_ptr<ServedModel>> read_texts(const ServerConfig& config, const Folders& folders) {
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
  } else if (chat_template.error().code == ErrorCode::kNotFound) {
    log(LogLevel::kWarning, concat("serves completions alone, no chat: ", chat_template.error().message));
  } else {
    Error unusable = chat_template.error();
    unusable.message = concat(folders.texts, ": ", unusable.message);
    return unusable;
  }
  if (model->chat_template != nullptr) model->tool_format = detect_tool_format(*model->chat_template);
  model->names = config.served_model_name;
  model->created = std::time(nullptr);
  model->max_n = narrow(config.max_n);
  model->max_stop_strings = static_cast<std::size_t>(config.max_stop_strings);
  model->limits = structure_limits(config);
  return model;
}

std::shared_ptr<const ConstraintCompiler> make_constraints(const ServedModel& model) {
  ThinkTokens think;
  if (model.dialect) think = {model.dialect->think_open, model.dialect->think_close};
  return ConstraintCompiler::make(*model.tokenizer, model.control_tokens(), model.generation.eos_token_ids,
                                  model.vocab_size, think);
}

// As written: a name that happens to resolve to one is none.
bool is_loopback(std::string_view host) {
  return host == "localhost" || host == "::1" || host.substr(0, 4) == "127.";
}

}  // namespace

Result<std::shared_ptr<ServedModel>> load_texts(const ServerConfig& config) {
  const auto folders = find_folders(config);
  if (!folders.ok()) return folders.error();
  return read_texts(config, folders.value());
}

Result<Serving> load_serving(const ServerConfig& config) {
  const auto folders = find_folders(config);
  if (!folders.ok()) return folders.error();
  auto model = read_texts(config, folders.value());
  if (!model.ok()) return model.error();
  Serving serving;
  serving.model = std::move(model).value();
  auto executor = make_torch_executor(executor_options(config, folders.value().weights));
  if (!executor.ok()) return executor.error();
  auto engine = engine_config(config, serving.model->generation);
  if (!engine.ok()) return engine.error();
  serving.engine = Engine::start(std::move(executor).value(), serving.model->dialect, std::move(engine).value());
  serving.model->vocab_size = serving.engine->executor_info().vocab_size;
  serving.model->max_model_len = serving.engine->config().max_model_len;
  serving.model->constraints = make_constraints(*serving.model);
  const Status warm = warm_up(*serving.engine);
  if (!warm.ok()) return warm.error();
  return serving;
}

// One key a line; empty lines and those that start with # say nothing.
Result<std::vector<std::string>> read_api_keys(const std::string& file) {
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
  auto keys = read_api_keys(config.api_key_file);
  if (!keys.ok()) return keys.error();
  HttpOptions options;
  options.host = config.host;
  options.port = narrow(config.port);
  options.metrics_host = config.metrics_host;
  if (config.metrics_port != 0) options.metrics_port = narrow(config.metrics_port);
  options.version = MULTIVERSE_VERSION;
  options.max_body_bytes = static_cast<std::size_t>(config.max_body_bytes);
  options.max_connections = narrow(config.max_connections);
  options.request_timeout = to_milliseconds(config.request_timeout_seconds);
  options.first_token_timeout = to_milliseconds(config.first_token_timeout_seconds);
  options.stall_timeout = to_milliseconds(config.stall_timeout_seconds);
  options.ping_interval = to_milliseconds(config.ping_interval_seconds);
  options.api_keys = std::move(keys).value();
  options.cors_origins = config.cors_origins;
  options.allowed_hosts = config.allowed_hosts;
  options.weights = {
      config.config_from.empty() ? config.model : std::filesystem::path(config.config_from).parent_path().string(),
      config.reload_dir};
  if (!config.reload_dir.empty() && !std::filesystem::is_directory(config.reload_dir)) {
    return invalid_argument(concat("there is no folder '", config.reload_dir, "'"), "reload_dir");
  }
  options.ui = config.ui.value_or(is_loopback(config.host));
  return options;
}

void apply_log_options(const ServerConfig& config) {
  set_log_level(log_level(config.log_level));
  set_log_format(config.log_format == "json" ? LogFormat::kJson : LogFormat::kText);
}

std::chrono::milliseconds to_milliseconds(double seconds) {
  return std::chrono::milliseconds(static_cast<std::int64_t>(seconds * 1000.0));
}

}  // namespace multiverse

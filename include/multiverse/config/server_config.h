// The server's knobs, as one typed struct: defaults < JSON file < environment < command line.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "multiverse/base/status.h"

namespace multiverse {

// What `multiverse serve` runs with. Each field is a knob of one name: key `max_rows` in the file,
// `MULTIVERSE_MAX_ROWS` in the environment, `--max-rows` on the command line. src/config/server_knobs.cpp declares
// bounds and meaning of each; the defaults stand here.
struct ServerConfig {
  // Model
  std::string model;                           // folder; "" only with random weights
  std::vector<std::string> served_model_name;  // completed: the folder's name where none is given
  std::string device = "cpu";                  // "cpu", "cuda:N"
  std::string dtype = "auto";                  // "auto", "bfloat16", "float32"
  std::string dialect = "auto";                // "auto", "off", or the path of a dialect file
  std::string weights = "auto";                // "auto", "random"
  std::string config_from;                     // config.json that random weights take their shapes from
  std::int64_t threads = 0;                    // 0: one for each core
  bool deterministic = false;
  std::string tuning_file;  // "": none

  // Address
  std::string host = "127.0.0.1";
  std::int64_t port = 8000;  // 0: one that is free
  std::string api_key_file;
  std::vector<std::string> cors_origins;   // none: no page but our own
  std::vector<std::string> allowed_hosts;  // none: any
  std::string metrics_host = "127.0.0.1";
  std::int64_t metrics_port = 0;  // 0: /metrics stands on `port`
  std::string reload_dir;         // weights may be loaded from below it; "": none
  std::optional<bool> ui;         // the page at /; nullopt: where the host is a loopback address
  std::int64_t max_connections = 1024;
  std::int64_t max_body_bytes = std::int64_t{8} << 20;

  // Memory and batching
  std::string kv_cache_dtype = "auto";  // "auto", "bfloat16", "float16", "fp8"
  std::int64_t kv_cache_bytes = 0;      // 0: what the device has left
  bool prefix_cache = true;
  std::int64_t max_rows = 512;
  std::int64_t max_prefill_tokens = 256;
  double prefill_stretch = 2;  // 0: no bound
  std::int64_t max_queued_requests = 256;
  std::int64_t max_queued_tokens = 1'000'000;
  std::int64_t max_queued_pages = 0;  // 0: 64 times the cache's
  double priority_step_seconds = 10;

  // Limits of one request
  std::int64_t max_model_len = 0;       // positions; 0: the model's
  std::int64_t max_request_tokens = 0;  // in the cache; 0: the pool less its reserve
  std::int64_t max_paths = 128;         // of one fork
  std::int64_t max_total_paths = 1024;
  std::int64_t max_depth = 6;
  std::int64_t max_path_tokens = 0;    // 0: the context
  std::int64_t max_running_paths = 0;  // 0: max_rows
  std::int64_t max_n = 8;
  std::int64_t max_stop_strings = 4;

  // Time
  double request_timeout_seconds = 0;      // 0: none
  double first_token_timeout_seconds = 0;  // 0: none
  double ping_interval_seconds = 10;       // 0: none
  double stall_timeout_seconds = 120;
  double drain_timeout_seconds = 30;

  // Messages
  std::string log_level = "info";   // "debug", "info", "warning", "error"
  std::string log_format = "text";  // "text", "json"
  std::string trace_file;           // "": none
  std::int64_t trace_max_bytes = std::int64_t{256} << 20;
};

struct ServeOptions {
  ServerConfig config;
  bool help = false;          // --help: show serve_help(), nothing else was looked at
  bool print_config = false;  // --print-config: show to_json(config); it was not checked to be complete
};

// `arguments` are those after `serve`; `environment` has "NAME=value" entries, of which those that begin with
// "MULTIVERSE_" are ours (but for those of the tests and scripts). An Error names the option, the value, what is
// allowed and where it came from; for an unknown name, the nearest known one. `param` is the knob's name.
Result<ServeOptions> load_serve_options(const std::vector<std::string>& arguments,
                                        const std::vector<std::string>& environment);

// The text of --help, grouped, at most 100 columns wide.
std::string serve_help();

// All knobs in the order of --help, as a config file that --config reads.
std::string to_json(const ServerConfig& config);

// Names of all knobs, in that order.
std::vector<std::string> server_knob_names();

}  // namespace multiverse

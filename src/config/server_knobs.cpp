// The table of the server's knobs. A new knob is a field of ServerConfig, an entry here and one in configs/server.json.
#include "config/knob.h"

namespace multiverse {
namespace {

constexpr std::int64_t kMaxTokens = 1'000'000'000;
constexpr std::int64_t kMaxSeconds = std::int64_t{7} * 24 * 3600;
constexpr std::int64_t kTebibyte = std::int64_t{1} << 40;

using C = ServerConfig;

std::vector<Knob> model_knobs() {
  const std::string_view group = "Model";
  return {
      {.group = group,
       .name = "model",
       .member = &C::model,
       .value = "DIR",
       .description = "Folder of the model: config.json, tokenizer.json and safetensors files.",
       .example = "models/multiverse-tiny"},
      {.group = group,
       .name = "served_model_name",
       .member = &C::served_model_name,
       .value = "NAMES",
       .description = "Names that requests may give as 'model', separated by commas; replies carry the first. Without "
                      "it, the folder's name.",
       .example = "multiverse-32b,default"},
      {.group = group,
       .name = "device",
       .member = &C::device,
       .value = "DEVICE",
       .description = "Where the model runs.",
       .example = "cuda:0",
       .choices = {"cpu"},
       .or_other = "cuda:N"},
      {.group = group,
       .name = "dtype",
       .member = &C::dtype,
       .value = "TYPE",
       .description = "Number format of weights and cache; auto takes the one that suits the device.",
       .example = "bfloat16",
       .choices = {"auto", "bfloat16", "float32"}},
      {.group = group,
       .name = "dialect",
       .member = &C::dialect,
       .value = "DIALECT",
       .description = "Control tokens that the model forks and joins with. auto finds them in its tokenizer; off "
                      "generates plain text.",
       .example = "configs/dialects/multiverse.json",
       .choices = {"auto", "off"},
       .or_other = "the path of a dialect file"},
      {.group = group,
       .name = "weights",
       .member = &C::weights,
       .value = "WEIGHTS",
       .description = "random fills the model with random numbers: speed can be measured without its files.",
       .example = "random",
       .choices = {"auto", "random"}},
      {.group = group,
       .name = "config_from",
       .member = &C::config_from,
       .value = "FILE",
       .description = "With --weights random, the config.json that gives the shapes.",
       .example = "config.json"},
      {.group = group,
       .name = "threads",
       .member = &C::threads,
       .value = "N",
       .description = "Threads that compute on the CPU; 0 takes one for each core.",
       .example = "8",
       .min = 0,
       .max = 1024},
      {.group = group,
       .name = "deterministic",
       .member = &C::deterministic,
       .value = "",
       .description = "The same request gives the same bits whatever else the server does; costs some speed."},
  };
}

std::vector<Knob> address_knobs() {
  const std::string_view group = "Address and connections";
  return {
      {.group = group,
       .name = "host",
       .member = &C::host,
       .value = "ADDRESS",
       .description = "Address to listen on. 0.0.0.0 lets other machines in: set an API key then.",
       .example = "0.0.0.0"},
      {.group = group,
       .name = "port",
       .member = &C::port,
       .value = "N",
       .description = "Port to listen on; 0 picks a free one, which the ready line names.",
       .example = "8001",
       .min = 0,
       .max = 65535},
      {.group = group,
       .name = "api_key_file",
       .member = &C::api_key_file,
       .value = "FILE",
       .description = "File with one API key a line; requests must then carry one as a bearer token.",
       .example = "/etc/multiverse/keys"},
      {.group = group,
       .name = "max_connections",
       .member = &C::max_connections,
       .value = "N",
       .description = "Connections open at once; further ones wait.",
       .example = "4096",
       .min = 1,
       .max = 65536},
      {.group = group,
       .name = "max_body_bytes",
       .member = &C::max_body_bytes,
       .value = "BYTES",
       .description = "Largest request body; larger ones are answered 413.",
       .example = "32M",
       .min = 1024,
       .max = std::int64_t{1} << 30,
       .is_bytes = true},
  };
}

std::vector<Knob> memory_knobs() {
  const std::string_view group = "Memory and batching";
  return {
      {.group = group,
       .name = "kv_cache_bytes",
       .member = &C::kv_cache_bytes,
       .value = "BYTES",
       .description = "Memory of the KV cache; 0 takes what the device has left.",
       .example = "16G",
       .min = 0,
       .max = 16 * kTebibyte,
       .is_bytes = true},
      {.group = group,
       .name = "prefix_cache",
       .member = &C::prefix_cache,
       .value = "",
       .description =
           "Keep what was computed for prompts and earlier turns, and reuse it where a request begins alike."},
      {.group = group,
       .name = "max_rows",
       .member = &C::max_rows,
       .value = "N",
       .description = "Branches of all requests that decode in one step; further ones wait their turn.",
       .example = "128",
       .min = 1,
       .max = 65536},
      {.group = group,
       .name = "max_prefill_tokens",
       .member = &C::max_prefill_tokens,
       .value = "N",
       .description =
           "Prompt tokens computed in one step beside the decoding branches. More speeds prompts up and makes "
           "streams less even.",
       .example = "2048",
       .min = 1,
       .max = 1'000'000},
      {.group = group,
       .name = "max_queued_requests",
       .member = &C::max_queued_requests,
       .value = "N",
       .description = "Requests that wait for admission; further ones are answered 429.",
       .example = "64",
       .min = 0,
       .max = 1'000'000},
      {.group = group,
       .name = "max_queued_tokens",
       .member = &C::max_queued_tokens,
       .value = "N",
       .description = "Prompt tokens of the waiting requests together; beyond it requests are answered 429.",
       .example = "200000",
       .min = 1,
       .max = kMaxTokens},
  };
}

std::vector<Knob> request_knobs() {
  const std::string_view group = "Limits of one request";
  return {
      {.group = group,
       .name = "max_model_len",
       .member = &C::max_model_len,
       .value = "N",
       .description = "Greatest position, prompt included; 0 takes the model's. Paths share positions, so a reply may "
                      "hold more tokens than this.",
       .example = "32768",
       .min = 0,
       .max = kMaxTokens},
      {.group = group,
       .name = "max_request_tokens",
       .member = &C::max_request_tokens,
       .value = "N",
       .description = "Tokens of all branches in the cache; 0 allows the cache less its reserve.",
       .example = "200000",
       .min = 0,
       .max = kMaxTokens},
      {.group = group,
       .name = "max_paths",
       .member = &C::max_paths,
       .value = "N",
       .description = "Paths of one fork; a block with more runs one after the other.",
       .example = "16",
       .min = 1,
       .max = 4096},
      {.group = group,
       .name = "max_total_paths",
       .member = &C::max_total_paths,
       .value = "N",
       .description = "Paths of all forks together; not below --max-paths.",
       .example = "256",
       .min = 1,
       .max = 65536},
      {.group = group,
       .name = "max_depth",
       .member = &C::max_depth,
       .value = "N",
       .description = "Blocks inside each other; deeper ones run one path after the other.",
       .example = "3",
       .min = 1,
       .max = 16},
      {.group = group,
       .name = "max_path_tokens",
       .member = &C::max_path_tokens,
       .value = "N",
       .description = "Tokens of one path, those of paths inside it not counted; 0 allows the whole context.",
       .example = "4096",
       .min = 0,
       .max = kMaxTokens},
      {.group = group,
       .name = "max_running_paths",
       .member = &C::max_running_paths,
       .value = "N",
       .description = "Paths that run at once, the others in waves; 0 allows --max-rows.",
       .example = "32",
       .min = 0,
       .max = 65536},
      {.group = group,
       .name = "max_n",
       .member = &C::max_n,
       .value = "N",
       .description = "Replies that a request may ask for ('n').",
       .example = "1",
       .min = 1,
       .max = 128},
      {.group = group,
       .name = "max_stop_strings",
       .member = &C::max_stop_strings,
       .value = "N",
       .description = "Stop strings that a request may give.",
       .example = "16",
       .min = 0,
       .max = 64},
  };
}

std::vector<Knob> other_knobs() {
  const std::string_view time = "Time, in seconds";
  return {
      {.group = time,
       .name = "request_timeout_seconds",
       .member = &C::request_timeout_seconds,
       .value = "S",
       .description = "A request that takes longer ends with what it has; 0 sets no limit.",
       .example = "600",
       .min = 0,
       .max = kMaxSeconds},
      {.group = time,
       .name = "ping_interval_seconds",
       .member = &C::ping_interval_seconds,
       .value = "S",
       .description = "Silence on a stream after which a comment line keeps proxies from closing it; 0 sends none.",
       .example = "5",
       .min = 0,
       .max = kMaxSeconds},
      {.group = time,
       .name = "drain_timeout_seconds",
       .member = &C::drain_timeout_seconds,
       .value = "S",
       .description = "What running requests get to finish when the server is told to stop.",
       .example = "300",
       .min = 0,
       .max = kMaxSeconds},
      {.group = "Messages",
       .name = "log_level",
       .member = &C::log_level,
       .value = "LEVEL",
       .description = "Least important messages that are written to stderr.",
       .example = "warning",
       .choices = {"debug", "info", "warning", "error"}},
  };
}

}  // namespace

const std::vector<Knob>& server_knobs() {
  static const std::vector<Knob> knobs = [] {
    std::vector<Knob> all;
    for (auto& part : {model_knobs(), address_knobs(), memory_knobs(), request_knobs(), other_knobs()}) {
      all.insert(all.end(), part.begin(), part.end());
    }
    return all;
  }();
  return knobs;
}

}  // namespace multiverse

// Loading a model to serve it: its texts (tokenizer, template, dialect) and the engine that runs it.
#pragma once

#include <chrono>
#include <memory>
#include <string>
#include <vector>

#include "multiverse/api/served_model.h"
#include "multiverse/base/status.h"
#include "multiverse/config/server_config.h"
#include "multiverse/engine/engine.h"
#include "multiverse/http/server.h"

namespace multiverse {

// What serves: the model's texts, and the engine that runs it.
struct Serving {
  std::shared_ptr<ServedModel> model;
  std::unique_ptr<Engine> engine;
};

// The texts of the configured model, without its weights: `vocab_size` and `max_model_len` stay 0. A model without a
// chat template serves completions alone, with a warning; one whose template can't be used is an error that names why.
Result<std::shared_ptr<ServedModel>> load_texts(const ServerConfig& config);

// Texts, weights and a running engine that has drawn a first token. Takes as long as reading the weights does. May
// throw where the machine fails (memory, device).
Result<Serving> load_serving(const ServerConfig& config);

// Address, limits and keys. The error names a key file that can't be read or has no key.
Result<HttpOptions> http_options(const ServerConfig& config);

// The keys in the file, none where its name is "". The error names a file that can't be read or has no key.
Result<std::vector<std::string>> read_api_keys(const std::string& file);

// Messages from now on are those of the configured level, written as configured.
void apply_log_options(const ServerConfig& config);

// A knob's value in the unit that the HTTP server takes.
std::chrono::milliseconds to_milliseconds(double seconds);

}  // namespace multiverse

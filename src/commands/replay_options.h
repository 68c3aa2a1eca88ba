// What `multiverse replay` is asked for.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "multiverse/base/status.h"
#include "multiverse/config/server_config.h"

namespace multiverse {

extern const char* const kReplayHelp;

struct ReplayOptions {
  ServerConfig config;
  std::vector<std::string> files;
  double tolerance = 1e-3;
  bool fake = false, blocks = false, json = false;
  std::vector<std::int32_t> batches;
  std::size_t most_parallel = 0, repeats = 1, seconds = 0;  // 0: no limit
  std::string resume;
};

// The error names the option at fault.
Result<ReplayOptions> read_replay_options(std::span<const std::string_view> args);

}  // namespace multiverse

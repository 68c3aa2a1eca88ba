#include "commands/replay_options.h"

#include <unistd.h>

#include <algorithm>
#include <cstdlib>

#include "commands/bench.h"
#include "commands/places.h"
#include "commands/serving.h"

namespace multiverse {

const char* const kReplayHelp = R"(Usage: multiverse replay [options] TRACE…

Forces recorded answers through the engine as if the model had drawn them, paths at once and one by one, and reads the same
text as a prompt. Prints forward passes, times and speed-up; fails where a pass was lost (beyond the longest chain of draws
and prefill), or where log-probabilities of the three differ by more than the tolerance.

TRACE (- is standard input) is a text, whose first token is the prompt, or JSON lines with a field "completion" and perhaps
"id", and "system" and "user": the chat that was asked.

  --model DIR       default: the model that ships
  --fake            no model: counts passes alone
  --blocks          only the blocks that fork, each after a prefill of what stands before it
  --most-parallel N the N blocks (or answers) with the most tokens for each token of their critical path; the others aren't run
  --batch LIST      also so many at once that share nothing ("8,32"); one that doesn't fit the pool is named and left out
  --repeats N       of each time (default 1): least, median, most
  --resume FILE     JSON lines go to FILE as well, and what it has is not run again
  --seconds N       begin nothing after so many seconds; the same command goes on with --resume
  --tolerance X     of a log-probability (default 0.001; rounding in bfloat16 needs 0.1 and more)
  --json            one JSON object a line
  --weights random, --config-from FILE, --device, --dtype, --dialect, --threads, --deterministic, --kv-cache-bytes,
  --kv-cache-dtype, --max-rows, --max-prefill-tokens, --max-model-len, --max-paths, --max-depth: as multiverse serve has them
)";

namespace {

bool is_own(std::string_view name) {
  constexpr std::string_view kNames[] = {"--tolerance", "--most-parallel", "--batch",
                                         "--repeats",   "--resume",        "--seconds"};
  return std::find(std::begin(kNames), std::end(kNames), name) != std::end(kNames);
}

// An option of replay's own with a value.
Status set_own(ReplayOptions& options, std::string_view name, const std::string& value) {
  if (name == "--tolerance") {
    char* end = nullptr;
    options.tolerance = std::strtod(value.c_str(), &end);
    if (value.empty() || *end != '\0' || !(options.tolerance >= 0)) {
      return invalid_argument(concat("--tolerance is '", value, "'; it takes a number from 0 on"));
    }
    return ok_status();
  }
  if (name == "--resume") {
    options.resume = value;
    return ok_status();
  }
  constexpr std::size_t kMost = 100'000;
  if (name == "--batch") {
    for (std::size_t begin = 0; begin <= value.size();) {
      const std::size_t end = std::min(value.find(',', begin), value.size());
      const auto count = count_option(name, std::string_view(value).substr(begin, end - begin), kMost);
      if (!count.ok()) return count.error();
      options.batches.push_back(static_cast<std::int32_t>(count.value()));
      begin = end + 1;
    }
    return ok_status();
  }
  const auto count = count_option(name, value, kMost);
  if (!count.ok()) return count.error();
  (name == "--repeats"   ? options.repeats
   : name == "--seconds" ? options.seconds
                         : options.most_parallel) = count.value();
  return ok_status();
}

bool is_servers(std::string_view name) {
  constexpr std::string_view kNames[] = {"--model",          "--weights",       "--config-from", "--device",
                                         "--dtype",          "--dialect",       "--threads",     "--kv-cache-bytes",
                                         "--kv-cache-dtype", "--max-model-len", "--max-rows",    "--max-prefill-tokens",
                                         "--max-paths",      "--max-depth"};
  return std::find(std::begin(kNames), std::end(kNames), name) != std::end(kNames);
}

}  // namespace

Result<ReplayOptions> read_replay_options(std::span<const std::string_view> args) {
  ReplayOptions options;
  std::vector<std::string> servers = {"--log-level", "warning"};
  bool has_model = false;
  for (std::size_t i = 0; i < args.size(); ++i) {
    const std::string_view arg = args[i];
    const std::string_view name = arg.substr(0, arg.find('='));
    if (arg == "--fake") {
      options.fake = true;
    } else if (arg == "--blocks") {
      options.blocks = true;
    } else if (arg == "--json") {
      options.json = true;
    } else if (arg == "--deterministic") {
      servers.emplace_back(arg);
    } else if (arg == "-" || arg.empty() || arg.front() != '-') {
      options.files.emplace_back(arg);
    } else if (is_servers(name) || is_own(name)) {
      if (name.size() == arg.size() && i + 1 == args.size()) return invalid_argument(concat(name, " needs a value"));
      const std::string value(name.size() < arg.size() ? arg.substr(name.size() + 1) : args[++i]);
      if (is_own(name)) {
        const Status set = set_own(options, name, value);
        if (!set.ok()) return set.error();
      } else {
        has_model = has_model || name == "--model" || name == "--config-from";
        servers.insert(servers.end(), {std::string(name), value});
      }
    } else {
      return invalid_argument(concat("unknown option ", arg, "; see multiverse replay --help"));
    }
  }
  if (options.files.empty()) return invalid_argument("which traces? see multiverse replay --help");
  if (!has_model) servers.insert(servers.end(), {"--model", shipped_model_dir()});
  std::vector<std::string> environment;
  for (char** entry = environ; *entry != nullptr; ++entry) environment.emplace_back(*entry);
  auto serve = load_serve_options(servers, environment);
  if (!serve.ok()) return serve.error();
  options.config = std::move(serve).value().config;
  return options;
}

}  // namespace multiverse

// `multiverse replay`: recorded answers through the engine as if the model drew them.
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "commands/commands.h"
#include "commands/given_executor.h"
#include "commands/places.h"
#include "commands/replay_run.h"
#include "commands/serving.h"
#include "commands/traces.h"

namespace multiverse {
namespace {

constexpr const char* kHelp = R"(Usage: multiverse replay [options] TRACE…

Forces recorded answers through the engine as if the model had drawn them, paths at once and one by one, and reads the same
text as a prompt. Prints forward passes, times and speed-up; fails where a pass was lost (beyond the longest chain of draws
and prefill), or where log-probabilities of the three differ by more than the tolerance.

TRACE (- is standard input) is a text, whose first token is the prompt, or JSON lines with a field "completion" and perhaps
"id", and "system" and "user": the chat that was asked.

  --model DIR       default: the model that ships
  --fake            no model: counts passes alone
  --blocks          only the blocks that fork, each after a prefill of what stands before it
  --tolerance X     of a log-probability (default 0.001; rounding in bfloat16 needs 0.1 and more)
  --json            one JSON object a line
  --weights random, --config-from FILE, --device, --dtype, --dialect, --threads, --deterministic, --kv-cache-bytes,
  --kv-cache-dtype, --max-rows, --max-prefill-tokens, --max-model-len, --max-paths, --max-depth: as multiverse serve has them
)";

struct Options {
  ServerConfig config;
  std::vector<std::string> files;
  double tolerance = 1e-3;
  bool fake = false, blocks = false, json = false;
};

bool is_servers(std::string_view name) {
  constexpr std::string_view kNames[] = {"--model",          "--weights",       "--config-from", "--device",
                                         "--dtype",          "--dialect",       "--threads",     "--kv-cache-bytes",
                                         "--kv-cache-dtype", "--max-model-len", "--max-rows",    "--max-prefill-tokens",
                                         "--max-paths",      "--max-depth"};
  return std::find(std::begin(kNames), std::end(kNames), name) != std::end(kNames);
}

Result<Options> parse(std::span<const std::string_view> args) {
  Options options;
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
    } else if (is_servers(name) || name == "--tolerance") {
      if (name.size() == arg.size() && i + 1 == args.size()) return invalid_argument(concat(name, " needs a value"));
      const std::string value(name.size() < arg.size() ? arg.substr(name.size() + 1) : args[++i]);
      if (name == "--tolerance") {
        char* end = nullptr;
        options.tolerance = std::strtod(value.c_str(), &end);
        if (value.empty() || *end != '\0' || !(options.tolerance >= 0)) {
          return invalid_argument(concat("--tolerance is '", value, "'; it takes a number from 0 on"));
        }
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

// The model's texts, and an engine that counts alone.
Result<Serving> load_fake(const ServerConfig& config) {
  auto model = load_texts(config);
  if (!model.ok()) return model.error();
  constexpr std::int32_t kPositions = 1 << 20, kPages = 1 << 16;
  Serving serving;
  serving.model = std::move(model).value();
  const auto rows = static_cast<std::int32_t>(config.max_rows);
  auto executor = std::make_unique<GivenExecutor>(
      ExecutorInfo{"given", serving.model->tokenizer->size(), kPages, rows, kPositions, 0, 0});
  EngineConfig engine;
  engine.max_rows = rows;
  engine.max_prefill_tokens = static_cast<std::int32_t>(config.max_prefill_tokens);
  engine.max_model_len = static_cast<std::int32_t>(config.max_model_len);
  serving.engine = Engine::start(std::move(executor), serving.model->dialect, engine);
  return serving;
}

// What came of one answer, or of one block of it.
struct Outcome {
  std::string name;
  std::int32_t prompt_tokens = 0;
  std::int64_t tokens = 0;
  TreeStatistics counted;
  std::int64_t serial_steps = 0;
  ReplayRun parallel, serial, prefill;
  Difference against_prefill, against_serial;

  std::int64_t lost() const { return std::abs(parallel.lost(counted.steps)); }
  double speedup() const { return parallel.seconds > 0 ? serial.seconds / parallel.seconds : 1; }
  double step_ratio() const { return static_cast<double>(serial_steps) / static_cast<double>(counted.steps); }
  double greatest() const { return std::max(against_prefill.maximum, against_serial.maximum); }
};

class Replay {
 public:
  Replay(const Options& options, const Serving& serving)
      : options_(options), model_(*serving.model), replayer_(*serving.engine, serving.model->limits) {}

  // False where a pass was lost or a log-probability differs.
  Result<bool> run() {
    for (const std::string& file : options_.files) {
      auto traces = read_traces(file);
      if (!traces.ok()) return traces.error();
      for (const Trace& trace : traces.value()) {
        const Status done = replay(trace);
        if (!done.ok()) return invalid_argument(concat(trace.name, ": ", done.error().message));
      }
    }
    if (!options_.json) summarise();
    return failed_ == 0;
  }

 private:
  Status replay(const Trace& trace);
  Result<std::vector<TokenId>> prompt_of(const Trace& trace) const;
  Status replay_range(const std::string& name, const std::vector<TokenId>& text, std::int32_t prompt_tokens);
  void report(const Outcome& outcome);
  void summarise() const;

  const Options& options_;
  const ServedModel& model_;
  Replayer replayer_;
  int replayed_ = 0, failed_ = 0;
  double seconds_ = 0, serial_seconds_ = 0;
  std::int64_t steps_ = 0, serial_steps_ = 0, lost_ = 0;
  double greatest_ = 0;
};

Result<std::vector<TokenId>> Replay::prompt_of(const Trace& trace) const {
  if (trace.user.empty()) return std::vector<TokenId>();
  if (model_.chat_template == nullptr) return invalid_argument("the model has no chat template for the trace's chat");
  ChatTemplateInput input;
  if (!trace.system.empty()) input.messages.push_back({"system", trace.system, "", "", "", ""});
  input.messages.push_back({"user", trace.user, "", "", "", ""});
  auto rendered = model_.chat_template->render(input);
  if (!rendered.ok()) return rendered.error();
  return model_.tokenizer->encode(rendered.value(), model_.control_tokens());
}

Status Replay::replay(const Trace& trace) {
  auto prompt = prompt_of(trace);
  if (!prompt.ok()) return prompt.error();
  std::vector<TokenId> text = std::move(prompt).value();
  const auto prompt_tokens = std::max<std::int32_t>(1, static_cast<std::int32_t>(text.size()));
  const std::vector<TokenId> answer = model_.tokenizer->encode(trace.completion, Trust::kAll);
  text.insert(text.end(), answer.begin(), answer.end());
  if (static_cast<std::int32_t>(text.size()) <= prompt_tokens) return invalid_argument("the answer has no tokens");
  if (!options_.blocks) return replay_range(trace.name, text, prompt_tokens);
  if (!model_.dialect) return invalid_argument("--blocks needs a model with a dialect");
  for (const TextRange& block : forking_blocks(text, *model_.dialect, model_.limits)) {
    if (block.begin < prompt_tokens) continue;  // a block of the prompt
    const std::vector<TokenId> until(text.begin(), text.begin() + block.end);
    const std::string name = concat(trace.name, " block at ", block.begin - prompt_tokens);
    Status done = replay_range(name, until, block.begin);
    if (!done.ok()) return done;
  }
  return ok_status();
}

Status Replay::replay_range(const std::string& name, const std::vector<TokenId>& text, std::int32_t prompt_tokens) {
  auto read = Recording::read(text, prompt_tokens, model_.dialect ? &*model_.dialect : nullptr, model_.limits);
  if (!read.ok()) return read.error();
  const auto recording = std::make_shared<const Recording>(std::move(read).value());
  Outcome outcome;
  outcome.name = name;
  outcome.prompt_tokens = prompt_tokens;
  outcome.tokens = static_cast<std::int64_t>(text.size()) - prompt_tokens;
  outcome.counted = recording->statistics();
  outcome.serial_steps = recording->drawn_tokens();
  for (auto [mode, salt, into] : {std::tuple(Mode::kParallel, "parallel", &outcome.parallel),
                                  std::tuple(Mode::kSerial, "serial", &outcome.serial)}) {
    auto run = replayer_.force(recording, mode, salt);
    if (!run.ok()) return run.error();
    *into = std::move(run).value();
  }
  if (!options_.fake) {
    auto run = replayer_.prefill(*recording);
    if (!run.ok()) return run.error();
    outcome.prefill = std::move(run).value();
    outcome.against_prefill = difference(outcome.parallel, outcome.prefill);
    outcome.against_serial = difference(outcome.parallel, outcome.serial);
  }
  report(outcome);
  return ok_status();
}

void Replay::report(const Outcome& outcome) {
  const bool good = outcome.lost() == 0 && outcome.greatest() <= options_.tolerance;
  ++replayed_;
  failed_ += good ? 0 : 1;
  seconds_ += outcome.parallel.seconds;
  serial_seconds_ += outcome.serial.seconds;
  steps_ += outcome.counted.steps;
  serial_steps_ += outcome.serial_steps;
  lost_ += outcome.lost();
  greatest_ = std::max(greatest_, outcome.greatest());
  if (options_.json) {
    nlohmann::ordered_json line = {{"id", outcome.name},
                                   {"prompt_tokens", outcome.prompt_tokens},
                                   {"tokens", outcome.tokens},
                                   {"blocks", outcome.counted.blocks},
                                   {"paths", outcome.counted.paths},
                                   {"max_width", outcome.counted.max_width},
                                   {"steps", outcome.counted.steps},
                                   {"passes", outcome.parallel.passes},
                                   {"prefill_passes", outcome.parallel.prefill_passes},
                                   {"lost_steps", outcome.parallel.lost(outcome.counted.steps)},
                                   {"serial_steps", outcome.serial_steps},
                                   {"serial_passes", outcome.serial.passes}};
    if (!options_.fake) {
      line.update({{"seconds", outcome.parallel.seconds},
                   {"serial_seconds", outcome.serial.seconds},
                   {"speedup", outcome.speedup()},
                   {"prefill_seconds", outcome.prefill.all_seconds},
                   {"compared", outcome.against_prefill.compared},
                   {"max_difference_to_prefill", outcome.against_prefill.maximum},
                   {"max_difference_to_serial", outcome.against_serial.maximum}});
    }
    std::puts(line.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace).c_str());
    std::fflush(stdout);
    return;
  }
  std::printf("%s: %d + %lld tokens, %lld blocks, %lld paths\n", outcome.name.c_str(), outcome.prompt_tokens,
              static_cast<long long>(outcome.tokens), static_cast<long long>(outcome.counted.blocks),
              static_cast<long long>(outcome.counted.paths));
  std::printf("  %lld passes = %lld steps + %lld of prefill - 1, %lld lost; one path at a time %lld passes\n",
              static_cast<long long>(outcome.parallel.passes), static_cast<long long>(outcome.counted.steps),
              static_cast<long long>(outcome.parallel.prefill_passes),
              static_cast<long long>(outcome.parallel.lost(outcome.counted.steps)),
              static_cast<long long>(outcome.serial.passes));
  if (!options_.fake) {
    std::printf("  %.3f s against %.3f s: x %.2f (steps x %.2f); as a prompt %.3f s\n", outcome.parallel.seconds,
                outcome.serial.seconds, outcome.speedup(), outcome.step_ratio(), outcome.prefill.all_seconds);
    std::printf("  %lld log-probabilities: at most %.2g from the prompt's (token %d), %.2g from the serial ones\n",
                static_cast<long long>(outcome.against_prefill.compared), outcome.against_prefill.maximum,
                outcome.against_prefill.token - outcome.prompt_tokens, outcome.against_serial.maximum);
  }
  if (!good) std::printf("  FAILED\n");
  std::fflush(stdout);
}

void Replay::summarise() const {
  std::printf("%d replayed, %d failed: %lld steps lost", replayed_, failed_, static_cast<long long>(lost_));
  if (!options_.fake && replayed_ > 0) {
    std::printf("; %.2f s against %.2f s: x %.2f (steps x %.2f); log-probabilities within %.2g", seconds_,
                serial_seconds_, seconds_ > 0 ? serial_seconds_ / seconds_ : 1.0,
                static_cast<double>(serial_steps_) / static_cast<double>(std::max<std::int64_t>(1, steps_)), greatest_);
  }
  std::puts("");
}

int fail(const std::string& message, int exit_code) {
  std::fprintf(stderr, "multiverse replay: %s\n", message.c_str());
  return exit_code;
}

}  // namespace

int replay_command(std::span<const std::string_view> args) {
  if (!args.empty() && (args[0] == "--help" || args[0] == "-h")) {
    std::fputs(kHelp, stdout);
    return 0;
  }
  const auto options = parse(args);
  if (!options.ok()) return fail(options.error().message, 2);
  try {
    apply_log_options(options.value().config);
    const ServerConfig& config = options.value().config;
    const auto serving = options.value().fake ? load_fake(config) : load_serving(config);
    if (!serving.ok()) return fail(serving.error().message, 1);
    const auto good = Replay(options.value(), serving.value()).run();
    if (!good.ok()) return fail(good.error().message, 1);
    return good.value() ? 0 : 1;
  } catch (const std::exception& failure) {
    return fail(failure.what(), 1);
  }
}

}  // namespace multiverse

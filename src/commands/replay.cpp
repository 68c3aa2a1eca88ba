// `multiverse replay`: recorded answers through the engine as if the model drew them.
#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <set>
#include <string>
#include <vector>

#include "commands/commands.h"
#include "commands/given_executor.h"
#include "commands/replay_options.h"
#include "commands/replay_run.h"
#include "commands/serving.h"
#include "commands/traces.h"

namespace multiverse {
namespace {

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
  Replay(const ReplayOptions& options, const Serving& serving)
      : options_(options), model_(*serving.model), replayer_(*serving.engine, serving.model->limits) {}

  // False where a pass was lost or a log-probability differs.
  Result<bool> run() {
    const Status read = read_records();
    if (!read.ok()) return read.error();
    for (const std::string& file : options_.files) {
      auto traces = read_traces(file);
      if (!traces.ok()) return traces.error();
      for (const Trace& trace : traces.value()) {
        const Status found = find_pieces(trace);
        if (!found.ok()) return invalid_argument(concat(trace.name, ": ", found.error().message));
      }
    }
    if (options_.most_parallel > 0 && options_.most_parallel < pieces_.size()) {
      std::stable_sort(pieces_.begin(), pieces_.end(),
                       [](const Piece& a, const Piece& b) { return a.parallelism() > b.parallelism(); });
      pieces_.resize(options_.most_parallel);
    }
    for (const Piece& piece : pieces_) {
      const Status done = replay_piece(piece);
      if (!done.ok()) return invalid_argument(concat(piece.name, ": ", done.error().message));
    }
    if (!options_.json) summarise();
    if (left_ > 0) std::fprintf(stderr, "multiverse replay: the time was over; %d runs are left\n", left_);
    return failed_ == 0;
  }

 private:
  // An answer, or a block of one after all that stands before it.
  struct Piece {
    std::string name;
    std::shared_ptr<const Recording> recording;
    double parallelism() const {
      const auto path = std::max<std::int64_t>(1, recording->statistics().steps);
      return static_cast<double>(recording->drawn_tokens()) / static_cast<double>(path);
    }
  };

  Status read_records();
  bool begins(const std::string& key);
  void write(const nlohmann::ordered_json& line);
  Status find_pieces(const Trace& trace);
  Status add_piece(const std::string& name, const std::vector<TokenId>& text, std::int32_t prompt_tokens);
  Status replay_piece(const Piece& piece);
  Status replay_batch(const Piece& piece, std::int32_t count);
  Result<std::vector<TokenId>> prompt_of(const Trace& trace) const;
  Status replay_once(const Piece& piece);
  void report(const Outcome& outcome);
  void summarise() const;

  const ReplayOptions& options_;
  const ServedModel& model_;
  Replayer replayer_;
  std::vector<Piece> pieces_;
  std::set<std::string> recorded_;  // keys of --resume's lines
  const std::chrono::steady_clock::time_point begin_ = std::chrono::steady_clock::now();
  int replayed_ = 0, failed_ = 0, left_ = 0;
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

std::string key_of(const std::string& name, std::int64_t batch) {
  return concat(name, batch > 0 ? concat(" batch ", batch) : "");
}

Status Replay::read_records() {
  if (options_.resume.empty()) return ok_status();
  std::ifstream in(options_.resume);
  std::uintmax_t whole = 0;  // bytes of complete lines
  for (std::string line; std::getline(in, line);) {
    if (in.eof()) {  // a kill cut it off: it is run again
      std::filesystem::resize_file(options_.resume, whole);
      break;
    }
    whole += line.size() + 1;
    const auto record = nlohmann::json::parse(line, nullptr, /*allow_exceptions=*/false);
    if (!record.is_object() || !record.contains("id") || !record["id"].is_string()) {
      return invalid_argument(concat(options_.resume, " has a line that is no record of replay's: ", line));
    }
    recorded_.insert(key_of(record["id"].get<std::string>(), record.value("batch", std::int64_t{0})));
  }
  return ok_status();
}

// Whether this is to be run now: it isn't recorded, and there is time.
bool Replay::begins(const std::string& key) {
  if (recorded_.count(key) > 0) return false;
  if (options_.seconds == 0 || std::chrono::steady_clock::now() - begin_ < std::chrono::seconds(options_.seconds)) {
    return true;
  }
  ++left_;
  return false;
}

void Replay::write(const nlohmann::ordered_json& line) {
  const std::string text = line.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
  if (options_.json) {
    std::puts(text.c_str());
    std::fflush(stdout);
  }
  if (!options_.resume.empty()) std::ofstream(options_.resume, std::ios::app) << text << std::endl;
}

Status Replay::find_pieces(const Trace& trace) {
  auto prompt = prompt_of(trace);
  if (!prompt.ok()) return prompt.error();
  std::vector<TokenId> text = std::move(prompt).value();
  const auto prompt_tokens = std::max<std::int32_t>(1, static_cast<std::int32_t>(text.size()));
  const std::vector<TokenId> answer = model_.tokenizer->encode(trace.completion, Trust::kAll);
  text.insert(text.end(), answer.begin(), answer.end());
  if (static_cast<std::int32_t>(text.size()) <= prompt_tokens) return invalid_argument("the answer has no tokens");
  if (!options_.blocks) return add_piece(trace.name, text, prompt_tokens);
  if (!model_.dialect) return invalid_argument("--blocks needs a model with a dialect");
  for (const TextRange& block : forking_blocks(text, *model_.dialect, model_.limits)) {
    if (block.begin < prompt_tokens) continue;  // a block of the prompt
    const std::vector<TokenId> until(text.begin(), text.begin() + block.end);
    const std::string name = concat(trace.name, " block at ", block.begin - prompt_tokens);
    Status done = add_piece(name, until, block.begin);
    if (!done.ok()) return done;
  }
  return ok_status();
}

Status Replay::add_piece(const std::string& name, const std::vector<TokenId>& text, std::int32_t prompt_tokens) {
  auto read = Recording::read(text, prompt_tokens, model_.dialect ? &*model_.dialect : nullptr, model_.limits);
  if (!read.ok()) return read.error();
  pieces_.push_back({name, std::make_shared<const Recording>(std::move(read).value())});
  return ok_status();
}

Status Replay::replay_piece(const Piece& piece) {
  Status done = begins(key_of(piece.name, 0)) ? replay_once(piece) : ok_status();
  for (const std::int32_t count : options_.batches) {
    if (done.ok() && begins(key_of(piece.name, count))) done = replay_batch(piece, count);
  }
  return done;
}

nlohmann::ordered_json spread(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  return {{"min", values.front()}, {"median", values[values.size() / 2]}, {"max", values.back()}};
}

Status Replay::replay_batch(const Piece& piece, std::int32_t count) {
  const TreeStatistics& counted = piece.recording->statistics();
  nlohmann::ordered_json line = {{"id", piece.name},
                                 {"batch", count},
                                 {"prompt_tokens", piece.recording->prompt_tokens()},
                                 {"steps", counted.steps},
                                 {"serial_steps", piece.recording->drawn_tokens()},
                                 {"most_rows", count * counted.max_width}};
  const std::int64_t needed = replayer_.pages_needed(*piece.recording, count), pages = replayer_.pages();
  line.update({{"fits", needed <= pages}, {"pages_needed", needed}, {"pages", pages}});
  if (needed > pages) {
    write(line);
    if (!options_.json) {
      std::printf("%s, %d at once: does not fit, %lld pages are needed of %lld\n", piece.name.c_str(), count,
                  static_cast<long long>(needed), static_cast<long long>(pages));
    }
    return ok_status();
  }
  std::vector<double> parallel, serial;
  for (std::size_t repeat = 0; repeat < options_.repeats; ++repeat) {
    for (auto [mode, into] : {std::pair(Mode::kParallel, &parallel), std::pair(Mode::kSerial, &serial)}) {
      const auto seconds = replayer_.force_batch(piece.recording, mode, count);
      if (!seconds.ok()) return seconds.error();
      into->push_back(seconds.value());
    }
  }
  line.update({{"seconds", spread(parallel)}, {"serial_seconds", spread(serial)}});
  const double speedup =
      line["serial_seconds"]["median"].get<double>() / std::max(1e-9, line["seconds"]["median"].get<double>());
  line["speedup"] = speedup;
  write(line);
  if (!options_.json) {
    std::printf("%s, %d at once: %.3f s against %.3f s: x %.2f (steps x %.2f)\n", piece.name.c_str(), count,
                line["seconds"]["median"].get<double>(), line["serial_seconds"]["median"].get<double>(), speedup,
                piece.parallelism());
  }
  return ok_status();
}

Status Replay::replay_once(const Piece& piece) {
  const std::shared_ptr<const Recording>& recording = piece.recording;
  const std::int32_t prompt_tokens = recording->prompt_tokens();
  Outcome outcome;
  outcome.name = piece.name;
  outcome.prompt_tokens = prompt_tokens;
  outcome.tokens = static_cast<std::int64_t>(recording->text().size()) - prompt_tokens;
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
  if (options_.json || !options_.resume.empty()) {
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
    write(line);
    if (options_.json) return;
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
    std::fputs(kReplayHelp, stdout);
    return 0;
  }
  const auto options = read_replay_options(args);
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

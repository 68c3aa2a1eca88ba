// `multiverse chat`: asks a server, or the model itself through a server inside the process.
#include <poll.h>
#include <unistd.h>

#include <cerrno>
#include <charconv>
#include <cstdio>
#include <cstdlib>
#include <optional>
#include <string>

#include "multiverse/chat/terminal_text.h"
#include "multiverse/http/client.h"

#include "commands/commands.h"
#include "commands/conversation.h"
#include "commands/local_server.h"
#include "commands/places.h"

namespace multiverse {
namespace {

constexpr const char* kHelp = R"(Usage: multiverse chat [options] [QUESTION]

Asks, and shows the branches of the answer as they are written. Without QUESTION it reads questions from standard input,
one a line, and keeps the conversation. Into a pipe goes the answer's text alone.

  --url URL          a running server, http://HOST[:PORT] (default: none, the model is run here)
  --model DIR        the model to run here (default: the model that ships)
  --mode MODE        parallel, serial (the same tree, one path at a time) or off (no branches); default parallel
  --think HOW        parallel or sequential: asks for that kind of thinking after the question (default: as it stands)
  --system TEXT      a system message
  --temperature X    0 is greedy; default: the model's
  --seed N           the same seed gives the same answer; default: random
  --max-tokens N     of the answer, of all branches; default: what fits
  --api-key KEY      default: the environment variable OPENAI_API_KEY
  --plain            the answer's text alone, on a terminal too

Ctrl-C ends the answer and the program.
)";

// As the Multiverse models were trained to be asked.
constexpr const char* kParallel = " Think step by step and in parallel before answering.";
constexpr const char* kSequential = " Think step by step before answering.";

constexpr int kInterruptedExit = 130;

struct Options {
  std::string url, model_dir, question;
  ChatSettings settings;
  bool plain = false, has_question = false;
};

template <class Number>
Status set_number(std::string_view name, std::string_view value, std::optional<Number>& out) {
  Number number = {};
  const auto [end, error] = std::from_chars(value.data(), value.data() + value.size(), number);
  if (error != std::errc() || end != value.data() + value.size()) {
    return invalid_argument(concat(name, " is '", value, "', which is no number that it can take"));
  }
  out = number;
  return ok_status();
}

// --name value, with a value that only some words fit.
Status set_word(std::string_view name, std::string_view value, std::initializer_list<std::string_view> allowed) {
  std::string list;
  for (const std::string_view word : allowed) {
    if (value == word) return ok_status();
    list += (list.empty() ? "" : ", ") + std::string(word);
  }
  return invalid_argument(concat(name, " is '", value, "'; it takes one of ", list));
}

Status set_option(std::string_view name, std::string_view value, Options& options) {
  ChatSettings& settings = options.settings;
  if (name == "--temperature") return set_number(name, value, settings.temperature);
  if (name == "--seed") return set_number(name, value, settings.seed);
  if (name == "--max-tokens") return set_number(name, value, settings.max_tokens);
  if (name == "--mode") {
    settings.mode = value;
    return set_word(name, value, {"parallel", "serial", "off"});
  }
  if (name == "--think") {
    settings.addition = value == "parallel" ? kParallel : kSequential;
    return set_word(name, value, {"parallel", "sequential"});
  }
  std::string& text = name == "--url"      ? options.url
                      : name == "--model"  ? options.model_dir
                      : name == "--system" ? settings.system
                                           : settings.api_key;
  text = value;
  if (value.empty()) return invalid_argument(concat(name, " is empty"));
  return ok_status();
}

bool takes_value(std::string_view name) {
  for (const std::string_view known :
       {"--url", "--model", "--mode", "--think", "--system", "--temperature", "--seed", "--max-tokens", "--api-key"}) {
    if (name == known) return true;
  }
  return false;
}

Result<Options> parse(std::span<const std::string_view> args) {
  Options options;
  if (const char* key = std::getenv("OPENAI_API_KEY"); key != nullptr) options.settings.api_key = key;
  bool only_question = false;
  for (std::size_t i = 0; i < args.size(); ++i) {
    const std::string_view arg = args[i];
    if (!only_question && arg == "--") {
      only_question = true;
    } else if (!only_question && arg == "--plain") {
      options.plain = true;
    } else if (!only_question && arg.size() > 1 && arg.front() == '-') {
      const std::string_view name = arg.substr(0, arg.find('='));
      if (!takes_value(name)) return invalid_argument(concat("unknown option ", name, "; see multiverse chat --help"));
      if (name.size() == arg.size() && i + 1 == args.size()) return invalid_argument(concat(name, " needs a value"));
      const std::string_view value = name.size() < arg.size() ? arg.substr(name.size() + 1) : args[++i];
      if (const Status set = set_option(name, value, options); !set.ok()) return set.error();
    } else if (options.has_question) {
      return invalid_argument("the question is more than one argument: put it in quotes");
    } else {
      options.has_question = true;
      options.question = arg;
    }
  }
  if (options.has_question && options.question.empty()) return invalid_argument("the question is empty");
  if (!options.url.empty() && !options.model_dir.empty()) {
    return invalid_argument("--url asks a running server, --model runs one here: give one of them");
  }
  return options;
}

// Lines of standard input. Unlike getline it sees that a signal came.
class LineReader {
 public:
  // The next line; nothing at the end of the input or after SIGINT.
  std::optional<std::string> next() {
    while (true) {
      const std::size_t end = held_.find('\n');
      if (end != std::string::npos || (at_end_ && !held_.empty())) {
        std::string line = held_.substr(0, end);
        held_.erase(0, end == std::string::npos ? held_.size() : end + 1);
        if (!line.empty() && line.back() == '\r') line.pop_back();
        return line;
      }
      if (at_end_) return std::nullopt;
      pollfd input = {STDIN_FILENO, POLLIN, 0};
      constexpr int kLookMilliseconds = 200;  // a signal may have come just before the wait
      const int ready = poll(&input, 1, kLookMilliseconds);
      if (interrupted()) return std::nullopt;
      if (ready > 0) fill();
    }
  }

 private:
  void fill() {
    char bytes[4096];
    const ssize_t count = read(STDIN_FILENO, bytes, sizeof bytes);
    if (count > 0) {
      held_.append(bytes, static_cast<std::size_t>(count));
    } else if (count == 0 || errno != EINTR) {
      at_end_ = true;
    }
  }

  std::string held_;
  bool at_end_ = false;
};

int fail(const Error& error, int exit_code) {
  std::fputs(concat("multiverse chat: ", for_terminal(error.message), "\n").c_str(), stderr);
  return exit_code;
}

int exit_code_of(const Error& error) {
  if (error.code != ErrorCode::kCancelled) return fail(error, 1);
  return interrupted() ? kInterruptedExit : 1;  // else nobody reads the answer any more
}

// Questions of standard input. A person may go on after an error, a script may not.
int converse(Conversation& conversation) {
  const bool person = isatty(STDIN_FILENO) == 1 && output_is_terminal();
  LineReader lines;
  while (true) {
    if (person && !write_out("> ")) return 1;
    const std::optional<std::string> question = lines.next();
    if (!question) break;
    if (question->find_first_not_of(" \t") == std::string::npos) continue;
    const Status answered = conversation.ask(*question);
    if (!answered.ok()) {
      const int code = exit_code_of(answered.error());
      const ErrorCode reason = answered.error().code;
      if (!person || reason == ErrorCode::kCancelled || reason == ErrorCode::kUnavailable) return code;
    } else if (!output_is_terminal()) {
      write_out("\n");  // between the answers
    }
  }
  if (person) write_out("\n");
  return interrupted() ? kInterruptedExit : 0;
}

int chat(Options options) {
  std::optional<LocalServer> server;
  if (options.url.empty()) {
    auto started = LocalServer::start(options.model_dir.empty() ? shipped_model_dir() : options.model_dir);
    if (!started.ok()) return fail(started.error(), 1);
    server.emplace(std::move(started).value());
    options.url = server->url();
  }
  // Clients of OpenAI's are given the address with /v1; here the paths have it.
  while (!options.url.empty() && options.url.back() == '/') options.url.pop_back();
  if (options.url.size() > 3 && options.url.substr(options.url.size() - 3) == "/v1") {
    options.url.resize(options.url.size() - 3);
  }
  auto client = HttpClient::open(options.url);
  if (!client.ok()) return fail(client.error(), 2);
  const bool live = output_is_terminal() && !options.plain;
  Conversation conversation(std::move(client).value(), std::move(options.settings), live);
  catch_interrupts();  // not before the model is loaded, which a signal may end at once
  if (!options.has_question) return converse(conversation);
  const Status answered = conversation.ask(options.question);
  if (!answered.ok()) return exit_code_of(answered.error());
  return 0;
}

}  // namespace

int chat_command(std::span<const std::string_view> args) {
  if (!args.empty() && (args[0] == "--help" || args[0] == "-h")) {
    std::fputs(kHelp, stdout);
    return 0;
  }
  Result<Options> options = parse(args);
  if (!options.ok()) return fail(options.error(), 2);
  try {
    return chat(std::move(options).value());
  } catch (const std::exception& failure) {
    return fail({ErrorCode::kInternal, failure.what(), "", ""}, 1);
  }
}

}  // namespace multiverse

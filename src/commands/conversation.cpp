#include "commands/conversation.h"

#include <sys/ioctl.h>
#include <unistd.h>

#include <chrono>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <nlohmann/json.hpp>

#include "multiverse/chat/live_view.h"
#include "multiverse/chat/terminal_text.h"

#include "commands/answer_stream.h"

namespace multiverse {
namespace {

constexpr std::chrono::milliseconds kFrame{50};

volatile std::sig_atomic_t interrupt_seen = 0;

TerminalSize terminal_size() {
  winsize size = {};
  if (ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) != 0 || size.ws_col == 0 || size.ws_row == 0) return {};
  return {size.ws_col, size.ws_row};
}

bool wants_colors() {
  const char* terminal = std::getenv("TERM");
  const char* refused = std::getenv("NO_COLOR");
  return (refused == nullptr || *refused == '\0') && terminal != nullptr && std::string_view(terminal) != "dumb";
}

Error cancelled() {
  return {ErrorCode::kCancelled, "interrupted", "", ""};
}

std::string figures(const AnswerCounts& counts, double seconds, bool cut_short) {
  const auto tokens = static_cast<double>(counts.completion_tokens);
  char text[256];
  std::string out = concat(counts.completion_tokens, " tokens");
  if (counts.critical_path_tokens > 0) {
    std::snprintf(text, sizeof text, " · critical path %lld · %.2f x",
                  static_cast<long long>(counts.critical_path_tokens),
                  tokens / static_cast<double>(counts.critical_path_tokens));
    out += concat(text, " · ", counts.steps, " steps");
  }
  std::snprintf(text, sizeof text, " · %.2f s · %.0f tokens/s", seconds, tokens / std::max(seconds, 1e-9));
  return out + text + (cut_short ? " · token limit reached" : "");
}

// The answer as it comes: frames of a live view, or the text alone.
class Output {
 public:
  explicit Output(bool live) : live_(live), terminal_(output_is_terminal()), view_(terminal_size(), wants_colors()) {}

  void add(const AnswerEvent& event) {
    if (!live_) {
      text_ += terminal_ ? for_terminal(event.content) : event.content;
      if (!event.content.empty()) at_line_start_ = event.content.back() == '\n';
    } else if (event.branch) {
      branches_ = true;
      view_.add(*event.branch);
    } else if (!branches_) {
      view_.add_text(event.content);
    }
  }
  bool write() {
    if (!live_) return write_out(std::exchange(text_, {}));
    view_.resize(terminal_size());
    return write_out(view_.frame());
  }
  bool finish() {
    view_.finish();
    // What follows on a terminal begins on a line of its own; a pipe gets the text alone.
    if (!live_ && terminal_ && !std::exchange(at_line_start_, true)) text_ += '\n';
    return write();
  }

 private:
  const bool live_, terminal_;
  bool branches_ = false, at_line_start_ = true;
  LiveView view_;
  std::string text_;
};

}  // namespace

Conversation::Conversation(std::unique_ptr<HttpClient> client, ChatSettings settings, bool live)
    : client_(std::move(client)), settings_(std::move(settings)), live_(live) {}

HttpPost Conversation::request(const std::string& question) const {
  using Json = nlohmann::ordered_json;
  const auto message = [](const char* role, const std::string& content) {
    return Json{{"role", role}, {"content", content}};
  };
  Json messages = Json::array();
  if (!settings_.system.empty()) messages.push_back(message("system", settings_.system));
  for (const auto& [asked, answered] : turns_) {
    messages.push_back(message("user", asked));
    messages.push_back(message("assistant", answered));
  }
  messages.push_back(message("user", question));
  Json body = {{"messages", std::move(messages)},
               {"stream", true},
               {"stream_options", {{"include_branches", live_}, {"include_usage", true}}}};
  if (!settings_.mode.empty()) body["multiverse"] = {{"mode", settings_.mode}};
  if (settings_.temperature) body["temperature"] = *settings_.temperature;
  if (settings_.seed) body["seed"] = *settings_.seed;
  if (settings_.max_tokens) body["max_tokens"] = *settings_.max_tokens;
  HttpPost post{"/v1/chat/completions", body.dump(-1, ' ', false, Json::error_handler_t::replace), {}};
  post.headers.emplace_back("Content-Type", "application/json");
  if (!settings_.api_key.empty()) post.headers.emplace_back("Authorization", "Bearer " + settings_.api_key);
  return post;
}

Status Conversation::ask(const std::string& question) {
  const std::string asked = question + settings_.addition;
  answer_.clear();
  finish_reason_.clear();
  counts_ = {};
  const auto begin = std::chrono::steady_clock::now();
  Status received = receive(request(asked));
  if (!received.ok()) return received;
  const std::chrono::duration<double> took = std::chrono::steady_clock::now() - begin;
  turns_.emplace_back(asked, answer_);
  const std::string line = figures(counts_, took.count(), finish_reason_ == "length");
  if (live_) {
    write_out(wants_colors() ? concat("\x1b[2m", line, "\x1b[0m\n") : line + "\n");
  } else {
    std::fputs((line + "\n").c_str(), stderr);
  }
  return ok_status();
}

Status Conversation::receive(HttpPost request) {
  Output output(live_);
  AnswerStream stream(*client_, std::move(request));
  std::vector<AnswerEvent> events;
  bool more = true;
  while (more) {
    events.clear();
    // Text alone goes out as it comes; frames are drawn at most every 50 ms.
    more = stream.take(events, kFrame, /*at_once=*/!live_);
    for (const AnswerEvent& event : events) {
      answer_ += event.content;
      if (!event.finish_reason.empty()) finish_reason_ = event.finish_reason;
      if (event.counts) counts_ = *event.counts;
      output.add(event);
    }
    const bool written = more ? output.write() : output.finish();
    if (!written || interrupted()) {
      output.finish();
      return cancelled();
    }
  }
  return stream.outcome();
}

void catch_interrupts() {
  struct sigaction action = {};
  action.sa_handler = [](int) { interrupt_seen = 1; };
  sigaction(SIGINT, &action, nullptr);
  std::signal(SIGPIPE, SIG_IGN);
}

bool interrupted() {
  return interrupt_seen != 0;
}

bool write_out(std::string_view text) {
  return std::fwrite(text.data(), 1, text.size(), stdout) == text.size() && std::fflush(stdout) == 0;
}

bool output_is_terminal() {
  return isatty(STDOUT_FILENO) == 1;
}

}  // namespace multiverse

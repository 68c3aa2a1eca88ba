// Questions and answers with a server, shown on a terminal or written to a pipe.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "multiverse/base/status.h"
#include "multiverse/chat/answer_event.h"
#include "multiverse/http/client.h"

namespace multiverse {

// How to ask. What is absent is left to the server.
struct ChatSettings {
  std::string mode;      // "parallel", "serial", "off"
  std::string addition;  // after each question
  std::string system;
  std::string api_key;
  std::optional<double> temperature;
  std::optional<std::int64_t> seed, max_tokens;
};

// One thread. SIGINT ends an answer once catch_interrupts() has been called.
class Conversation {
 public:
  // `live`: standard output is a terminal that shows the branches as they write; else it gets the answer's text.
  Conversation(std::unique_ptr<HttpClient> client, ChatSettings settings, bool live);

  // Asks, and writes the answer to standard output as it comes. Then a line of figures, to standard error unless live.
  // The turn is kept for the next question unless it failed. kCancelled: SIGINT, or standard output is closed.
  Status ask(const std::string& question);

 private:
  HttpPost request(const std::string& question) const;
  Status receive(HttpPost request);

  std::unique_ptr<HttpClient> client_;
  const ChatSettings settings_;
  const bool live_;
  std::vector<std::pair<std::string, std::string>> turns_;  // question with its addition, answer
  std::string answer_;
  std::string finish_reason_;
  AnswerCounts counts_;
};

// From now on SIGINT only says so to interrupted(), and a closed pipe is an error of the write.
void catch_interrupts();
bool interrupted();

// Writes to standard output at once; false where that can't be.
bool write_out(std::string_view text);
bool output_is_terminal();

}  // namespace multiverse

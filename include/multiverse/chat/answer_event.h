// What the events of a streamed chat answer say, read from a server that need not be ours.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "multiverse/base/status.h"

namespace multiverse {

// News of one branch (docs/api.md, include_branches).
struct BranchUpdate {
  enum class Kind { kFork, kToken, kEnd, kJoin };
  Kind kind = Kind::kToken;
  std::string id;     // the branch's address; "" is the root
  std::string label;  // of a path
  std::string text;   // kToken only
  std::int64_t tokens = 0;
};

struct AnswerCounts {
  std::int64_t completion_tokens = 0;
  std::int64_t critical_path_tokens = 0, steps = 0, paths = 0;  // 0 where the server doesn't tell
};

// One event; whatever it doesn't have is empty.
struct AnswerEvent {
  std::string content;  // the next piece of the answer, in canonical order
  std::optional<BranchUpdate> branch;
  std::optional<AnswerCounts> counts;
  std::string finish_reason;
  std::string error;  // the stream failed; the server's message
};

// Reads an event's data. What is not a JSON object is an error; fields of other types than ours count as absent.
Result<AnswerEvent> read_answer_event(std::string_view data);

// The message of an error body of OpenAI's shape; another body's first line.
std::string read_error_message(std::string_view body);

}  // namespace multiverse

// A request for generation, read and checked: what goes to the engine, and how the answer is to look.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "multiverse/api/served_model.h"
#include "multiverse/api/tool_format.h"
#include "multiverse/base/status.h"
#include "multiverse/scheduler/request.h"

namespace multiverse {

// What is looked for in a chat's answers.
struct ToolReading {
  ToolFormat format = ToolFormat::kNone;  // kNone: calls stay text
  std::vector<std::string> names;         // of the tools
  std::int32_t most = 1;                  // calls of one answer; more are left out
};

struct Job {
  bool chat = false;                      // /v1/chat/completions, else /v1/completions
  std::vector<GenerateRequest> requests;  // one a prompt
  std::vector<std::string> stops;         // 1 to 256 bytes each

  bool stream = false;
  bool include_usage = false;
  bool continuous_usage = false;  // in every chunk of a stream, as far as it has come
  bool include_branches = false;

  bool logprobs = false;         // of generated tokens, and of the prompt's where `echo`
  bool prompt_logprobs = false;  // a field of its own
  std::int32_t top_logprobs = 0, top_prompt_logprobs = 0;
  bool return_token_ids = false;
  bool echo = false;
  bool include_stop = false;     // the text ends with the stop string or token that ended it
  bool split_reasoning = false;  // chat: thoughts have a field of their own
  ToolReading tools;             // chat
  bool takes_reply_apart() const { return split_reasoning || tools.format != ToolFormat::kNone; }
  bool discard_output = false;  // max_tokens 0: the engine draws one token, the answer has none

  std::vector<std::string> ignored_params;  // fields that no one knows, as dotted names
};

// Bodies of the two endpoints. The error names the field at fault; nothing of the body is kept elsewhere. Any thread.
Result<Job> parse_chat_request(std::string_view body, const ServedModel& model);
Result<Job> parse_completion_request(std::string_view body, const ServedModel& model);

// Limits of requests that no configuration changes (docs/api.md).
inline constexpr std::size_t kMaxMessages = 4096;
inline constexpr std::size_t kMaxPrompts = 8;
inline constexpr std::size_t kMaxStopBytes = 256;
inline constexpr std::size_t kMaxStopTokens = 64;
inline constexpr std::size_t kMaxLogitBias = 1024;
inline constexpr std::int64_t kMaxTopLogprobs = 20;
inline constexpr std::size_t kMaxCacheSaltBytes = 256;
inline constexpr std::size_t kMaxTools = 128;
inline constexpr std::int32_t kMaxToolCalls = 16;  // of one answer
inline constexpr std::size_t kMaxToolNameBytes = 64;

}  // namespace multiverse

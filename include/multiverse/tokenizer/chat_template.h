// Chat templates: the Jinja subset that model templates use, with strings that remember who wrote them.
#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "multiverse/base/status.h"
#include "multiverse/tokenizer/span.h"

namespace multiverse {

struct ChatMessage {
  std::string role;               // "system", "developer", "user", "assistant", "tool"
  std::string content;            // text; trust follows from the role: assistant kDialect, all others kNone
  std::string reasoning_content;  // assistant only; "" where none
  std::string tool_calls_json;    // assistant only: a JSON array as OpenAI has it, "" where none
  std::string tool_call_id;       // tool only
  std::string name;
};

struct ChatTemplateInput {
  std::vector<ChatMessage> messages;
  std::string tools_json;   // JSON array of tool schemas (trust kNone), "" where none
  std::string kwargs_json;  // JSON object of extra variables (`enable_thinking`), values trusted kNone; "" where none
  bool add_generation_prompt = true;
};

// Immutable after parse; render from any thread at once.
class ChatTemplate {
 public:
  // An unsupported construct is named with its line.
  static Result<std::shared_ptr<const ChatTemplate>> parse(std::string_view source, std::string bos_token,
                                                           std::string eos_token);
  // DIR/chat_template.jinja, else `chat_template` in DIR/tokenizer_config.json (a string, or the list's "default").
  static Result<std::shared_ptr<const ChatTemplate>> load(const std::string& model_dir);

  virtual ~ChatTemplate() = default;

  // Bounded in steps and output, so that no input can hang it. raise_exception() of the template → kInvalidArgument
  // with its message, param "messages".
  virtual Result<TrustedText> render(const ChatTemplateInput& input) const = 0;

  // Whether the template mentions a variable of that name.
  virtual bool mentions(std::string_view variable) const = 0;
};

}  // namespace multiverse

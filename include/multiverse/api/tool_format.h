// How a family of models writes tool calls.
#pragma once

#include "multiverse/tokenizer/chat_template.h"

namespace multiverse {

enum class ToolFormat {
  kNone,   // the model's chat template has no place for tools
  kQwen,   // <tool_call>⏎{"name": …, "arguments": {…}}⏎</tool_call>, anywhere in the answer
  kLlama,  // {"name": …, "parameters": {…}} as the whole answer
};

// What the template writes for a call in the history; kNone where it shows no tools, or writes calls in another way.
ToolFormat detect_tool_format(const ChatTemplate& chat_template);

}  // namespace multiverse

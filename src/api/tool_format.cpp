#include "multiverse/api/tool_format.h"

namespace multiverse {
namespace {

std::string text_of(const ChatTemplate& chat_template, const ChatTemplateInput& input) {
  const auto rendered = chat_template.render(input);
  std::string text;
  if (!rendered.ok()) return text;
  for (const TextSpan& span : rendered.value()) text += span.text;
  return text;
}

bool has(const std::string& text, const char* part) {
  return text.find(part) != std::string::npos;
}

}  // namespace

ToolFormat detect_tool_format(const ChatTemplate& chat_template) {
  ChatMessage user;
  user.role = "user";
  user.content = "question";
  ChatTemplateInput offered{{user}, "", "", true};
  offered.tools_json =
      R"([{"type": "function", "function": {"name": "probe_tool", "description": "A probe.", "parameters":
      {"type": "object", "properties": {"x": {"type": "integer"}}}}}])";
  if (!has(text_of(chat_template, offered), "probe_tool")) return ToolFormat::kNone;

  ChatMessage call;
  call.role = "assistant";
  call.tool_calls_json =
      R"([{"id": "call_0", "type": "function", "function": {"name": "probe_tool", "arguments": "{\"x\": 1}"}}])";
  const std::string said = text_of(chat_template, {{user, call}, "", "", false});
  if (has(said, "<tool_call>\n{\"name\": \"probe_tool\", \"arguments\": {")) return ToolFormat::kQwen;
  if (has(said, "{\"name\": \"probe_tool\", \"parameters\": {")) return ToolFormat::kLlama;
  return ToolFormat::kNone;
}

}  // namespace multiverse

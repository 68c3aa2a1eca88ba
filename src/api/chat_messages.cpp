#include "api/chat_messages.h"

#include <algorithm>
#include <array>
#include <utility>

#include "multiverse/api/job.h"

namespace multiverse {
namespace {

constexpr std::size_t kNoLimit = std::numeric_limits<std::size_t>::max();  // the body's size is bounded
constexpr std::size_t kMaxTemplateArguments = 32;

// Text parts are joined with nothing between them, as templates that loop over parts do.
std::string read_content(FieldReader& message) {
  const Json* content = message.find("content");
  if (content == nullptr) return "";
  if (content->is_string()) return content->get<std::string>();
  if (!content->is_array()) {
    message.fail_value("content", *content, "a string or an array of text parts is wanted");
    return "";
  }
  std::string text;
  for (const Json& part : *content) {
    const bool is_text =
        part.is_object() && part.value("type", Json()) == "text" && part.contains("text") && part["text"].is_string();
    if (!is_text) {
      message.fail(invalid_argument(concat("'", message.full_name("content"),
                                           "' has a part that is not {\"type\": \"text\", \"text\": …}; this "
                                           "server reads text only"),
                                    message.full_name("content")));
      return "";
    }
    text += part["text"].get_ref<const std::string&>();
  }
  return text;
}

bool is_role(const std::string& role) {
  static constexpr std::array<std::string_view, 5> kRoles{"system", "developer", "user", "assistant", "tool"};
  return std::find(kRoles.begin(), kRoles.end(), role) != kRoles.end();
}

// Calls of an earlier answer, as the API gave them.
std::string read_tool_calls(FieldReader& message) {
  const Json* calls = message.array("tool_calls", kMaxTools);
  if (calls == nullptr || calls->empty()) return "";
  const auto is_text = [](const Json& object, const char* name) {
    return object.contains(name) && object[name].is_string();
  };
  for (const Json& call : *calls) {
    const bool is_call = call.is_object() && call.value("type", Json("function")) == "function" &&
                         call.contains("function") && call["function"].is_object() &&
                         is_text(call["function"], "name") && is_text(call["function"], "arguments");
    if (is_call) continue;
    message.fail(invalid_argument(concat("'", message.full_name("tool_calls"),
                                         "' has an entry that is not {\"id\": …, \"type\": \"function\", "
                                         "\"function\": {\"name\": …, \"arguments\": \"…\"}}"),
                                  message.full_name("tool_calls")));
    return "";
  }
  return calls->dump();
}

ChatMessage read_message(FieldReader& fields) {
  ChatMessage message;
  message.role = fields.text("role", 64).value_or("");
  if (!is_role(message.role)) {
    fields.fail(
        invalid_argument(concat("'", fields.full_name("role"), "' must be system, developer, user, assistant or tool"),
                         fields.full_name("role")));
  }
  message.content = read_content(fields);
  message.name = fields.text("name", 256).value_or("");
  if (message.role == "assistant") {
    message.reasoning_content = fields.text("reasoning_content", kNoLimit).value_or("");
    const auto other_name = fields.text("reasoning", kNoLimit);
    if (message.reasoning_content.empty() && other_name) message.reasoning_content = *other_name;
    message.tool_calls_json = read_tool_calls(fields);
  }
  if (message.role == "tool") message.tool_call_id = fields.text("tool_call_id", 256).value_or("");
  const bool may_be_empty = message.role == "assistant";
  if (fields.find("content") == nullptr && !may_be_empty) {
    fields.fail(
        invalid_argument(concat("'", fields.full_name("content"), "' is missing"), fields.full_name("content")));
  }
  return message;
}

// Variables of the template that a request may not set: they are the request itself, or the model's.
bool is_reserved(const std::string& name) {
  static constexpr std::array<std::string_view, 10> kReserved{
      "messages",  "tools",     "documents", "add_generation_prompt", "continue_final_message",
      "bos_token", "eos_token", "tokenize",  "raise_exception",       "strftime_now"};
  return std::find(kReserved.begin(), kReserved.end(), name) != kReserved.end();
}

bool is_identifier(const std::string& name) {
  const auto is_letter = [](char c) { return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_'; };
  const auto is_inner = [&](char c) { return is_letter(c) || (c >= '0' && c <= '9'); };
  return !name.empty() && name.size() <= 64 && is_letter(name[0]) && std::all_of(name.begin(), name.end(), is_inner);
}

std::string read_template_arguments(FieldReader& fields, const ServedModel& model) {
  const Json* arguments = fields.object("chat_template_kwargs");
  if (arguments == nullptr || arguments->empty()) return "";
  if (arguments->size() > kMaxTemplateArguments) {
    fields.fail_value("chat_template_kwargs", *arguments, concat("at most ", kMaxTemplateArguments, " are allowed"));
  }
  for (const auto& [name, value] : arguments->items()) {
    if (is_reserved(name) || !is_identifier(name)) {
      fields.fail(invalid_argument(
          concat("'chat_template_kwargs' may not set '", name.substr(0, 64), "', only variables of the template's own"),
          "chat_template_kwargs"));
    } else if (model.chat_template != nullptr && !model.chat_template->mentions(name)) {
      fields.fail(invalid_argument(
          concat("'chat_template_kwargs' has '", name, "', a variable that the model's template doesn't use"),
          "chat_template_kwargs"));
    }
  }
  return arguments->dump();
}

}  // namespace

ChatTemplateInput read_chat_input(FieldReader& fields, const ServedModel& model, std::vector<std::string>& ignored) {
  ChatTemplateInput input;
  const Json* messages = fields.array("messages", kMaxMessages);
  if (messages == nullptr || messages->empty()) {
    fields.fail(invalid_argument("'messages' must hold at least one message", "messages"));
    return input;
  }
  std::vector<std::string> unknown;
  for (std::size_t i = 0; i < messages->size() && fields.ok(); ++i) {
    const Json& entry = (*messages)[i];
    if (!entry.is_object()) {
      fields.fail_value("messages", entry, "objects are wanted");
      break;
    }
    FieldReader reader(entry, concat("messages[", i, "]."));
    reader.find("refusal");      // of OpenAI's answers, null or text that no template reads
    reader.find("annotations");  // the same
    input.messages.push_back(read_message(reader));
    if (!reader.ok()) fields.fail(reader.error());
    reader.collect_unknown(unknown);
  }
  ignored.insert(ignored.end(), unknown.begin(), unknown.end());
  input.kwargs_json = read_template_arguments(fields, model);
  input.add_generation_prompt = fields.boolean("add_generation_prompt").value_or(true);
  return input;
}

}  // namespace multiverse

// Renders chat templates for tests: JSON lines {template, messages, tools, add_generation_prompt, kwargs, bos_token,
// eos_token} in (messages as transformers has them), JSON lines {text, spans: [[trust, text]…]} or {error} out.
#include <iostream>
#include <map>
#include <nlohmann/json.hpp>
#include <string>

#include "multiverse/tokenizer/chat_template.h"

namespace {

using Json = nlohmann::ordered_json;

std::string text_of(const Json& object, const char* key) {
  const auto found = object.find(key);
  return found == object.end() || found->is_null() ? std::string() : found->get<std::string>();
}

std::string json_of(const Json& object, const char* key) {
  const auto found = object.find(key);
  return found == object.end() || found->is_null() ? std::string() : found->dump();
}

multiverse::ChatTemplateInput input_of(const Json& request) {
  multiverse::ChatTemplateInput input;
  for (const Json& message : request.at("messages")) {
    input.messages.push_back({text_of(message, "role"), text_of(message, "content"),
                              text_of(message, "reasoning_content"), json_of(message, "tool_calls"),
                              text_of(message, "tool_call_id"), text_of(message, "name")});
  }
  input.tools_json = json_of(request, "tools");
  input.kwargs_json = json_of(request, "kwargs");
  input.add_generation_prompt = request.value("add_generation_prompt", false);
  return input;
}

Json answer(const Json& request) {
  // Tests render one template many times.
  static std::map<std::string, multiverse::Result<std::shared_ptr<const multiverse::ChatTemplate>>> parsed;
  const std::string source = text_of(request, "template");
  const std::string bos = text_of(request, "bos_token"), eos = text_of(request, "eos_token");
  const std::string key = Json{source, bos, eos}.dump();
  const auto found = parsed.try_emplace(key, multiverse::ChatTemplate::parse(source, bos, eos)).first;
  if (!found->second.ok()) return {{"error", found->second.error().message}};
  const auto rendered = found->second.value()->render(input_of(request));
  if (!rendered.ok()) return {{"error", rendered.error().message}};
  std::string text;
  Json spans = Json::array();
  for (const multiverse::TextSpan& span : rendered.value()) {
    text += span.text;
    spans.push_back({static_cast<int>(span.trust), span.text});
  }
  return {{"text", text}, {"spans", spans}};
}

}  // namespace

int main() {
  std::string line;
  while (std::getline(std::cin, line)) {
    std::cout << answer(Json::parse(line)).dump(-1, ' ', false, Json::error_handler_t::replace) << '\n';
  }
  return 0;
}

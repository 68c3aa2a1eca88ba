// Chat templates of strangers: refused, or rendered within their bounds, and a user's text keeps its author.
#include <cstdint>
#include <string>
#include <string_view>

#include "multiverse/base/check.h"
#include "multiverse/tokenizer/chat_template.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace multiverse;
  const std::string_view source(reinterpret_cast<const char*>(data), size);
  const auto parsed = ChatTemplate::parse(source, "<s>", "</s>");
  if (!parsed.ok()) {
    CHECK(!parsed.error().message.empty(), "a refusal says nothing");
    return 0;
  }
  ChatTemplateInput input;
  for (const char* role : {"system", "user", "assistant", "user"}) {
    ChatMessage message;
    message.role = role;
    message.content = std::string("\x01") + role;  // a byte that no template is likely to write
    input.messages.push_back(message);
  }
  input.kwargs_json = R"({"enable_thinking": true})";
  const auto rendered = parsed.value()->render(input);
  if (!rendered.ok()) return 0;
  std::size_t bytes = 0;
  for (const TextSpan& span : rendered.value()) {
    bytes += span.text.size();
    const bool of_user = source.find('\x01') == std::string_view::npos &&
                         source.find("\\x") == std::string_view::npos && source.find("\\u") == std::string_view::npos &&
                         source.find("\\0") == std::string_view::npos &&
                         span.text.find("\x01user") != std::string::npos;
    CHECK(!of_user || span.trust == Trust::kNone, "a user's text was taken for the template's own");
  }
  CHECK(bytes <= (std::size_t{64} << 20U), "a template wrote ", bytes, " bytes");
  return 0;
}

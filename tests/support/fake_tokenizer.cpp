#include "support/fake_tokenizer.h"

#include <algorithm>
#include <array>

namespace multiverse::testing {
namespace {

constexpr std::array<std::string_view, 13> kAdded{
    "<|im_end|>",   "<|im_start|>",  "<Parallel>",  "<Goal>",  "</Goal>",  "<Path>", "</Path>",
    "<Conclusion>", "</Conclusion>", "</Parallel>", "<Think>", "</Think>", "Hello"};
constexpr std::int32_t kSize = 256 + static_cast<std::int32_t>(kAdded.size());

class FakeTokenizer final : public Tokenizer {
 public:
  FakeTokenizer() {
    for (int byte = 0; byte < 256; ++byte) bytes_.push_back(static_cast<char>(byte));
  }

  std::vector<std::int32_t> encode(const TrustedText& text,
                                   const std::vector<std::int32_t>& dialect_tokens) const override {
    std::vector<std::int32_t> ids;
    for (const TextSpan& span : text) {
      for (std::size_t at = 0; at < span.text.size();) {
        const std::int32_t added = added_at(span, at, dialect_tokens);
        ids.push_back(added >= 0 ? added : static_cast<unsigned char>(span.text[at]));
        at += token_bytes(ids.back()).size();
      }
    }
    return ids;
  }

  std::string_view token_bytes(std::int32_t id) const override {
    if (id < 0 || id >= kSize) return "";
    const auto index = static_cast<std::size_t>(id);
    return index < 256 ? std::string_view(bytes_).substr(index, 1) : kAdded[index - 256];
  }
  bool is_special(std::int32_t id) const override { return id >= 256 && id != kHello; }
  std::optional<std::int32_t> token_id(std::string_view content) const override {
    for (std::int32_t id = kSize - 1; id >= 0; --id) {
      if (token_bytes(id) == content) return id;
    }
    return std::nullopt;
  }
  std::int32_t size() const override { return kSize; }

 private:
  static std::int32_t added_at(const TextSpan& span, std::size_t at, const std::vector<std::int32_t>& dialect_tokens) {
    for (std::size_t i = 0; i < kAdded.size(); ++i) {
      const auto id = static_cast<std::int32_t>(256 + i);
      const bool allowed = span.trust == Trust::kAll ||
                           (span.trust == Trust::kDialect &&
                            std::find(dialect_tokens.begin(), dialect_tokens.end(), id) != dialect_tokens.end());
      if (allowed && span.text.compare(at, kAdded[i].size(), kAdded[i]) == 0) return id;
    }
    return -1;
  }

  std::string bytes_;
};

// <|im_start|>ROLE⏎CONTENT<|im_end|>⏎ for each message.
class FakeTemplate final : public ChatTemplate {
 public:
  Result<TrustedText> render(const ChatTemplateInput& input) const override {
    TrustedText out;
    if (!input.tools_json.empty()) out.push_back({"# tools " + input.tools_json + "\n", Trust::kNone});
    for (const ChatMessage& message : input.messages) {
      if (message.content == "raise") return invalid_argument("the template refuses these messages", "messages");
      out.push_back({"<|im_start|>" + message.role + "\n", Trust::kAll});
      out.push_back({message.content, message.role == "assistant" ? Trust::kDialect : Trust::kNone});
      if (!message.tool_calls_json.empty()) out.push_back({message.tool_calls_json, Trust::kNone});
      out.push_back({"<|im_end|>\n", Trust::kAll});
    }
    if (!input.kwargs_json.empty()) out.push_back({input.kwargs_json, Trust::kNone});
    if (input.add_generation_prompt) out.push_back({"<|im_start|>assistant\n", Trust::kAll});
    return out;
  }
  bool mentions(std::string_view variable) const override { return variable == "style"; }
};

}  // namespace

std::vector<TokenId> bytes_of(std::string_view text) {
  std::vector<TokenId> ids;
  for (const char c : text) ids.push_back(static_cast<unsigned char>(c));
  return ids;
}

std::shared_ptr<ServedModel> fake_model() {
  auto model = std::make_shared<ServedModel>();
  model->names = {"fake-model", "fake"};
  model->created = 1'700'000'000;
  model->tokenizer = std::make_shared<FakeTokenizer>();
  model->chat_template = std::make_shared<FakeTemplate>();
  Dialect dialect;
  dialect.name = "fake";
  for (TokenId id = kParallel; id <= kThinkEnd; ++id) dialect.control_tokens.push_back(id);
  dialect.think_open = kThink;
  dialect.think_close = kThinkEnd;
  model->dialect = dialect;
  model->vocab_size = kSize;
  model->max_model_len = 4096;
  model->tool_format = ToolFormat::kQwen;
  model->constraints =
      ConstraintCompiler::make(*model->tokenizer, dialect.control_tokens, {kEndOfTurn}, kSize, {kThink, kThinkEnd});
  return model;
}

}  // namespace multiverse::testing

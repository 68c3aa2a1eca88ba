#include "multiverse/api/endpoints.h"

#include <algorithm>
#include <utility>

#include "api/chat_messages.h"
#include "api/common_fields.h"
#include "api/output_fields.h"
#include "api/prompt.h"
#include "api/token_text.h"

namespace multiverse {
namespace {

constexpr std::size_t kNoLimit = std::numeric_limits<std::size_t>::max();  // the body's size is bounded

OrderedJson model_entry(const ServedModel& model, const std::string& name) {
  return {{"id", name},
          {"object", "model"},
          {"created", model.created},
          {"owned_by", "multiverse"},
          {"max_model_len", model.max_model_len}};
}

}  // namespace

std::string models_body(const ServedModel& model) {
  OrderedJson data = OrderedJson::array();
  for (const std::string& name : model.names) data.push_back(model_entry(model, name));
  return dump({{"object", "list"}, {"data", std::move(data)}});
}

Result<std::string> model_body(const ServedModel& model, std::string_view id) {
  const auto found = std::find(model.names.begin(), model.names.end(), id);
  if (found != model.names.end()) return dump(model_entry(model, *found));
  return Error{ErrorCode::kNotFound, concat("the model '", id.substr(0, 128), "' is not served here"), "model",
               "model_not_found"};
}

Result<std::string> tokenize_body(std::string_view request, const ServedModel& model) {
  const auto parsed = parse_body(request, model);
  if (!parsed.ok()) return parsed.error();
  FieldReader fields(parsed.value());
  const auto text = fields.text("prompt", kNoLimit);
  const bool parse_special = fields.boolean("parse_special").value_or(true);
  const bool strings = fields.boolean("return_token_strs").value_or(false);
  std::vector<TokenId> tokens;
  if (text) {
    tokens = model.tokenizer->encode(*text, parse_special ? Trust::kAll : Trust::kNone);
  } else {
    std::vector<std::string> ignored;
    if (fields.find("messages") == nullptr) {
      fields.fail(invalid_argument("give 'prompt' (a string) or 'messages'", "prompt"));
    }
    ChatTemplateInput input = read_chat_input(fields, model, ignored);
    input.tools_json = read_tools(fields, request, model, ignored).shown;
    if (!fields.ok()) return fields.error();
    auto prompt = render_prompt(model, input);
    if (!prompt.ok()) return prompt.error();
    tokens = std::move(prompt).value().tokens;
  }
  if (!fields.ok()) return fields.error();
  OrderedJson body = {{"count", tokens.size()}, {"max_model_len", model.max_model_len}, {"tokens", tokens}};
  if (strings) {
    OrderedJson list = OrderedJson::array();
    for (const TokenId token : tokens) list.push_back(token_text(model, token));
    body["token_strs"] = std::move(list);
  }
  return dump(body);
}

Result<std::string> detokenize_body(std::string_view request, const ServedModel& model) {
  const auto parsed = parse_body(request, model);
  if (!parsed.ok()) return parsed.error();
  FieldReader fields(parsed.value());
  const Json* ids = fields.array("tokens", kNoLimit);
  if (ids == nullptr) fields.fail(invalid_argument("'tokens' is missing", "tokens"));
  std::vector<TokenId> tokens;
  for (std::size_t i = 0; fields.ok() && i < ids->size(); ++i) {
    const auto id = exact_integer((*ids)[i]);
    if (!id || *id < 0 || *id >= model.vocab_size) {
      fields.fail_value("tokens", (*ids)[i], concat("token ids from 0 to ", model.vocab_size - 1, " are wanted"));
    } else {
      tokens.push_back(static_cast<TokenId>(*id));
    }
  }
  if (!fields.ok()) return fields.error();
  return dump({{"prompt", tokens_text(model, tokens)}});
}

Result<std::string> render_body(std::string_view request, const ServedModel& model) {
  const auto parsed = parse_body(request, model);
  if (!parsed.ok()) return parsed.error();
  FieldReader fields(parsed.value());
  std::vector<std::string> ignored;
  ChatTemplateInput input = read_chat_input(fields, model, ignored);
  input.tools_json = read_tools(fields, request, model, ignored).shown;
  if (!fields.ok()) return fields.error();
  const auto prompt = render_prompt(model, input);
  if (!prompt.ok()) return prompt.error();
  return dump({{"prompt", prompt.value().text},
               {"prompt_token_ids", prompt.value().tokens},
               {"count", prompt.value().tokens.size()}});
}

std::string version_body(std::string_view version) {
  return dump({{"version", version}});
}

std::string status_body(std::string_view status) {
  return dump({{"status", status}});
}

}  // namespace multiverse

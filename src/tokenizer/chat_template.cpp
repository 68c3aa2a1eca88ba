#include "multiverse/tokenizer/chat_template.h"

#include <array>
#include <fstream>
#include <map>
#include <sstream>

#include "multiverse/base/check.h"

#include "tokenizer/jinja_interpreter.h"
#include "tokenizer/jinja_json.h"
#include "tokenizer/jinja_parser.h"

namespace multiverse {
namespace {

using jinja::TemplateError;
using jinja::Value;

// As transformers passes them where tokenizer_config.json has them (its SPECIAL_TOKENS_ATTRIBUTES).
constexpr std::array<std::string_view, 7> kSpecialTokens = {"bos_token", "eos_token", "unk_token", "sep_token",
                                                            "pad_token", "cls_token", "mask_token"};
using SpecialTokens = std::map<std::string, std::string, std::less<>>;

// A request's own variables cannot take the place of these.
constexpr std::array<std::string_view, 9> kReserved = {
    "messages",  "tools",        "documents", "add_generation_prompt", "raise_exception", "range",
    "namespace", "strftime_now", "dict"};

// What one request brings, as values, and how much of it there is.
struct Variables {
  std::vector<std::pair<std::string, Value>> values;
  std::size_t num_values = 0, num_bytes = 0;
};

std::string with_line(const TemplateError& error) {
  return error.line > 0 ? concat("line ", error.line, ": ", error.what()) : std::string(error.what());
}

Value text_value(std::string_view bytes, Trust trust) {
  return std::make_shared<const jinja::Text>(bytes, trust);
}

// `text` as JSON under the name of the request's field.
Value parse_field(std::string_view text, const char* field, Variables& into) {
  try {
    jinja::JsonValue parsed = jinja::parse_json(text, Trust::kNone);
    into.num_values += parsed.count;
    into.num_bytes += text.size();
    return std::move(parsed.value);
  } catch (const TemplateError& error) {
    throw TemplateError(TemplateError::Kind::kRuntime, concat("'", field, "' ", error.what()));
  }
}

Value with_entry(const jinja::Dict& dict, std::string_view key, Value value) {
  auto entries = dict.entries;
  entries.emplace_back(text_value(key, Trust::kNone), std::move(value));
  return jinja::make_dict(std::move(entries));
}

// OpenAI has a call's arguments as a string of JSON, templates expect the object. A string that is no JSON stays.
Value with_argument_objects(const Value& calls, Variables& into) {
  const jinja::Sequence* list = calls.sequence();
  if (list == nullptr) throw TemplateError(TemplateError::Kind::kRuntime, "'tool_calls' is not a list");
  std::vector<Value> out;
  for (const Value& call : list->items) {
    const jinja::Dict* dict = call.dict();
    const Value* function = dict == nullptr ? nullptr : dict->find("function");
    const Value* arguments =
        function == nullptr || function->dict() == nullptr ? nullptr : function->dict()->find("arguments");
    out.push_back(call);
    if (arguments == nullptr || arguments->text() == nullptr) continue;
    try {
      jinja::JsonValue parsed = jinja::parse_json(arguments->text()->bytes(), Trust::kNone);
      into.num_values += parsed.count;
      out.back() = with_entry(*dict, "function", with_entry(*function->dict(), "arguments", std::move(parsed.value)));
    } catch (const TemplateError&) {
      // Not JSON: the template gets what the client sent.
    }
  }
  return jinja::make_list(std::move(out));
}

Value message_value(const ChatMessage& message, Variables& into) {
  const Trust trust = message.role == "assistant" ? Trust::kDialect : Trust::kNone;
  std::vector<std::pair<Value, Value>> entries;
  const auto add = [&](std::string_view key, Value value) {
    entries.emplace_back(text_value(key, Trust::kNone), std::move(value));
  };
  add("role", text_value(message.role, Trust::kNone));
  add("content", text_value(message.content, trust));
  if (!message.reasoning_content.empty()) add("reasoning_content", text_value(message.reasoning_content, trust));
  if (!message.tool_calls_json.empty()) {
    add("tool_calls", with_argument_objects(parse_field(message.tool_calls_json, "tool_calls", into), into));
  }
  if (!message.tool_call_id.empty()) add("tool_call_id", text_value(message.tool_call_id, Trust::kNone));
  if (!message.name.empty()) add("name", text_value(message.name, Trust::kNone));
  into.num_values += entries.size();
  into.num_bytes += message.content.size() + message.reasoning_content.size();
  return jinja::make_dict(std::move(entries));
}

void add_kwargs(const std::string& kwargs_json, const SpecialTokens& tokens, Variables& into) {
  const Value kwargs = parse_field(kwargs_json, "chat_template_kwargs", into);
  if (kwargs.dict() == nullptr) {
    throw TemplateError(TemplateError::Kind::kRuntime, "'chat_template_kwargs' is not an object");
  }
  for (const auto& [key, value] : kwargs.dict()->entries) {
    const std::string& name = key.text()->bytes();
    if (tokens.count(name) > 0 || std::find(kReserved.begin(), kReserved.end(), name) != kReserved.end() ||
        std::find(kSpecialTokens.begin(), kSpecialTokens.end(), name) != kSpecialTokens.end()) {
      throw TemplateError(TemplateError::Kind::kRuntime,
                          concat("'chat_template_kwargs' cannot set '", name, "', which the server sets itself"));
    }
    into.values.emplace_back(name, value);
  }
}

// The field that a failure in preparing the variables names.
struct FieldError {
  std::string field;
  std::string message;
};

Variables make_variables(const ChatTemplateInput& input, const SpecialTokens& tokens) {
  Variables out;
  const auto guarded = [](const char* field, auto&& make) {
    try {
      make();
    } catch (const TemplateError& error) {
      throw FieldError{field, error.what()};
    }
  };
  guarded("messages", [&] {
    std::vector<Value> messages;
    for (const ChatMessage& message : input.messages) messages.push_back(message_value(message, out));
    out.values.emplace_back("messages", jinja::make_list(std::move(messages)));
  });
  guarded("tools", [&] {
    Value tools = input.tools_json.empty() ? Value(jinja::None{}) : parse_field(input.tools_json, "tools", out);
    if (!tools.is<jinja::None>() && tools.sequence() == nullptr) {
      throw TemplateError(TemplateError::Kind::kRuntime, "'tools' is not a list");
    }
    out.values.emplace_back("tools", std::move(tools));
  });
  out.values.emplace_back("documents", jinja::None{});
  out.values.emplace_back("add_generation_prompt", bool{input.add_generation_prompt});
  for (const auto& [name, token] : tokens) out.values.emplace_back(name, text_value(token, Trust::kAll));
  if (!input.kwargs_json.empty()) {
    guarded("chat_template_kwargs", [&] { add_kwargs(input.kwargs_json, tokens, out); });
  }
  return out;
}

class JinjaChatTemplate final : public ChatTemplate {
 public:
  JinjaChatTemplate(std::unique_ptr<const jinja::Template> program, SpecialTokens tokens)
      : program_(std::move(program)), tokens_(std::move(tokens)) {}

  Result<TrustedText> render(const ChatTemplateInput& input) const override {
    try {
      Variables variables = make_variables(input, tokens_);
      const auto steps =
          jinja::kBaseSteps + jinja::kStepsPerInputValue * static_cast<std::int64_t>(variables.num_values);
      const auto bytes = jinja::kBaseBytes + jinja::kBytesPerInputByte * static_cast<std::int64_t>(variables.num_bytes);
      jinja::Budget budget(std::min(steps, jinja::kMaxSteps), bytes);
      jinja::Interpreter interpreter(*program_, budget);
      for (auto& [name, value] : variables.values) interpreter.define(name, std::move(value));
      return interpreter.run().spans();
    } catch (const FieldError& error) {
      return invalid_argument(error.message, error.field);
    } catch (const TemplateError& error) {
      if (error.kind == TemplateError::Kind::kRaised) return invalid_argument(error.what(), "messages");
      return invalid_argument(concat("the model's chat template cannot render these messages: ", with_line(error)),
                              "messages");
    }
  }

  bool mentions(std::string_view variable) const override {
    return std::find(program_->names.begin(), program_->names.end(), variable) != program_->names.end();
  }

 private:
  std::unique_ptr<const jinja::Template> program_;
  SpecialTokens tokens_;
};

Result<std::shared_ptr<const ChatTemplate>> make_template(std::string_view source, SpecialTokens tokens) {
  try {
    return std::shared_ptr<const ChatTemplate>(
        std::make_shared<JinjaChatTemplate>(jinja::parse_template(source), std::move(tokens)));
  } catch (const TemplateError& error) {
    Error out = invalid_argument(concat("the chat template cannot be used: ", with_line(error)), "chat_template");
    if (error.kind == TemplateError::Kind::kUnsupported) out.code = ErrorCode::kUnsupported;
    return out;
  }
}

// Nothing where there is no such file.
std::optional<std::string> read_file(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  if (!file) return std::nullopt;
  std::ostringstream text;
  text << file.rdbuf();
  return std::move(text).str();
}

// A string, or transformers' {"content": …}.
std::optional<std::string> token_text(const Value* value) {
  if (value == nullptr) return std::nullopt;
  if (value->dict() != nullptr) value = value->dict()->find("content");
  if (value == nullptr || value->text() == nullptr) return std::nullopt;
  return value->text()->bytes();
}

// `chat_template` of tokenizer_config.json: a string, or a list of {"name", "template"} with a "default".
std::optional<std::string> template_of_config(const jinja::Dict& config) {
  const Value* value = config.find("chat_template");
  if (value == nullptr) return std::nullopt;
  if (value->text() != nullptr) return value->text()->bytes();
  if (value->sequence() == nullptr) return std::nullopt;
  for (const Value& item : value->sequence()->items) {
    const Value* name = item.dict() == nullptr ? nullptr : item.dict()->find("name");
    if (name == nullptr || name->text() == nullptr || name->text()->bytes() != "default") continue;
    return token_text(item.dict()->find("template"));
  }
  return std::nullopt;
}

}  // namespace

Result<std::shared_ptr<const ChatTemplate>> ChatTemplate::parse(std::string_view source, std::string bos_token,
                                                                std::string eos_token) {
  SpecialTokens tokens;
  if (!bos_token.empty()) tokens.emplace("bos_token", std::move(bos_token));
  if (!eos_token.empty()) tokens.emplace("eos_token", std::move(eos_token));
  return make_template(source, std::move(tokens));
}

Result<std::shared_ptr<const ChatTemplate>> ChatTemplate::load(const std::string& model_dir) {
  const std::string config_path = model_dir + "/tokenizer_config.json";
  std::optional<std::string> source = read_file(model_dir + "/chat_template.jinja");
  const std::string config_text = read_file(config_path).value_or("{}");
  SpecialTokens tokens;
  try {
    const jinja::JsonValue config = jinja::parse_json(config_text, Trust::kAll);
    if (config.value.dict() == nullptr) return invalid_argument(config_path + " is not a JSON object");
    for (const std::string_view name : kSpecialTokens) {
      if (auto token = token_text(config.value.dict()->find(name))) tokens.emplace(name, *std::move(token));
    }
    if (!source) source = template_of_config(*config.value.dict());
  } catch (const TemplateError& error) {
    return invalid_argument(concat(config_path, " ", error.what()));
  }
  if (!source) {
    return Error{ErrorCode::kNotFound,
                 concat(model_dir,
                        " has no chat template: neither chat_template.jinja nor 'chat_template' in "
                        "tokenizer_config.json (a string, or a list with a \"default\")"),
                 "chat_template"};
  }
  return make_template(*source, std::move(tokens));
}

}  // namespace multiverse

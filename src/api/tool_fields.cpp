#include <algorithm>
#include <utility>

#include "api/output_fields.h"
#include "api/raw_json.h"

namespace multiverse {
namespace {

bool is_tool_name(const std::string& name) {
  return !name.empty() && name.size() <= kMaxToolNameBytes && std::all_of(name.begin(), name.end(), [](char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_' || c == '-';
  });
}

std::string_view format_arguments_key(ToolFormat format) {
  return format == ToolFormat::kLlama ? "parameters" : "arguments";
}

ToolSyntax::Tool read_function(FieldReader& tool, std::string_view raw, std::vector<std::string>& ignored) {
  ToolSyntax::Tool read;
  const Json* function = tool.object("function");
  if (function == nullptr) {
    tool.fail(invalid_argument(concat("'", tool.full_name("function"), "' is missing"), tool.full_name("function")));
    return read;
  }
  FieldReader reader(*function, tool.full_name("function."));
  read.name = reader.text("name", kMaxToolNameBytes).value_or("");
  if (!is_tool_name(read.name)) {
    reader.fail(invalid_argument(
        concat("'", reader.full_name("name"), "' must be 1 to ", kMaxToolNameBytes, " letters, digits, '_' or '-'"),
        reader.full_name("name")));
  }
  reader.text("description", std::size_t{1} << 20U);
  // Arguments are held to the schema either way; one that can't be kept is refused where it has to be.
  read.lenient = !reader.boolean("strict").value_or(false);
  const Json* parameters = reader.object("parameters");
  const bool any = parameters != nullptr && parameters->empty();
  read.schema = parameters == nullptr ? R"({"type": "object", "additionalProperties": false})"
                : any                 ? R"({"type": "object"})"
                                      : std::string(raw_member(raw, {"function", "parameters"}));
  reader.collect_unknown(ignored);
  if (!reader.ok()) tool.fail(reader.error());
  return read;
}

void read_list(FieldReader& fields, const Json& tools, std::string_view raw, ToolUse& use,
               std::vector<std::string>& ignored) {
  const std::vector<std::string_view> texts = raw_elements(raw);
  for (std::size_t i = 0; i < tools.size() && fields.ok(); ++i) {
    if (!tools[i].is_object()) return fields.fail_value("tools", tools[i], "objects are wanted");
    FieldReader reader(tools[i], concat("tools[", i, "]."));
    if (reader.text("type", 64).value_or("") != "function") {
      reader.fail(
          invalid_argument(concat("'", reader.full_name("type"), "' must be 'function'"), reader.full_name("type")));
    }
    ToolSyntax::Tool tool = read_function(reader, texts[i], ignored);
    const bool twice = std::any_of(use.tools.begin(), use.tools.end(),
                                   [&](const ToolSyntax::Tool& other) { return other.name == tool.name; });
    if (twice) {
      reader.fail(invalid_argument(concat("two of the 'tools' have the name '", tool.name, "'"),
                                   reader.full_name("function.name")));
    }
    use.tools.push_back(std::move(tool));
    reader.collect_unknown(ignored);
    if (!reader.ok()) fields.fail(reader.error());
  }
}

void read_named_choice(FieldReader& fields, const Json& choice, ToolUse& use) {
  FieldReader reader(choice, "tool_choice.");
  const std::string type = reader.text("type", 64).value_or("");
  const Json* function = reader.object("function");
  const bool has_name =
      type == "function" && function != nullptr && function->contains("name") && (*function)["name"].is_string();
  if (!reader.ok() || !has_name) {
    return fields.fail(invalid_argument(
        "'tool_choice' must be 'none', 'auto', 'required' or {\"type\": \"function\", \"function\": {\"name\": …}}",
        "tool_choice"));
  }
  use.choice = ToolUse::Choice::kNamed;
  use.named = (*function)["name"].get<std::string>();
  const bool known = std::any_of(use.tools.begin(), use.tools.end(),
                                 [&](const ToolSyntax::Tool& tool) { return tool.name == use.named; });
  if (!known) {
    fields.fail(invalid_argument(
        concat("'tool_choice' names '", use.named.substr(0, kMaxToolNameBytes), "', which is none of the 'tools'"),
        "tool_choice"));
  }
}

void read_choice(FieldReader& fields, ToolUse& use) {
  if (!use.tools.empty()) use.choice = ToolUse::Choice::kAuto;
  const Json* choice = fields.find("tool_choice");
  if (choice == nullptr) return;
  if (*choice == "none") {
    use.choice = ToolUse::Choice::kNone;
  } else if (use.tools.empty()) {
    fields.fail(invalid_argument("'tool_choice' is given, but no 'tools'", "tool_choice"));
  } else if (*choice == "required") {
    use.choice = ToolUse::Choice::kRequired;
  } else if (choice->is_object()) {
    read_named_choice(fields, *choice, use);
  } else if (*choice != "auto") {
    fields.fail_value("tool_choice", *choice, "'none', 'auto', 'required' or a function is wanted");
  }
}

}  // namespace

ToolUse read_tools(FieldReader& fields, std::string_view body, const ServedModel& model,
                   std::vector<std::string>& ignored) {
  ToolUse use;
  const std::string_view raw = raw_member(body, {"tools"});
  if (const Json* tools = fields.array("tools", kMaxTools)) read_list(fields, *tools, raw, use, ignored);
  read_choice(fields, use);
  use.parallel = fields.boolean("parallel_tool_calls").value_or(true);
  if (!fields.ok() || use.choice == ToolUse::Choice::kNone) return use;
  if (model.tool_format == ToolFormat::kNone) {
    fields.fail({ErrorCode::kUnsupported,
                 concat("the chat template of '", model.names.front(), "' has no place for tools; leave them out"),
                 "tools", "unsupported_parameter"});
  }
  use.shown = raw;
  return use;
}

ToolReading tool_reading(const ToolUse& use, ToolFormat format) {
  ToolReading reading;
  if (use.choice == ToolUse::Choice::kNone) return reading;
  reading.format = format;
  for (const ToolSyntax::Tool& tool : use.tools) reading.names.push_back(tool.name);
  const bool one = !use.parallel || use.choice == ToolUse::Choice::kNamed;
  reading.most = one ? 1 : kMaxToolCalls;
  return reading;
}

WantedSyntax tool_syntax(const ToolUse& use, ToolFormat format) {
  ToolSyntax syntax;
  if (format == ToolFormat::kQwen) {
    syntax.before = "<tool_call>\n";
    syntax.after = "\n</tool_call>";
  }
  syntax.arguments_key = format_arguments_key(format);
  // Llama's templates know one call at a time.
  syntax.most = format == ToolFormat::kLlama ? 1 : tool_reading(use, format).most;
  for (const ToolSyntax::Tool& tool : use.tools) {
    if (use.choice != ToolUse::Choice::kNamed || tool.name == use.named) syntax.tools.push_back(tool);
    if (use.forced() && !syntax.tools.empty()) syntax.tools.back().lenient = false;
  }
  using Kind = ConstraintSpec::Kind;
  return {{use.forced() ? Kind::kToolCalls : Kind::kTextWithToolCalls, tool_calls_text(syntax)}, "tools"};
}

}  // namespace multiverse

#include <algorithm>
#include <utility>

#include "api/output_fields.h"
#include "api/raw_json.h"
#include "api/reply_reader.h"

namespace multiverse {
namespace {

using Kind = ConstraintSpec::Kind;

constexpr std::size_t kMaxPatternBytes = 4096;
constexpr std::size_t kMaxChoices = 1000;

WantedSyntax schema_syntax(std::string_view raw, std::string param) {
  return {{Kind::kJsonSchema, std::string(raw)}, std::move(param)};
}

std::optional<WantedSyntax> read_json_schema(FieldReader& format, std::string_view body, Job& job) {
  const std::string param = format.full_name("json_schema");
  const Json* named = format.object("json_schema");
  if (named == nullptr) {
    format.fail(invalid_argument(concat("'", param, "' is missing"), param));
    return std::nullopt;
  }
  FieldReader reader(*named, param + ".");
  reader.text("name", kMaxToolNameBytes);
  reader.text("description", std::size_t{1} << 16U);
  reader.boolean("strict");  // the reply is held to the schema either way
  if (reader.find("schema") == nullptr) {
    reader.fail(invalid_argument(concat("'", param, ".schema' is missing"), param + ".schema"));
  }
  reader.collect_unknown(job.ignored_params);
  if (!reader.ok()) {
    format.fail(reader.error());
    return std::nullopt;
  }
  return schema_syntax(raw_member(body, {"response_format", "json_schema", "schema"}), param + ".schema");
}

std::optional<WantedSyntax> read_response_format(FieldReader& fields, std::string_view body, Job& job) {
  const Json* format = fields.object("response_format");
  if (format == nullptr) return std::nullopt;
  FieldReader reader(*format, "response_format.");
  const std::string type = reader.text("type", 64).value_or("");
  std::optional<WantedSyntax> wanted;
  if (type == "json_object") {
    wanted = WantedSyntax{{Kind::kJsonObject, ""}, "response_format"};
    reader.refuse_unless("schema", {});  // of other servers: json_schema has it here
  } else if (type == "json_schema") {
    wanted = read_json_schema(reader, body, job);
  } else if (type != "text") {
    reader.fail(invalid_argument("'response_format.type' must be 'text', 'json_object' or 'json_schema'",
                                 "response_format.type"));
  }
  reader.collect_unknown(job.ignored_params);
  if (!reader.ok()) fields.fail(reader.error());
  return wanted;
}

std::optional<WantedSyntax> read_choice(FieldReader& reader) {
  const Json* choices = reader.array("choice", kMaxChoices);
  if (choices == nullptr) return std::nullopt;
  const bool texts = std::all_of(choices->begin(), choices->end(), [](const Json& one) {
    return one.is_string() && !one.get_ref<const std::string&>().empty();
  });
  if (!texts || choices->empty()) {
    reader.fail_value("choice", *choices, concat("1 to ", kMaxChoices, " strings, none of them empty, are wanted"));
  }
  return WantedSyntax{{Kind::kChoice, choices->dump()}, reader.full_name("choice")};
}

// vLLM's way to name a constraint: exactly one of these.
std::optional<WantedSyntax> read_structured_outputs(FieldReader& fields, std::string_view body, Job& job) {
  const Json* outputs = fields.object("structured_outputs");
  if (outputs == nullptr) return std::nullopt;
  FieldReader reader(*outputs, "structured_outputs.");
  std::vector<WantedSyntax> wanted;
  if (const auto pattern = reader.text("regex", kMaxPatternBytes)) {
    wanted.push_back({{Kind::kRegex, *pattern}, reader.full_name("regex")});
  }
  if (const Json* schema = reader.find("json")) {  // the schema, or its text
    const std::string_view raw = raw_member(body, {"structured_outputs", "json"});
    wanted.push_back(
        schema_syntax(schema->is_string() ? schema->get_ref<const std::string&>() : raw, reader.full_name("json")));
  }
  if (auto choice = read_choice(reader)) wanted.push_back(*std::move(choice));
  if (reader.boolean("json_object").value_or(false)) {
    wanted.push_back({{Kind::kJsonObject, ""}, reader.full_name("json_object")});
  }
  for (const char* name : {"grammar", "structural_tag", "whitespace_pattern"}) reader.refuse_unless(name, {});
  for (const char* name : {"disable_any_whitespace", "disable_additional_properties"}) {
    reader.refuse_unless(name, {false});
  }
  if (wanted.size() != 1) {
    reader.fail(invalid_argument("'structured_outputs' takes one of 'regex', 'json', 'choice' and 'json_object'",
                                 "structured_outputs"));
  }
  reader.collect_unknown(job.ignored_params);
  if (!reader.ok()) {
    fields.fail(reader.error());
    return std::nullopt;
  }
  return std::move(wanted.front());
}

}  // namespace

std::optional<WantedSyntax> read_syntax(FieldReader& fields, std::string_view body, Job& job) {
  auto format = read_response_format(fields, body, job);
  auto outputs = read_structured_outputs(fields, body, job);
  if (format && outputs) {
    fields.fail(invalid_argument("give 'response_format' or 'structured_outputs', not both", "structured_outputs"));
  }
  return format ? std::move(format) : std::move(outputs);
}

Status apply_syntax(const WantedSyntax& syntax, const ServedModel& model, Job& job) {
  if (model.constraints == nullptr) {
    return Error{ErrorCode::kUnsupported, "this server can't hold replies to a syntax", syntax.param,
                 "unsupported_parameter"};
  }
  for (GenerateRequest& request : job.requests) {
    if (request.min_tokens > 0 && syntax.spec.kind != Kind::kTextWithToolCalls) {
      return invalid_argument("'min_tokens' and a reply that is held to a syntax don't go together", "min_tokens");
    }
    auto compiled = model.constraints->compile(syntax.spec, opens_thoughts(model, request.prompt));
    if (!compiled.ok()) {
      Error error = compiled.error();
      error.param = syntax.param;
      return error;
    }
    request.constraint = std::move(compiled).value();
  }
  return ok_status();
}

}  // namespace multiverse

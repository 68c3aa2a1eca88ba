// What a reply is to be: held to a syntax, or calls of tools.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "multiverse/constrain/compiler.h"
#include "multiverse/tokenizer/chat_template.h"

#include "api/common_fields.h"

namespace multiverse {

// A constraint, and the field that asks for it.
struct WantedSyntax {
  ConstraintSpec spec;
  std::string param;
};

// Reads `response_format` and `structured_outputs`; `body` is the request's text. nullopt: any reply will do.
std::optional<WantedSyntax> read_syntax(FieldReader& fields, std::string_view body, Job& job);

struct ToolUse {
  enum class Choice { kNone, kAuto, kRequired, kNamed };
  Choice choice = Choice::kNone;
  std::string shown;  // to the template: the array as the client wrote it; "" where tools aren't to be called
  std::vector<ToolSyntax::Tool> tools;
  std::string named;
  bool parallel = true;

  bool forced() const { return choice == Choice::kRequired || choice == Choice::kNamed; }
};

// Reads `tools`, `tool_choice` and `parallel_tool_calls`.
ToolUse read_tools(FieldReader& fields, std::string_view body, const ServedModel& model,
                   std::vector<std::string>& ignored);
// How the model's answers are read for calls, and the syntax of a forced one.
ToolReading tool_reading(const ToolUse& use, ToolFormat format);
WantedSyntax tool_syntax(const ToolUse& use, ToolFormat format);

// Compiles the syntax for each prompt of the job. The error names the field.
Status apply_syntax(const WantedSyntax& syntax, const ServedModel& model, Job& job);

}  // namespace multiverse

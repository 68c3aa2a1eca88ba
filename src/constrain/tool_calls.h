// The syntax of tool calls, from ToolSyntax's text (compiler.h).
#pragma once

#include <string>

#include "multiverse/base/status.h"

#include "constrain/json_schema.h"

namespace multiverse {

// A schema's text, parsed.
Result<SchemaJson> parse_schema(const std::string& text);

// Calls and nothing else.
Result<SyntaxBuilder::Piece> add_tool_calls(SyntaxBuilder& builder, const std::string& text);

// What a call begins with, up to its name: "<tool_call>\n{"name": "".
std::string tool_call_trigger(const std::string& text);

// Any text, in which the trigger is followed by a whole call: anywhere, and then any text again; or, where nothing
// stands before a call, at its start alone. The text may end where no call is under way, and only there: an automaton's
// state is an end just where the text is free. Unless `roomy`, the arguments of lenient tools are any objects.
Result<SyntaxBuilder::Piece> add_text_with_tool_calls(SyntaxBuilder& builder, const std::string& text, bool roomy);

}  // namespace multiverse

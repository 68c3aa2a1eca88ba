// JSON values, and those that a JSON Schema describes, as a Syntax.
#pragma once

#include <nlohmann/json.hpp>
#include <string>

#include "multiverse/base/status.h"
#include "multiverse/constrain/syntax.h"

namespace multiverse {

using SchemaJson = nlohmann::ordered_json;

inline constexpr std::size_t kMaxSchemaBytes = 64U << 10U;

// A rule for any JSON object, nested 16 levels at most.
std::int32_t add_json_object(SyntaxBuilder& builder);

// A rule for the documents of `schema`: compact or pretty-printed, properties in the schema's order, objects with named
// properties have no others. Every text of the rule satisfies the schema. What can't be kept is
// an error that names the keyword and its place in the schema, never ignored.
Result<std::int32_t> add_json_schema(SyntaxBuilder& builder, const SchemaJson& schema);

}  // namespace multiverse

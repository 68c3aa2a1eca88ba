// Reading fields of a parsed tokenizer.json, with errors that name them.
#pragma once

#include <nlohmann/json.hpp>
#include <string>
#include <string_view>

#include "multiverse/base/status.h"

#include "tokenizer/failure.h"

namespace multiverse::tokenizer {

using Json = nlohmann::json;

// The field, or a null where it isn't there.
inline const Json& field(const Json& object, std::string_view name) {
  static const Json kNull;
  const auto found = object.is_object() ? object.find(name) : object.end();
  return found == object.end() || !object.is_object() ? kNull : *found;
}

// `fallback` where the field is absent or null.
Result<bool> bool_field(const Json& object, std::string_view name, bool fallback);

// A string that must be there. `owner` says in errors whose field it is.
Result<std::string> string_field(const Json& object, std::string_view name, std::string_view owner);

// The object's "type", "" where it has none.
std::string type_of(const Json& object);

}  // namespace multiverse::tokenizer

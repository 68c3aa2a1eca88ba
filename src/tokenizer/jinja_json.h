// Values from JSON and to JSON, as Python's json module.
#pragma once

#include <cstddef>
#include <string_view>

#include "tokenizer/jinja_value.h"

namespace multiverse::jinja {

struct JsonValue {
  Value value;
  std::size_t count = 0;  // values in it, itself included
};
// What json.loads() gives; strings have `trust`. A TemplateError says what is wrong with it. Depth is bounded.
JsonValue parse_json(std::string_view text, Trust trust);

struct JsonStyle {
  std::string indent;   // of one level; used where `pretty`
  bool pretty = false;  // a line for each item
  std::string comma = ", ", colon = ": ";
  bool ascii = false;
  bool sort_keys = false;
};
// json.dumps(value, …). Characters of strings keep their marks, all others (numbers too) are kNone.
Text dump_json(Budget& budget, const Value& value, const JsonStyle& style);

}  // namespace multiverse::jinja

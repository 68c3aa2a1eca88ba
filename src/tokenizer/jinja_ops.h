// What Python's operators and built-in functions do with values.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "tokenizer/jinja_value.h"

namespace multiverse::jinja {

// Python's type(value).__name__.
std::string type_name(const Value& value);
bool truthy(const Value& value);
// The first hundred characters, for an error message.
std::string excerpt(std::string_view text);

// str(value). A string is itself, marks and all; numbers that a template prints are the template's own text (kAll); the
// brackets and quotes of a printed list or dict are kNone.
Text to_text(Budget& budget, const Value& value);
TextPtr to_text_ptr(Budget& budget, const Value& value);
// Python's repr() of a double.
std::string float_repr(double value);

bool equal(Budget& budget, const Value& a, const Value& b);
// a < b; fails on types that have no order.
bool less(Budget& budget, const Value& a, const Value& b);
// `item in container`.
bool contains(Budget& budget, const Value& container, const Value& item);

// len(value).
std::int64_t length(const Value& value);
// What iterating over `value` gives; a generator is used up.
std::vector<Value> items_of(Budget& budget, const Value& value);

// `object.name` (attributes, methods, then items) and `object[key]` (items, then attributes), as jinja2's environment:
// what is not there is Undefined; of an Undefined it fails.
Value get_attribute(Budget& budget, const Value& object, std::string_view name);
Value get_item(Budget& budget, const Value& object, const Value& key);
// The parts of `attribute` ("a.b.0", or an index) one after the other, as the filters' `attribute` arguments. A missing
// part becomes `otherwise` where that is given.
Value get_path(Budget& budget, const Value& object, const Value& attribute, const Value* otherwise = nullptr);
// Where Python's slice begins, how it steps and how many items it has, for a sequence of `size`.
struct SliceRange {
  std::int64_t start = 0, step = 1, count = 0;
};
SliceRange slice_range(const Value& start, const Value& stop, const Value& step, std::int64_t size);
Value get_slice(Budget& budget, const Value& object, const Value& start, const Value& stop, const Value& step);

enum class BinaryOp { kAdd, kSubtract, kMultiply, kDivide, kFloorDivide, kModulo, kPower };
Value binary(Budget& budget, BinaryOp op, const Value& a, const Value& b);
Value negate(const Value& value);

// An argument that must be an integer.
std::int64_t to_integer(const Value& value, std::string_view what);

// The method of a string, list or dict, or null. Names that change their object are known but always refused, as by
// jinja2's immutable sandbox.
MethodFunction find_method(const Value& object, std::string_view name);
// Whether any type has a method of this name.
bool is_method_name(std::string_view name);

}  // namespace multiverse::jinja

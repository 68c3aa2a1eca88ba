// The tests: what stands after `is`.
#include <cmath>
#include <map>

#include "multiverse/base/check.h"

#include "tokenizer/jinja_filters.h"
#include "tokenizer/jinja_ops.h"

namespace multiverse::jinja {
namespace {

const Value& operand(const Arguments& arguments) {
  if (arguments.positional.size() != 1 || !arguments.named.empty()) fail("the test takes one argument");
  return arguments.positional[0];
}

// value % divisor == remainder.
bool leaves(Budget& budget, const Value& value, const Value& divisor, double remainder) {
  return *binary(budget, BinaryOp::kModulo, value, divisor).number() == remainder;
}

bool is_number(const Value& value) {
  return value.number().has_value() || value.is<BigInteger>();
}

bool is_sequence(const Value& value) {
  // What has a length and an index: Undefined has both, too.
  const Sequence* items = value.sequence();
  return value.text() != nullptr || value.dict() != nullptr || value.is<Undefined>() ||
         (items != nullptr && items->kind <= SequenceKind::kRange);
}

bool is_iterable(const Value& value) {
  return value.text() != nullptr || value.dict() != nullptr || value.is<Undefined>() || value.sequence() != nullptr ||
         value.is<std::shared_ptr<Loop>>();
}

bool is_callable(const Value& value) {
  return value.is<Macro>() || value.is<Function>() || value.is<std::shared_ptr<const Method>>() ||
         value.is<Undefined>();
}

// str.islower() and str.isupper(): at least one letter with case, and all of them in this one.
bool all_cased(Budget& budget, const Value& value, Case wanted) {
  const TextPtr text = to_text_ptr(budget, value);
  budget.steps(text->size() / 8);
  bool any = false;
  std::string mapped;
  for (std::size_t at = 0; at < text->size();) {
    const Character next = char_at(text->bytes(), at);
    if (is_cased(next.code)) {
      any = true;
      mapped.clear();
      append_cased(mapped, next.code, wanted);
      if (mapped != text->bytes().substr(at, next.end - at)) return false;
    }
    at = next.end;
  }
  return any;
}

bool same_object(Budget& budget, const Value& a, const Value& b) {
  if (a.data().index() != b.data().index()) return false;
  if (a.is<TextPtr>()) return a.as<TextPtr>() == b.as<TextPtr>();
  if (a.is<SequencePtr>()) return a.as<SequencePtr>() == b.as<SequencePtr>();
  if (a.is<DictPtr>()) return a.as<DictPtr>() == b.as<DictPtr>();
  return equal(budget, a, b);
}

}  // namespace

// A lambda a test: each is one expression, and a name more would say nothing.
TestFunction find_test(std::string_view name) {
  using V = const Value&;
  using A = const Arguments&;
  static constexpr TestFunction kEqual = [](Budget& b, V v, A a) { return equal(b, v, operand(a)); };
  static constexpr TestFunction kUnequal = [](Budget& b, V v, A a) { return !equal(b, v, operand(a)); };
  static constexpr TestFunction kLess = [](Budget& b, V v, A a) { return less(b, v, operand(a)); };
  static constexpr TestFunction kGreater = [](Budget& b, V v, A a) { return less(b, operand(a), v); };
  static constexpr TestFunction kLessEqual = [](Budget& b, V v, A a) {
    return less(b, v, operand(a)) || equal(b, v, operand(a));
  };
  static constexpr TestFunction kGreaterEqual = [](Budget& b, V v, A a) {
    return less(b, operand(a), v) || equal(b, v, operand(a));
  };
  static const std::map<std::string_view, TestFunction> tests = {
      {"!=", kUnequal},
      {"<", kLess},
      {"<=", kLessEqual},
      {"==", kEqual},
      {">", kGreater},
      {">=", kGreaterEqual},
      {"boolean", [](Budget&, V v, A) { return v.is<bool>(); }},
      {"callable", [](Budget&, V v, A) { return is_callable(v); }},
      {"defined", [](Budget&, V v, A) { return !v.is<Undefined>(); }},
      {"divisibleby", [](Budget& b, V v, A a) { return leaves(b, v, operand(a), 0); }},
      {"eq", kEqual},
      {"equalto", kEqual},
      {"even", [](Budget& b, V v, A) { return leaves(b, v, std::int64_t{2}, 0); }},
      {"false", [](Budget&, V v, A) { return v.is<bool>() && !v.as<bool>(); }},
      {"float", [](Budget&, V v, A) { return v.is<double>(); }},
      {"ge", kGreaterEqual},
      {"greaterthan", kGreater},
      {"gt", kGreater},
      {"in", [](Budget& b, V v, A a) { return contains(b, operand(a), v); }},
      {"integer", [](Budget&, V v, A) { return v.is<std::int64_t>() || v.is<BigInteger>(); }},
      {"iterable", [](Budget&, V v, A) { return is_iterable(v); }},
      {"le", kLessEqual},
      {"lessthan", kLess},
      {"lower", [](Budget& b, V v, A) { return all_cased(b, v, Case::kLower); }},
      {"lt", kLess},
      {"mapping", [](Budget&, V v, A) { return v.dict() != nullptr; }},
      {"ne", kUnequal},
      {"none", [](Budget&, V v, A) { return v.is<None>(); }},
      {"number", [](Budget&, V v, A) { return is_number(v); }},
      {"odd", [](Budget& b, V v, A) { return leaves(b, v, std::int64_t{2}, 1); }},
      {"sameas", [](Budget& b, V v, A a) { return same_object(b, v, operand(a)); }},
      {"sequence", [](Budget&, V v, A) { return is_sequence(v); }},
      {"string", [](Budget&, V v, A) { return v.text() != nullptr; }},
      {"true", [](Budget&, V v, A) { return v.is<bool>() && v.as<bool>(); }},
      {"undefined", [](Budget&, V v, A) { return v.is<Undefined>(); }},
      {"upper", [](Budget& b, V v, A) { return all_cased(b, v, Case::kUpper); }},
  };
  const auto found = tests.find(name);
  return found == tests.end() ? nullptr : found->second;
}

}  // namespace multiverse::jinja

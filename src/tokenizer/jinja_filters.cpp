// Filters of single values, and the table of all.
#include "tokenizer/jinja_filters.h"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <map>
#include <optional>

#include "multiverse/base/check.h"

#include "tokenizer/jinja_json.h"
#include "tokenizer/jinja_ops.h"
#include "tokenizer/jinja_strings.h"

namespace multiverse::jinja {
namespace {

Value filter_abs(Budget&, const Value& input, const Arguments& arguments) {
  const BoundArguments bound("abs", arguments, {});
  if (input.is<double>()) return std::fabs(input.as<double>());
  if (const auto whole = input.integer()) return *whole < 0 ? negate(*whole) : Value(*whole);
  fail(concat("bad operand type for abs(): '", type_name(input), "'"));
}

Value filter_attr(Budget& budget, const Value& input, const Arguments& arguments) {
  const BoundArguments bound("attr", arguments, {"name"});
  const Text* name = bound.require(0).text();
  if (name == nullptr) fail("attr wants a name");
  // Attributes only: a dict's keys are none.
  if (input.dict() != nullptr && find_method(input, name->bytes()) == nullptr) {
    return undefined(concat("'dict object' has no attribute '", excerpt(name->bytes()), "'"));
  }
  return get_attribute(budget, input, name->bytes());
}

using Mapper = Text (*)(const Text&);
template <Mapper mapper>
Value filter_case(Budget& budget, const Value& input, const Arguments& arguments) {
  const BoundArguments bound("case", arguments, {});
  const TextPtr text = to_text_ptr(budget, input);
  budget.steps(text->size() / 8);
  return make_text(budget, mapper(*text));
}

Value filter_default(Budget& budget, const Value& input, const Arguments& arguments) {
  const BoundArguments bound("default", arguments, {"default_value", "boolean"});
  if (!input.is<Undefined>() && (!bound.flag(1, false) || truthy(input))) return input;
  return bound.get(0) == nullptr ? make_text(budget, Text()) : *bound.get(0);
}

// A number as Python's int() and float() read it: white space around, single underscores between digits.
std::optional<std::string> digits_of(const Text& text) {
  const Text trimmed = strip(text, nullptr, Side::kBoth);
  const std::string& bytes = trimmed.bytes();
  std::string out;
  for (std::size_t i = 0; i < bytes.size(); ++i) {
    if (bytes[i] != '_') {
      out += bytes[i];
      continue;
    }
    const auto is_digit = [&](std::size_t at) { return at < bytes.size() && std::isxdigit(bytes[at] & 0xFF) != 0; };
    if (i == 0 || !is_digit(i - 1) || !is_digit(i + 1)) return std::nullopt;
  }
  if (out.empty()) return std::nullopt;
  return out;
}

std::optional<double> parse_float(const Text& text) {
  const auto digits = digits_of(text);
  // What strtod reads beyond Python's float(): hexadecimal, and payloads of NaN.
  if (!digits || digits->find_first_of("xX(") != std::string::npos) return std::nullopt;
  char* end = nullptr;
  const double value = std::strtod(digits->c_str(), &end);
  if (end != digits->c_str() + digits->size()) return std::nullopt;
  return value;
}

std::optional<std::int64_t> parse_integer(const Text& text, std::int64_t base) {
  auto digits = digits_of(text);
  if (!digits || base < 0 || base == 1 || base > 36) return std::nullopt;
  const std::size_t sign = (*digits)[0] == '+' || (*digits)[0] == '-' ? 1 : 0;
  const std::string prefix = digits->substr(sign, 2);
  if ((prefix == "0b" || prefix == "0B") && base == 2) digits->erase(sign, 2);
  if ((prefix == "0o" || prefix == "0O") && base == 8) digits->erase(sign, 2);
  if (digits->size() == sign || std::isalnum((*digits)[sign] & 0xFF) == 0) return std::nullopt;
  char* end = nullptr;
  errno = 0;
  const long long value = std::strtoll(digits->c_str(), &end, static_cast<int>(base));
  if (end != digits->c_str() + digits->size()) return std::nullopt;
  if (errno == ERANGE) fail("an integer beyond 64 bits");
  return value;
}

std::optional<std::int64_t> truncated(double value) {
  if (!std::isfinite(value)) return std::nullopt;
  if (std::fabs(value) >= 9.2e18) fail("an integer beyond 64 bits");
  return static_cast<std::int64_t>(value);
}

Value filter_int(Budget&, const Value& input, const Arguments& arguments) {
  const BoundArguments bound("int", arguments, {"default", "base"});
  const std::int64_t base = bound.get(1) == nullptr ? 10 : to_integer(*bound.get(1), "base");
  std::optional<std::int64_t> value = input.integer();
  if (input.is<Undefined>()) fail(*input.as<Undefined>().why);
  if (input.is<BigInteger>()) return input;
  if (input.is<double>()) value = truncated(input.as<double>());
  if (const Text* text = input.text()) {
    value = parse_integer(*text, base);
    if (!value) {
      if (const auto number = parse_float(*text)) value = truncated(*number);
    }
  }
  if (value) return *value;
  return bound.get(0) == nullptr ? Value(std::int64_t{0}) : *bound.get(0);
}

Value filter_float(Budget&, const Value& input, const Arguments& arguments) {
  const BoundArguments bound("float", arguments, {"default"});
  if (input.is<Undefined>()) fail(*input.as<Undefined>().why);
  std::optional<double> value = input.number();
  if (input.is<BigInteger>()) value = std::strtod(input.as<BigInteger>().digits->c_str(), nullptr);
  if (input.text() != nullptr) value = parse_float(*input.text());
  if (value) return *value;
  return bound.get(0) == nullptr ? Value(0.0) : *bound.get(0);
}

Value filter_indent(Budget& budget, const Value& input, const Arguments& arguments) {
  const BoundArguments bound("indent", arguments, {"width", "first", "blank"});
  if (input.text() == nullptr) fail(concat("indent wants a str, not '", type_name(input), "'"));
  Text indention("    ", Trust::kAll);
  if (const Value* width = bound.get(0)) {
    if (width->text() != nullptr) {
      indention = *width->text();
    } else {
      const std::int64_t spaces = std::max<std::int64_t>(0, to_integer(*width, "width"));
      budget.bytes(static_cast<std::size_t>(spaces));
      indention = Text(std::string(static_cast<std::size_t>(spaces), ' '), Trust::kAll);
    }
  }
  const bool blank = bound.flag(2, false);
  // Python adds a line's end first, so that a text that ends in one keeps it.
  Text ended = *input.text();
  ended.append("\n", Trust::kAll);
  const std::vector<Text> lines = split_lines(budget, ended, false);
  Text out;
  if (bound.flag(1, false)) out.append(indention);
  for (std::size_t i = 0; i < lines.size(); ++i) {
    budget.bytes(indention.size() + 1);
    if (i > 0) out.append("\n", Trust::kAll);
    if (i > 0 && (blank || !lines[i].empty())) out.append(indention);
    out.append(lines[i]);
  }
  return make_text(budget, std::move(out));
}

Value filter_replace(Budget& budget, const Value& input, const Arguments& arguments) {
  const BoundArguments bound("replace", arguments, {"old", "new", "count"});
  const bool limited = bound.get(2) != nullptr && !bound.get(2)->is<None>();
  const TextPtr text = to_text_ptr(budget, input);
  budget.steps(text->size() / 16);
  return make_text(
      budget, replace(budget, *text, *to_text_ptr(budget, bound.require(0)), *to_text_ptr(budget, bound.require(1)),
                      limited ? to_integer(*bound.get(2), "count") : -1));
}

Value filter_round(Budget&, const Value& input, const Arguments& arguments) {
  const BoundArguments bound("round", arguments, {"precision", "method"});
  const std::int64_t precision = bound.get(0) == nullptr ? 0 : to_integer(*bound.get(0), "precision");
  const std::string method = bound.get(1) != nullptr && bound.get(1)->text() != nullptr ? bound.get(1)->text()->bytes()
                                                                                        : std::string("common");
  if (method != "common" && method != "ceil" && method != "floor") fail("method must be common, ceil or floor");
  if (!input.number()) fail(concat("type ", type_name(input), " doesn't define __round__ method"));
  if (precision < -300 || precision > 300) fail("round: a precision beyond 300 digits");
  const double value = *input.number();
  if (method != "common") {
    const double scale = std::pow(10.0, static_cast<double>(precision));
    return (method == "ceil" ? std::ceil(value * scale) : std::floor(value * scale)) / scale;
  }
  if (input.integer()) {
    if (precision >= 0) return *input.integer();
    fail("round: a negative precision of an integer is not supported");
  }
  if (!std::isfinite(value)) return value;
  if (precision < 0) {
    const double scale = std::pow(10.0, static_cast<double>(-precision));
    return std::nearbyint(value / scale) * scale;
  }
  char buffer[720];  // 309 digits before the point, 300 after
  std::snprintf(buffer, sizeof buffer, "%.*f", static_cast<int>(precision), value);
  return std::strtod(buffer, nullptr);
}

Value filter_safe(Budget& budget, const Value& input, const Arguments& arguments) {
  const BoundArguments bound("safe", arguments, {});
  return to_text_ptr(budget, input);
}

std::string separator_of(const Value& pair, std::size_t index) {
  const Sequence* both = pair.sequence();
  if (both == nullptr || both->items.size() != 2 || both->items[index].text() == nullptr) {
    fail("tojson: separators must be a pair of strings");
  }
  return both->items[index].text()->bytes();
}

Value filter_tojson(Budget& budget, const Value& input, const Arguments& arguments) {
  const BoundArguments bound("tojson", arguments, {"ensure_ascii", "indent", "separators", "sort_keys"});
  JsonStyle style;
  style.ascii = bound.flag(0, false);
  style.sort_keys = bound.flag(3, false);
  if (const Value* indent = bound.get(1); indent != nullptr && !indent->is<None>()) {
    style.pretty = true;
    style.comma = ",";
    if (indent->text() != nullptr) {
      style.indent = indent->text()->bytes();
    } else {
      const std::int64_t spaces = std::max<std::int64_t>(0, to_integer(*indent, "indent"));
      budget.bytes(static_cast<std::size_t>(spaces));
      style.indent = std::string(static_cast<std::size_t>(spaces), ' ');
    }
  }
  if (const Value* separators = bound.get(2); separators != nullptr && !separators->is<None>()) {
    style.comma = separator_of(*separators, 0);
    style.colon = separator_of(*separators, 1);
  }
  return make_text(budget, dump_json(budget, input, style));
}

Value filter_trim(Budget& budget, const Value& input, const Arguments& arguments) {
  const BoundArguments bound("trim", arguments, {"chars"});
  const Value* chars = bound.get(0);
  if (chars != nullptr && chars->text() == nullptr && !chars->is<None>()) fail("trim: chars must be a string");
  return make_text(budget, strip(*to_text_ptr(budget, input), chars == nullptr ? nullptr : chars->text(), Side::kBoth));
}

}  // namespace

FilterFunction find_filter(std::string_view name) {
  static const std::map<std::string_view, FilterFunction> filters = {
      {"abs", filter_abs},           {"attr", filter_attr},
      {"batch", filter_batch},       {"capitalize", filter_case<capitalize>},
      {"count", filter_length},      {"d", filter_default},
      {"default", filter_default},   {"dictsort", filter_dictsort},
      {"first", filter_first},       {"float", filter_float},
      {"groupby", filter_groupby},   {"indent", filter_indent},
      {"int", filter_int},           {"items", filter_items},
      {"join", filter_join},         {"last", filter_last},
      {"length", filter_length},     {"list", filter_list},
      {"lower", filter_case<lower>}, {"map", filter_map},
      {"max", filter_max},           {"min", filter_min},
      {"reject", filter_reject},     {"rejectattr", filter_rejectattr},
      {"replace", filter_replace},   {"reverse", filter_reverse},
      {"round", filter_round},       {"safe", filter_safe},
      {"select", filter_select},     {"selectattr", filter_selectattr},
      {"sort", filter_sort},         {"string", filter_safe},
      {"sum", filter_sum},           {"title", filter_case<title_filter>},
      {"tojson", filter_tojson},     {"trim", filter_trim},
      {"unique", filter_unique},     {"upper", filter_case<upper>},
  };
  const auto found = filters.find(name);
  return found == filters.end() ? nullptr : found->second;
}

}  // namespace multiverse::jinja

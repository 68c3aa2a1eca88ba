#include "tokenizer/jinja_ops.h"

#include <algorithm>
#include <charconv>
#include <cmath>

#include "multiverse/base/check.h"

namespace multiverse::jinja {
namespace {

void append_repr(Budget& budget, Text& out, const Value& value);

void append_escape(Text& out, char32_t code, Trust trust) {
  static constexpr char kHex[] = "0123456789abcdef";
  const auto hex = [&](const char* prefix, int digits) {
    std::string escaped = prefix;
    for (int shift = 4 * (digits - 1); shift >= 0; shift -= 4) escaped += kHex[(code >> shift) & 15];
    out.append(escaped, trust);
  };
  if (code == '\n') return out.append("\\n", trust);
  if (code == '\r') return out.append("\\r", trust);
  if (code == '\t') return out.append("\\t", trust);
  if (code <= 0xFF) return hex("\\x", 2);
  if (code <= 0xFFFF) return hex("\\u", 4);
  hex("\\U", 8);
}

// Python's repr() of a string; its characters keep their marks.
void append_text_repr(Text& out, const Text& text) {
  const std::string& bytes = text.bytes();
  const bool double_quotes = bytes.find('\'') != std::string::npos && bytes.find('"') == std::string::npos;
  const char quote = double_quotes ? '"' : '\'';
  out.append(std::string_view(&quote, 1), Trust::kNone);
  for (std::size_t at = 0; at < bytes.size();) {
    const Character next = char_at(bytes, at);
    if (next.code == static_cast<char32_t>(quote) || next.code == '\\') {
      out.append("\\", text.trust_at(at));
      out.append(text, at, next.end);
    } else if (is_printable(next.code)) {
      out.append(text, at, next.end);
    } else {
      append_escape(out, next.code, text.trust_at(at));
    }
    at = next.end;
  }
  out.append(std::string_view(&quote, 1), Trust::kNone);
}

void append_items_repr(Budget& budget, Text& out, const Sequence& sequence) {
  const bool tuple = sequence.kind == SequenceKind::kTuple;
  out.append(tuple ? "(" : "[", Trust::kNone);
  bool first = true;
  for (const Value& item : sequence.items) {
    if (!first) out.append(", ", Trust::kNone);
    first = false;
    append_repr(budget, out, item);
  }
  if (tuple && sequence.items.size() == 1) out.append(",", Trust::kNone);
  out.append(tuple ? ")" : "]", Trust::kNone);
}

void append_dict_repr(Budget& budget, Text& out, const Dict& dict) {
  out.append("{", Trust::kNone);
  bool first = true;
  for (const auto& [key, value] : dict.entries) {
    if (!first) out.append(", ", Trust::kNone);
    first = false;
    append_repr(budget, out, key);
    out.append(": ", Trust::kNone);
    append_repr(budget, out, value);
  }
  out.append("}", Trust::kNone);
}

void append_repr(Budget& budget, Text& out, const Value& value) {
  budget.steps(1);
  if (const Text* text = value.text()) {
    // At most ten bytes for one (\U0001f600), and as much again for marks.
    budget.steps(text->size() / 8);
    return append_text_repr(out, *text);
  }
  if (const Sequence* sequence = value.sequence()) {
    if (sequence->kind == SequenceKind::kView) {
      out.append(sequence->label + "(", Trust::kNone);
      append_items_repr(budget, out, *sequence);
      return out.append(")", Trust::kNone);
    }
    if (sequence->kind == SequenceKind::kList || sequence->kind == SequenceKind::kTuple) {
      return append_items_repr(budget, out, *sequence);
    }
  }
  if (const Dict* dict = value.dict()) return append_dict_repr(budget, out, *dict);
  if (value.is<Undefined>()) return out.append("Undefined", Trust::kNone);
  out.append(to_text(budget, value));
}

std::string range_text(const Sequence& range) {
  if (!range.label.empty()) return range.label;
  // A slice of a range stops where its step takes it.
  if (range.items.empty()) return "range(0, 0)";
  const std::int64_t first = *range.items.front().integer(), last = *range.items.back().integer();
  const std::int64_t step = range.items.size() < 2 ? 1 : *range.items[1].integer() - first;
  const std::string bounds = concat("range(", first, ", ", last + step);
  return step == 1 ? bounds + ")" : concat(bounds, ", ", step, ")");
}

bool equal_sequences(Budget& budget, const Sequence& a, const Sequence& b) {
  if (&a == &b) return true;
  if (a.kind != b.kind || a.items.size() != b.items.size() || a.kind == SequenceKind::kGenerator) return false;
  for (std::size_t i = 0; i < a.items.size(); ++i) {
    if (!equal(budget, a.items[i], b.items[i])) return false;
  }
  return true;
}

bool equal_dicts(Budget& budget, const Dict& a, const Dict& b) {
  if (a.entries.size() != b.entries.size()) return false;
  return std::all_of(a.entries.begin(), a.entries.end(), [&](const auto& entry) {
    const Value* other = b.find(entry.first);
    return other != nullptr && equal(budget, entry.second, *other);
  });
}

[[noreturn]] void fail_order(const Value& a, const Value& b) {
  fail(concat("'<' not supported between instances of '", type_name(a), "' and '", type_name(b), "'"));
}

}  // namespace

std::string type_name(const Value& value) {
  struct Name {
    std::string operator()(const Undefined&) const { return "Undefined"; }
    std::string operator()(const None&) const { return "NoneType"; }
    std::string operator()(bool) const { return "bool"; }
    std::string operator()(std::int64_t) const { return "int"; }
    std::string operator()(double) const { return "float"; }
    std::string operator()(const BigInteger&) const { return "int"; }
    std::string operator()(const TextPtr&) const { return "str"; }
    std::string operator()(const SequencePtr& sequence) const {
      switch (sequence->kind) {
        case SequenceKind::kList:
          return "list";
        case SequenceKind::kTuple:
          return "tuple";
        case SequenceKind::kRange:
          return "range";
        case SequenceKind::kView:
          return sequence->label;
        case SequenceKind::kGenerator:
          return "generator";
      }
      return "list";
    }
    std::string operator()(const DictPtr&) const { return "dict"; }
    std::string operator()(Namespace*) const { return "Namespace"; }
    std::string operator()(const std::shared_ptr<Loop>&) const { return "LoopContext"; }
    std::string operator()(const Macro&) const { return "Macro"; }
    std::string operator()(Function) const { return "function"; }
    std::string operator()(const std::shared_ptr<const Method>&) const { return "builtin_function_or_method"; }
  };
  return std::visit(Name{}, value.data());
}

bool truthy(const Value& value) {
  if (value.is<Undefined>() || value.is<None>()) return false;
  if (const auto whole = value.integer()) return *whole != 0;
  if (value.is<double>()) return value.as<double>() != 0.0;
  if (const Text* text = value.text()) return !text->empty();
  if (const Sequence* items = value.sequence()) return items->kind == SequenceKind::kGenerator || !items->items.empty();
  if (const Dict* dict = value.dict()) return !dict->entries.empty();
  return true;
}

std::string excerpt(std::string_view text) {
  std::size_t end = 0;
  for (int count = 0; count < 100 && end < text.size(); ++count) end = char_at(text, end).end;
  return end < text.size() ? std::string(text.substr(0, end)) + "…" : std::string(text);
}

std::string float_repr(double value) {
  if (std::isnan(value)) return "nan";
  if (std::isinf(value)) return value < 0 ? "-inf" : "inf";
  char buffer[40];
  const auto written = std::to_chars(buffer, buffer + sizeof buffer, value, std::chars_format::scientific);
  const std::string_view scientific(buffer, static_cast<std::size_t>(written.ptr - buffer));
  const std::size_t e = scientific.find('e');
  const int exponent = std::atoi(std::string(scientific.substr(e + 1)).c_str());
  // Python writes an exponent where it is below -4 or at least 16.
  if (exponent < -4 || exponent >= 16) return std::string(scientific);
  const auto fixed = std::to_chars(buffer, buffer + sizeof buffer, value, std::chars_format::fixed);
  std::string out(buffer, fixed.ptr);
  if (out.find('.') == std::string::npos) out += ".0";
  return out;
}

Text to_text(Budget& budget, const Value& value) {
  if (const Text* text = value.text()) return *text;
  if (value.is<Undefined>()) return {};
  if (value.is<None>()) return {"None", Trust::kAll};
  if (value.is<bool>()) return {value.as<bool>() ? "True" : "False", Trust::kAll};
  if (value.is<std::int64_t>()) return {std::to_string(value.as<std::int64_t>()), Trust::kAll};
  if (value.is<double>()) return {float_repr(value.as<double>()), Trust::kAll};
  if (value.is<BigInteger>()) return {*value.as<BigInteger>().digits, Trust::kAll};
  if (const Sequence* sequence = value.sequence()) {
    if (sequence->kind == SequenceKind::kRange) return {range_text(*sequence), Trust::kAll};
    if (sequence->kind == SequenceKind::kGenerator) {
      fail("a generator is printed: the template misses a '| list' or '| join'");
    }
  }
  if (value.sequence() != nullptr || value.dict() != nullptr) {
    Text out;
    append_repr(budget, out, value);
    return out;
  }
  fail(concat("a value of type ", type_name(value), " is printed"));
}

TextPtr to_text_ptr(Budget& budget, const Value& value) {
  if (value.is<TextPtr>()) return value.as<TextPtr>();
  return make_text(budget, to_text(budget, value)).as<TextPtr>();
}

bool equal(Budget& budget, const Value& a, const Value& b) {
  budget.steps(1);
  if (a.number() && b.number()) {
    return a.integer() && b.integer() ? *a.integer() == *b.integer() : *a.number() == *b.number();
  }
  if (a.data().index() != b.data().index()) return false;
  if (const Text* text = a.text()) {
    budget.steps(std::min(text->size(), b.text()->size()) / 64);
    return text->bytes() == b.text()->bytes();
  }
  if (a.sequence() != nullptr) return equal_sequences(budget, *a.sequence(), *b.sequence());
  if (a.dict() != nullptr) return a.dict() == b.dict() || equal_dicts(budget, *a.dict(), *b.dict());
  if (a.is<BigInteger>()) return *a.as<BigInteger>().digits == *b.as<BigInteger>().digits;
  if (a.is<Namespace*>()) return a.as<Namespace*>() == b.as<Namespace*>();
  if (a.is<Macro>()) return a.as<Macro>().node == b.as<Macro>().node && a.as<Macro>().scope == b.as<Macro>().scope;
  return a.is<Undefined>() || a.is<None>();
}

bool less(Budget& budget, const Value& a, const Value& b) {
  budget.steps(1);
  for (const Value* side : {&a, &b}) {
    if (side->is<Undefined>()) fail(*side->as<Undefined>().why);
  }
  if (a.integer() && b.integer()) return *a.integer() < *b.integer();
  if (a.number() && b.number()) return *a.number() < *b.number();
  if (a.text() != nullptr && b.text() != nullptr) {
    // UTF-8 sorts as its code points do.
    budget.steps(std::min(a.text()->size(), b.text()->size()) / 64);
    return a.text()->bytes() < b.text()->bytes();
  }
  const Sequence *x = a.sequence(), *y = b.sequence();
  if (x == nullptr || y == nullptr || x->kind != y->kind || x->kind > SequenceKind::kTuple) fail_order(a, b);
  for (std::size_t i = 0; i < x->items.size() && i < y->items.size(); ++i) {
    if (!equal(budget, x->items[i], y->items[i])) return less(budget, x->items[i], y->items[i]);
  }
  return x->items.size() < y->items.size();
}

bool contains(Budget& budget, const Value& container, const Value& item) {
  if (const Text* text = container.text()) {
    if (item.text() == nullptr) {
      fail(concat("'in <string>' requires string as left operand, not ", type_name(item)));
    }
    budget.steps(text->size() / 64);
    return find_bytes(text->bytes(), item.text()->bytes()) != std::string_view::npos;
  }
  if (const Dict* dict = container.dict()) {
    check_hashable(item);
    return dict->find(item) != nullptr;
  }
  if (const Sequence* sequence = container.sequence()) {
    // A generator is used up to the item found.
    for (std::size_t at = sequence->taken; at < sequence->items.size(); ++at) {
      if (sequence->kind == SequenceKind::kGenerator) sequence->taken = at + 1;
      if (equal(budget, sequence->items[at], item)) return true;
    }
    return false;
  }
  if (container.is<Undefined>()) return false;
  fail(concat("argument of type '", type_name(container), "' is not iterable"));
}

std::int64_t length(const Value& value) {
  if (const Text* text = value.text()) return static_cast<std::int64_t>(count_chars(text->bytes()));
  if (const Sequence* sequence = value.sequence(); sequence != nullptr && sequence->kind != SequenceKind::kGenerator) {
    return static_cast<std::int64_t>(sequence->items.size());
  }
  if (const Dict* dict = value.dict()) return static_cast<std::int64_t>(dict->entries.size());
  if (value.is<std::shared_ptr<Loop>>()) return value.as<std::shared_ptr<Loop>>()->length();
  if (value.is<Undefined>()) return 0;
  fail(concat("object of type '", type_name(value), "' has no len()"));
}

std::vector<Value> items_of(Budget& budget, const Value& value) {
  std::vector<Value> out;
  if (const Sequence* sequence = value.sequence()) {
    budget.steps(sequence->items.size() - sequence->taken);
    out.assign(sequence->items.begin() + static_cast<std::ptrdiff_t>(sequence->taken), sequence->items.end());
    if (sequence->kind == SequenceKind::kGenerator) sequence->taken = sequence->items.size();
  } else if (const Dict* dict = value.dict()) {
    budget.steps(dict->entries.size());
    for (const auto& entry : dict->entries) out.push_back(entry.first);
  } else if (const Text* text = value.text()) {
    budget.steps(text->size());
    for (std::size_t at = 0; at < text->size();) {
      const std::size_t end = char_at(text->bytes(), at).end;
      out.push_back(make_text(budget, text->slice(at, end)));
      at = end;
    }
  } else if (!value.is<Undefined>()) {
    fail(concat("'", type_name(value), "' object is not iterable"));
  }
  return out;
}

std::int64_t to_integer(const Value& value, std::string_view what) {
  if (const auto whole = value.integer()) return *whole;
  if (value.is<Undefined>()) fail(*value.as<Undefined>().why);
  fail(concat(what, " must be an integer, not '", type_name(value), "'"));
}

}  // namespace multiverse::jinja

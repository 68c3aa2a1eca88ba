// Methods of strings, dicts and lists.
#include <algorithm>
#include <map>
#include <string_view>

#include "multiverse/base/check.h"

#include "tokenizer/jinja_ops.h"
#include "tokenizer/jinja_strings.h"

namespace multiverse::jinja {
namespace {

using Methods = std::map<std::string_view, MethodFunction>;

const Text& text_argument(const Value& value, std::string_view callee) {
  if (value.text() == nullptr) fail(concat(callee, "() wants a str, not '", type_name(value), "'"));
  return *value.text();
}

// An argument that may be None or absent.
const Text* optional_text(const Value* value, std::string_view callee) {
  return value == nullptr || value->is<None>() ? nullptr : &text_argument(*value, callee);
}

Value texts_to_list(Budget& budget, std::vector<Text> texts) {
  budget.steps(texts.size());
  std::vector<Value> items;
  items.reserve(texts.size());
  for (Text& text : texts) items.push_back(make_text(budget, std::move(text)));
  return make_list(std::move(items));
}

template <Side side>
Value strip_method(Budget& budget, const Value& self, const Arguments& arguments) {
  const BoundArguments bound("strip", arguments, {"chars"});
  return make_text(budget, strip(*self.text(), optional_text(bound.get(0), "strip"), side));
}

using Splitter = std::vector<Text> (*)(Budget&, const Text&, const Text*, std::int64_t);
template <Splitter splitter>
Value split_method(Budget& budget, const Value& self, const Arguments& arguments) {
  const BoundArguments bound("split", arguments, {"sep", "maxsplit"});
  const std::int64_t limit = bound.get(1) == nullptr ? -1 : to_integer(*bound.get(1), "maxsplit");
  budget.steps(self.text()->size() / 8);
  return texts_to_list(budget, splitter(budget, *self.text(), optional_text(bound.get(0), "split"), limit));
}

Value splitlines_method(Budget& budget, const Value& self, const Arguments& arguments) {
  const BoundArguments bound("splitlines", arguments, {"keepends"});
  budget.steps(self.text()->size() / 8);
  return texts_to_list(budget, split_lines(budget, *self.text(), bound.flag(0, false)));
}

using Mapper = Text (*)(const Text&);
template <Mapper mapper>
Value case_method(Budget& budget, const Value& self, const Arguments& arguments) {
  const BoundArguments bound("case", arguments, {});
  budget.steps(self.text()->size() / 8);
  return make_text(budget, mapper(*self.text()));
}

// The byte range of text[start:end] that the arguments `first` and `first + 1` give, in characters. `beyond` is set
// where start is beyond the end, where Python finds not even "".
struct Window {
  std::size_t begin, end;
  bool beyond;
};
Window window(Budget& budget, const Text& text, const BoundArguments& bound, std::size_t first) {
  const auto given = [&](std::size_t index) { return bound.get(index) == nullptr ? Value(None{}) : *bound.get(index); };
  const Value start = given(first), stop = given(first + 1);
  if (start.is<None>() && stop.is<None>()) return {0, text.size(), false};
  budget.steps(text.size() / 8);
  const std::vector<std::size_t> offsets = char_offsets(text.bytes());
  const auto size = static_cast<std::int64_t>(offsets.size()) - 1;
  const SliceRange range = slice_range(start, stop, None{}, size);
  const auto at = [&](std::int64_t index) { return offsets[static_cast<std::size_t>(index)]; };
  const bool beyond = start.integer() && *start.integer() > size;
  return {at(range.start), at(range.start + range.count), beyond};
}

template <bool at_end>
Value affix_method(Budget& budget, const Value& self, const Arguments& arguments) {
  const std::string_view name = at_end ? "endswith" : "startswith";
  const BoundArguments bound(name, arguments, {"prefix", "start", "end"});
  const Text& text = *self.text();
  const Window part = window(budget, text, bound, 1);
  const std::string_view bytes = std::string_view(text.bytes()).substr(part.begin, part.end - part.begin);
  const auto matches = [&](const Value& wanted) {
    const std::string_view affix = text_argument(wanted, name).bytes();
    budget.steps(affix.size() / 64 + 1);
    if (part.beyond || affix.size() > bytes.size()) return false;
    return bytes.substr(at_end ? bytes.size() - affix.size() : 0, affix.size()) == affix;
  };
  const Value& wanted = bound.require(0);
  if (wanted.sequence() == nullptr || wanted.sequence()->kind != SequenceKind::kTuple) return matches(wanted);
  const auto& choices = wanted.sequence()->items;
  return std::any_of(choices.begin(), choices.end(), matches);
}

// Index in characters of the first (or last) occurrence, or -1.
template <bool from_right>
std::int64_t find_chars(Budget& budget, const Value& self, const Arguments& arguments) {
  const BoundArguments bound("find", arguments, {"sub", "start", "end"});
  const Text& text = *self.text();
  budget.steps(text.size() / 64);
  const Window part = window(budget, text, bound, 1);
  const std::string_view bytes = std::string_view(text.bytes()).substr(part.begin, part.end - part.begin);
  const std::string& wanted = text_argument(bound.require(0), "find").bytes();
  const std::size_t found = from_right ? rfind_bytes(bytes, wanted) : find_bytes(bytes, wanted);
  if (found == std::string_view::npos || part.beyond) return -1;
  return static_cast<std::int64_t>(count_chars(std::string_view(text.bytes()).substr(0, part.begin + found)));
}

template <bool from_right>
Value find_method_of_text(Budget& budget, const Value& self, const Arguments& arguments) {
  return find_chars<from_right>(budget, self, arguments);
}

Value index_method(Budget& budget, const Value& self, const Arguments& arguments) {
  const std::int64_t found = find_chars<false>(budget, self, arguments);
  if (found < 0) fail("substring not found");
  return found;
}

Value count_method(Budget& budget, const Value& self, const Arguments& arguments) {
  const BoundArguments bound("count", arguments, {"sub"});
  budget.steps(self.text()->size() / 16);
  return count_occurrences(*self.text(), text_argument(bound.require(0), "count"));
}

Value replace_method(Budget& budget, const Value& self, const Arguments& arguments) {
  const BoundArguments bound("replace", arguments, {"old", "new", "count"});
  const std::int64_t count = bound.get(2) == nullptr ? -1 : to_integer(*bound.get(2), "count");
  budget.steps(self.text()->size() / 16);
  return make_text(budget, replace(budget, *self.text(), text_argument(bound.require(0), "replace"),
                                   text_argument(bound.require(1), "replace"), count));
}

Value join_method(Budget& budget, const Value& self, const Arguments& arguments) {
  const BoundArguments bound("join", arguments, {"iterable"});
  std::vector<TextPtr> parts;
  for (const Value& item : items_of(budget, bound.require(0))) {
    text_argument(item, "join");
    parts.push_back(item.as<TextPtr>());
  }
  return make_text(budget, join(budget, *self.text(), parts));
}

template <bool at_end>
Value remove_affix_method(Budget& budget, const Value& self, const Arguments& arguments) {
  const BoundArguments bound(at_end ? "removesuffix" : "removeprefix", arguments, {"affix"});
  const std::string_view affix = text_argument(bound.require(0), "removeprefix").bytes();
  const std::string_view bytes = self.text()->bytes();
  if (affix.size() > bytes.size()) return self;
  if (bytes.substr(at_end ? bytes.size() - affix.size() : 0, affix.size()) != affix) return self;
  return make_text(budget, at_end ? self.text()->slice(0, bytes.size() - affix.size())
                                  : self.text()->slice(affix.size(), bytes.size()));
}

using CharacterTest = bool (*)(char32_t);
template <CharacterTest test>
Value all_characters_method(Budget& budget, const Value& self, const Arguments& arguments) {
  const BoundArguments bound("is", arguments, {});
  const std::string& bytes = self.text()->bytes();
  budget.steps(bytes.size() / 16);
  for (std::size_t at = 0; at < bytes.size();) {
    const Character next = char_at(bytes, at);
    if (!test(next.code)) return false;
    at = next.end;
  }
  return !bytes.empty();
}

bool is_ascii_digit(char32_t code) {
  return code >= '0' && code <= '9';
}

Value dict_view(Budget& budget, const Dict& dict, std::string_view which) {
  budget.steps(dict.entries.size());
  std::vector<Value> items;
  for (const auto& [key, value] : dict.entries) {
    if (which == "dict_keys") items.push_back(key);
    if (which == "dict_values") items.push_back(value);
    if (which == "dict_items") items.push_back(make_sequence(SequenceKind::kTuple, {key, value}));
  }
  return make_sequence(SequenceKind::kView, std::move(items), std::string(which));
}

Value items_method(Budget& budget, const Value& self, const Arguments& arguments) {
  const BoundArguments bound("items", arguments, {});
  return dict_view(budget, *self.dict(), "dict_items");
}

Value keys_method(Budget& budget, const Value& self, const Arguments& arguments) {
  const BoundArguments bound("keys", arguments, {});
  return dict_view(budget, *self.dict(), "dict_keys");
}

Value values_method(Budget& budget, const Value& self, const Arguments& arguments) {
  const BoundArguments bound("values", arguments, {});
  return dict_view(budget, *self.dict(), "dict_values");
}

Value get_method(Budget&, const Value& self, const Arguments& arguments) {
  const BoundArguments bound("get", arguments, {"key", "default"});
  check_hashable(bound.require(0));
  if (const Value* found = self.dict()->find(bound.require(0))) return *found;
  return bound.get(1) == nullptr ? Value(None{}) : *bound.get(1);
}

Value copy_method(Budget&, const Value& self, const Arguments& arguments) {
  const BoundArguments bound("copy", arguments, {});
  return self;  // immutable: the copy cannot be told from it
}

Value list_count_method(Budget& budget, const Value& self, const Arguments& arguments) {
  const BoundArguments bound("count", arguments, {"value"});
  const auto& items = self.sequence()->items;
  return static_cast<std::int64_t>(std::count_if(
      items.begin(), items.end(), [&](const Value& item) { return equal(budget, item, bound.require(0)); }));
}

Value list_index_method(Budget& budget, const Value& self, const Arguments& arguments) {
  const BoundArguments bound("index", arguments, {"value"});
  const auto& items = self.sequence()->items;
  const auto found = std::find_if(items.begin(), items.end(),
                                  [&](const Value& item) { return equal(budget, item, bound.require(0)); });
  if (found == items.end()) fail("the value is not in the list");
  return std::int64_t{found - items.begin()};
}

Value refused_method(Budget&, const Value& self, const Arguments&) {
  fail(concat("a method that changes a '", type_name(self), "' is not allowed in a template; use namespace()"));
}

const Methods& text_methods() {
  static const Methods methods = {
      {"capitalize", case_method<capitalize>},
      {"count", count_method},
      {"endswith", affix_method<true>},
      {"find", find_method_of_text<false>},
      {"index", index_method},
      {"isdigit", all_characters_method<is_ascii_digit>},
      {"isspace", all_characters_method<is_space>},
      {"join", join_method},
      {"lower", case_method<lower>},
      {"lstrip", strip_method<Side::kLeft>},
      {"removeprefix", remove_affix_method<false>},
      {"removesuffix", remove_affix_method<true>},
      {"replace", replace_method},
      {"rfind", find_method_of_text<true>},
      {"rsplit", split_method<split_from_right>},
      {"rstrip", strip_method<Side::kRight>},
      {"split", split_method<split>},
      {"splitlines", splitlines_method},
      {"startswith", affix_method<false>},
      {"strip", strip_method<Side::kBoth>},
      {"title", case_method<title_method>},
      {"upper", case_method<upper>},
  };
  return methods;
}

const Methods& dict_methods() {
  static const Methods methods = {
      {"clear", refused_method},   {"copy", copy_method},          {"get", get_method},
      {"items", items_method},     {"keys", keys_method},          {"pop", refused_method},
      {"popitem", refused_method}, {"setdefault", refused_method}, {"update", refused_method},
      {"values", values_method},
  };
  return methods;
}

const Methods& list_methods() {
  static const Methods methods = {
      {"append", refused_method},   {"clear", refused_method},  {"copy", copy_method},
      {"count", list_count_method}, {"extend", refused_method}, {"index", list_index_method},
      {"insert", refused_method},   {"pop", refused_method},    {"remove", refused_method},
      {"reverse", refused_method},  {"sort", refused_method},
  };
  return methods;
}

}  // namespace

MethodFunction find_method(const Value& object, std::string_view name) {
  const Methods* methods = nullptr;
  if (object.text() != nullptr) methods = &text_methods();
  if (object.dict() != nullptr) methods = &dict_methods();
  if (object.sequence() != nullptr && object.sequence()->kind <= SequenceKind::kTuple) methods = &list_methods();
  if (methods == nullptr) return nullptr;
  const auto found = methods->find(name);
  return found == methods->end() ? nullptr : found->second;
}

bool is_method_name(std::string_view name) {
  return name == "cycle" || text_methods().count(name) > 0 || dict_methods().count(name) > 0 ||
         list_methods().count(name) > 0;
}

}  // namespace multiverse::jinja

// Filters that take a sequence. Those that Python makes generators are computed at once here: their items have no
// effects.
#include <algorithm>
#include <functional>
#include <set>

#include "multiverse/base/check.h"

#include "tokenizer/jinja_filters.h"
#include "tokenizer/jinja_ops.h"
#include "tokenizer/jinja_strings.h"

namespace multiverse::jinja {
namespace {

Value generator(std::vector<Value> items) {
  return make_sequence(SequenceKind::kGenerator, std::move(items));
}

// What a value is sorted, compared and told apart by: lower case unless told otherwise, as Jinja's ignore_case.
Value sort_key(Budget& budget, const Value& item, const Value* attribute, bool case_sensitive) {
  Value key = attribute == nullptr ? item : get_path(budget, item, *attribute);
  if (!case_sensitive && key.text() != nullptr) return make_text(budget, lower(*key.text()));
  return key;
}

using Keyed = std::pair<Value, Value>;  // key, item

std::vector<Keyed> with_keys(const std::vector<Value>& items, const std::function<Value(const Value&)>& key) {
  std::vector<Keyed> keyed;
  keyed.reserve(items.size());
  for (const Value& item : items) keyed.emplace_back(key(item), item);
  return keyed;
}

void sort_keyed(Budget& budget, std::vector<Keyed>& keyed, bool reverse) {
  std::stable_sort(keyed.begin(), keyed.end(), [&](const Keyed& a, const Keyed& b) {
    return reverse ? less(budget, b.first, a.first) : less(budget, a.first, b.first);
  });
}

std::vector<Value> items_of_keyed(std::vector<Keyed> keyed) {
  std::vector<Value> items;
  items.reserve(keyed.size());
  for (Keyed& entry : keyed) items.push_back(std::move(entry.second));
  return items;
}

Value extreme(Budget& budget, const Value& input, const Arguments& arguments, bool greatest) {
  const BoundArguments bound(greatest ? "max" : "min", arguments, {"case_sensitive", "attribute"});
  const std::vector<Value> items = items_of(budget, input);
  if (items.empty()) return undefined("No aggregated item, sequence was empty.");
  const bool case_sensitive = bound.flag(0, false);
  std::size_t best = 0;
  Value best_key = sort_key(budget, items[0], bound.get(1), case_sensitive);
  for (std::size_t i = 1; i < items.size(); ++i) {
    Value key = sort_key(budget, items[i], bound.get(1), case_sensitive);
    if (greatest ? less(budget, best_key, key) : less(budget, key, best_key)) {
      best = i;
      best_key = std::move(key);
    }
  }
  return items[best];
}

std::string_view name_argument(const Value& value, std::string_view what) {
  if (value.text() == nullptr) fail(concat("the name of a ", what, " must be a string"));
  return value.text()->bytes();
}

// select, reject, selectattr, rejectattr: `wanted` is what the test (or the truth of the item) must be.
Value choose(Budget& budget, const Value& input, const Arguments& arguments, bool wanted, bool by_attribute) {
  if (!truthy(input)) return generator({});
  Arguments rest = arguments;
  const auto take = [&] {
    Value first = std::move(rest.positional.front());
    rest.positional.erase(rest.positional.begin());
    return first;
  };
  if (by_attribute && rest.positional.empty()) fail("Missing parameter for attribute name");
  const Value attribute = by_attribute ? take() : Value(None{});
  TestFunction test = nullptr;
  if (!rest.positional.empty()) {
    const Value name = take();
    test = find_test(name_argument(name, "test"));
    if (test == nullptr) fail(concat("no test named '", excerpt(name.text()->bytes()), "'"));
  }
  std::vector<Value> chosen;
  for (Value& item : items_of(budget, input)) {
    const Value subject = by_attribute ? get_path(budget, item, attribute) : item;
    if ((test == nullptr ? truthy(subject) : test(budget, subject, rest)) == wanted) chosen.push_back(std::move(item));
  }
  return generator(std::move(chosen));
}

}  // namespace

Value filter_batch(Budget& budget, const Value& input, const Arguments& arguments) {
  const BoundArguments bound("batch", arguments, {"linecount", "fill_with"});
  const auto size = static_cast<std::size_t>(std::max<std::int64_t>(1, to_integer(bound.require(0), "linecount")));
  std::vector<Value> batches, current;
  for (Value& item : items_of(budget, input)) {
    if (current.size() == size) batches.push_back(make_list(std::exchange(current, {})));
    current.push_back(std::move(item));
  }
  if (!current.empty()) {
    if (bound.get(1) != nullptr && !bound.get(1)->is<None>()) {
      budget.steps(size - current.size());
      current.resize(size, *bound.get(1));
    }
    batches.push_back(make_list(std::move(current)));
  }
  return generator(std::move(batches));
}

Value filter_dictsort(Budget& budget, const Value& input, const Arguments& arguments) {
  const BoundArguments bound("dictsort", arguments, {"case_sensitive", "by", "reverse"});
  if (input.dict() == nullptr) fail(concat("dictsort wants a dict, not '", type_name(input), "'"));
  const bool case_sensitive = bound.flag(0, false);
  const std::string by = bound.get(1) == nullptr ? "key" : std::string(name_argument(*bound.get(1), "column"));
  if (by != "key" && by != "value") fail("You can only sort by either \"key\" or \"value\"");
  std::vector<Keyed> keyed;
  for (const auto& [key, value] : input.dict()->entries) {
    keyed.emplace_back(sort_key(budget, by == "key" ? key : value, nullptr, case_sensitive),
                       make_sequence(SequenceKind::kTuple, {key, value}));
  }
  sort_keyed(budget, keyed, bound.flag(2, false));
  return make_list(items_of_keyed(std::move(keyed)));
}

Value filter_first(Budget& budget, const Value& input, const Arguments& arguments) {
  const BoundArguments bound("first", arguments, {});
  if (const Sequence* sequence = input.sequence()) {
    if (sequence->taken == sequence->items.size()) return undefined("No first item, sequence was empty.");
    Value first = sequence->items[sequence->taken];
    if (sequence->kind == SequenceKind::kGenerator) ++sequence->taken;
    return first;
  }
  if (input.text() != nullptr && !input.text()->empty()) return get_item(budget, input, std::int64_t{0});
  const std::vector<Value> items = items_of(budget, input);
  return items.empty() ? undefined("No first item, sequence was empty.") : items.front();
}

Value filter_last(Budget& budget, const Value& input, const Arguments& arguments) {
  const BoundArguments bound("last", arguments, {});
  if (const Sequence* sequence = input.sequence()) {
    if (sequence->kind == SequenceKind::kGenerator) fail("'generator' object is not reversible");
    return sequence->items.empty() ? undefined("No last item, sequence was empty.") : sequence->items.back();
  }
  if (input.text() != nullptr && !input.text()->empty()) return get_item(budget, input, std::int64_t{-1});
  const std::vector<Value> items = items_of(budget, input);
  return items.empty() ? undefined("No last item, sequence was empty.") : items.back();
}

Value filter_groupby(Budget& budget, const Value& input, const Arguments& arguments) {
  const BoundArguments bound("groupby", arguments, {"attribute", "default", "case_sensitive"});
  const Value* otherwise = bound.get(1) != nullptr && bound.get(1)->is<None>() ? nullptr : bound.get(1);
  const bool case_sensitive = bound.flag(2, false);
  const auto attribute = [&](const Value& item) { return get_path(budget, item, bound.require(0), otherwise); };
  std::vector<Keyed> keyed = with_keys(items_of(budget, input), [&](const Value& item) {
    return sort_key(budget, attribute(item), nullptr, case_sensitive);
  });
  sort_keyed(budget, keyed, false);
  std::vector<Value> groups;
  for (std::size_t begin = 0; begin < keyed.size();) {
    std::vector<Value> members;
    std::size_t end = begin;
    while (end < keyed.size() && equal(budget, keyed[begin].first, keyed[end].first)) {
      members.push_back(keyed[end++].second);
    }
    Value key = case_sensitive ? keyed[begin].first : attribute(members.front());
    groups.push_back(make_sequence(SequenceKind::kTuple, {std::move(key), make_list(std::move(members))}));
    begin = end;
  }
  return make_list(std::move(groups));
}

Value filter_items(Budget& budget, const Value& input, const Arguments& arguments) {
  const BoundArguments bound("items", arguments, {});
  if (!input.is<Undefined>() && input.dict() == nullptr) fail("Can only get item pairs from a mapping.");
  std::vector<Value> pairs;
  if (const Dict* dict = input.dict()) {
    budget.steps(dict->entries.size());
    for (const auto& [key, value] : dict->entries) pairs.push_back(make_sequence(SequenceKind::kTuple, {key, value}));
  }
  return generator(std::move(pairs));
}

Value filter_join(Budget& budget, const Value& input, const Arguments& arguments) {
  const BoundArguments bound("join", arguments, {"d", "attribute"});
  const bool by_attribute = bound.get(1) != nullptr && !bound.get(1)->is<None>();
  std::vector<TextPtr> parts;
  for (const Value& item : items_of(budget, input)) {
    parts.push_back(to_text_ptr(budget, by_attribute ? get_path(budget, item, *bound.get(1)) : item));
  }
  const TextPtr separator =
      bound.get(0) == nullptr ? std::make_shared<const Text>() : to_text_ptr(budget, *bound.get(0));
  return make_text(budget, join(budget, *separator, parts));
}

Value filter_length(Budget& budget, const Value& input, const Arguments& arguments) {
  const BoundArguments bound("length", arguments, {});
  if (input.text() != nullptr) budget.steps(input.text()->size() / 16);
  return length(input);
}

Value filter_list(Budget& budget, const Value& input, const Arguments& arguments) {
  const BoundArguments bound("list", arguments, {});
  return make_list(items_of(budget, input));
}

Value filter_map(Budget& budget, const Value& input, const Arguments& arguments) {
  std::vector<Value> mapped;
  if (!truthy(input)) return generator({});
  if (arguments.positional.empty()) {
    const BoundArguments bound("map", arguments, {"attribute", "default"});
    if (bound.get(0) == nullptr) fail("map requires a filter argument");
    const Value* otherwise = bound.get(1) != nullptr && bound.get(1)->is<None>() ? nullptr : bound.get(1);
    for (const Value& item : items_of(budget, input)) {
      mapped.push_back(get_path(budget, item, *bound.get(0), otherwise));
    }
    return generator(std::move(mapped));
  }
  // map('map', 'map', …) recurses once for each.
  if (arguments.positional.size() > 16) fail("map takes at most 16 arguments");
  const FilterFunction filter = find_filter(name_argument(arguments.positional[0], "filter"));
  if (filter == nullptr) fail(concat("no filter named '", excerpt(arguments.positional[0].text()->bytes()), "'"));
  Arguments rest = arguments;
  rest.positional.erase(rest.positional.begin());
  for (const Value& item : items_of(budget, input)) mapped.push_back(filter(budget, item, rest));
  return generator(std::move(mapped));
}

Value filter_max(Budget& budget, const Value& input, const Arguments& arguments) {
  return extreme(budget, input, arguments, true);
}

Value filter_min(Budget& budget, const Value& input, const Arguments& arguments) {
  return extreme(budget, input, arguments, false);
}

Value filter_select(Budget& budget, const Value& input, const Arguments& arguments) {
  return choose(budget, input, arguments, true, false);
}

Value filter_reject(Budget& budget, const Value& input, const Arguments& arguments) {
  return choose(budget, input, arguments, false, false);
}

Value filter_selectattr(Budget& budget, const Value& input, const Arguments& arguments) {
  return choose(budget, input, arguments, true, true);
}

Value filter_rejectattr(Budget& budget, const Value& input, const Arguments& arguments) {
  return choose(budget, input, arguments, false, true);
}

Value filter_reverse(Budget& budget, const Value& input, const Arguments& arguments) {
  const BoundArguments bound("reverse", arguments, {});
  if (input.text() != nullptr) return get_slice(budget, input, None{}, None{}, std::int64_t{-1});
  std::vector<Value> items = items_of(budget, input);
  std::reverse(items.begin(), items.end());
  return generator(std::move(items));
}

Value filter_sort(Budget& budget, const Value& input, const Arguments& arguments) {
  const BoundArguments bound("sort", arguments, {"reverse", "case_sensitive", "attribute"});
  const bool case_sensitive = bound.flag(1, false);
  const auto key = [&](const Value& item) -> Value {
    if (bound.get(2) == nullptr || bound.get(2)->text() == nullptr) {
      return sort_key(budget, item, bound.get(2), case_sensitive);
    }
    // Several attributes, separated by commas, sort as a tuple.
    std::vector<Value> keys;
    const Text comma(",", Trust::kAll);
    for (Text& part : split(budget, *bound.get(2)->text(), &comma, -1)) {
      const Value attribute = make_text(budget, std::move(part));
      keys.push_back(sort_key(budget, item, &attribute, case_sensitive));
    }
    return make_list(std::move(keys));
  };
  std::vector<Keyed> keyed = with_keys(items_of(budget, input), key);
  sort_keyed(budget, keyed, bound.flag(0, false));
  return make_list(items_of_keyed(std::move(keyed)));
}

Value filter_sum(Budget& budget, const Value& input, const Arguments& arguments) {
  const BoundArguments bound("sum", arguments, {"attribute", "start"});
  Value sum = bound.get(1) == nullptr ? Value(std::int64_t{0}) : *bound.get(1);
  if (sum.text() != nullptr) fail("sum() can't sum strings [use ''.join(seq) instead]");
  const bool by_attribute = bound.get(0) != nullptr && !bound.get(0)->is<None>();
  for (const Value& item : items_of(budget, input)) {
    sum = binary(budget, BinaryOp::kAdd, sum, by_attribute ? get_path(budget, item, *bound.get(0)) : item);
  }
  return sum;
}

Value filter_unique(Budget& budget, const Value& input, const Arguments& arguments) {
  const BoundArguments bound("unique", arguments, {"case_sensitive", "attribute"});
  const bool case_sensitive = bound.flag(0, false);
  std::set<Value, KeyLess> seen;
  std::vector<Value> kept;
  for (Value& item : items_of(budget, input)) {
    Value key = sort_key(budget, item, bound.get(1), case_sensitive);
    check_hashable(key);
    if (seen.insert(std::move(key)).second) kept.push_back(std::move(item));
  }
  return generator(std::move(kept));
}

}  // namespace multiverse::jinja

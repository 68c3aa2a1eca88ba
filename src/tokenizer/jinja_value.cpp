#include "tokenizer/jinja_value.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "multiverse/base/check.h"

#include "tokenizer/jinja_ops.h"

namespace multiverse::jinja {
namespace {

int depth_of(const Value& value) {
  if (value.sequence() != nullptr) return value.sequence()->depth;
  if (value.dict() != nullptr) return value.dict()->depth;
  if (value.is<std::shared_ptr<const Method>>()) return depth_of(value.as<std::shared_ptr<const Method>>()->self);
  return 0;
}

int checked_depth(int depth) {
  if (depth > kMaxValueDepth) {
    throw TemplateError(TemplateError::Kind::kLimit,
                        concat("lists or dicts inside each other more than ", kMaxValueDepth, " deep"));
  }
  return depth;
}

// Classes of keys: numbers compare among themselves, so do texts and tuples.
int key_class(const Value& value) {
  if (value.number() || value.is<BigInteger>()) return 0;
  if (value.text() != nullptr) return 1;
  if (value.sequence() != nullptr) return 2;
  return 3;
}

bool number_less(const Value& a, const Value& b) {
  if (a.is<BigInteger>() && b.is<BigInteger>()) return *a.as<BigInteger>().digits < *b.as<BigInteger>().digits;
  if (a.integer() && b.integer()) return *a.integer() < *b.integer();
  if (a.is<BigInteger>() != b.is<BigInteger>()) return b.is<BigInteger>();
  const double x = *a.number(), y = *b.number();
  if (std::isnan(x) || std::isnan(y)) return !std::isnan(x) && std::isnan(y);
  return x < y;
}

}  // namespace

std::optional<std::int64_t> Value::integer() const {
  if (is<std::int64_t>()) return as<std::int64_t>();
  if (is<bool>()) return as<bool>() ? 1 : 0;
  return std::nullopt;
}

std::optional<double> Value::number() const {
  if (is<double>()) return as<double>();
  if (const auto whole = integer()) return static_cast<double>(*whole);
  return std::nullopt;
}

bool KeyLess::operator()(const Value& a, const Value& b) const {
  const int class_a = key_class(a), class_b = key_class(b);
  if (class_a != class_b) return class_a < class_b;
  switch (class_a) {
    case 0:
      return number_less(a, b);
    case 1:
      return a.text()->bytes() < b.text()->bytes();
    case 2:
      return std::lexicographical_compare(a.sequence()->items.begin(), a.sequence()->items.end(),
                                          b.sequence()->items.begin(), b.sequence()->items.end(), *this);
    default:
      return a.data().index() < b.data().index();
  }
}

void check_hashable(const Value& value) {
  const Sequence* items = value.sequence();
  if (value.is<DictPtr>() || (items != nullptr && items->kind != SequenceKind::kTuple)) {
    fail(concat("unhashable type: '", type_name(value), "'"));
  }
  if (items != nullptr) {
    for (const Value& item : items->items) check_hashable(item);
  }
}

const Value* Dict::find(const Value& key) const {
  const KeyLess less;
  const auto found = std::lower_bound(order.begin(), order.end(), key, [&](std::uint32_t at, const Value& wanted) {
    return less(entries[at].first, wanted);
  });
  if (found == order.end() || less(key, entries[*found].first)) return nullptr;
  return &entries[*found].second;
}

const Value* Dict::find(std::string_view key) const {
  // A few entries are the rule (messages); there a scan needs no Value made for the key.
  if (entries.size() <= 8) {
    for (const auto& [name, value] : entries) {
      if (name.text() != nullptr && name.text()->bytes() == key) return &value;
    }
    return nullptr;
  }
  return find(Value(std::make_shared<const Text>(key, Trust::kNone)));
}

bool Loop::peek(std::size_t count) {
  while (ahead.size() < count && pull) {
    std::optional<Value> item = pull();
    if (!item) break;
    ahead.push_back(std::move(*item));
  }
  return ahead.size() >= count;
}

bool Loop::advance() {
  if (!peek(1)) return false;
  previous = std::move(current);
  current = std::move(ahead.front());
  ahead.pop_front();
  ++index0;
  return true;
}

std::int64_t Loop::length() {
  while (peek(ahead.size() + 1)) {
  }
  return index0 + 1 + static_cast<std::int64_t>(ahead.size());
}

BoundArguments::BoundArguments(std::string_view callee, const Arguments& arguments,
                               std::initializer_list<std::string_view> names)
    : callee_(callee), names_(names), values_(names.size(), nullptr) {
  if (arguments.positional.size() > names_.size()) {
    fail(concat(callee, "() takes at most ", names_.size(), " arguments, got ", arguments.positional.size()));
  }
  for (std::size_t i = 0; i < arguments.positional.size(); ++i) values_[i] = &arguments.positional[i];
  for (const auto& [name, value] : arguments.named) {
    const auto found = std::find(names_.begin(), names_.end(), name);
    if (found == names_.end()) fail(concat(callee, "() got an unexpected keyword argument '", name, "'"));
    const Value*& slot = values_[static_cast<std::size_t>(found - names_.begin())];
    if (slot != nullptr) fail(concat(callee, "() got multiple values for argument '", name, "'"));
    slot = &value;
  }
}

const Value& BoundArguments::require(std::size_t index) const {
  if (values_[index] == nullptr) fail(concat(callee_, "() misses the argument '", names_[index], "'"));
  return *values_[index];
}

bool BoundArguments::flag(std::size_t index, bool otherwise) const {
  return values_[index] == nullptr ? otherwise : truthy(*values_[index]);
}

Value undefined(std::string why) {
  return Undefined{std::make_shared<const std::string>(std::move(why))};
}

Value make_text(Budget& budget, Text text) {
  budget.bytes(sizeof(Text) + text.size() + 16 * text.num_runs());
  return std::make_shared<const Text>(std::move(text));
}

Value make_text(Budget& budget, std::string_view bytes, Trust trust) {
  return make_text(budget, Text(bytes, trust));
}

Value make_sequence(SequenceKind kind, std::vector<Value> items, std::string label) {
  auto made = std::make_shared<Sequence>();
  for (const Value& item : items) made->depth = std::max(made->depth, checked_depth(depth_of(item) + 1));
  made->kind = kind;
  made->items = std::move(items);
  made->label = std::move(label);
  return SequencePtr(std::move(made));
}

Value make_dict(std::vector<std::pair<Value, Value>> entries) {
  auto made = std::make_shared<Dict>();
  for (const auto& [key, value] : entries) {
    check_hashable(key);
    made->depth = std::max(made->depth, checked_depth(std::max(depth_of(key), depth_of(value)) + 1));
  }
  const KeyLess less;
  std::vector<std::uint32_t> order(entries.size());
  std::iota(order.begin(), order.end(), 0U);
  std::stable_sort(order.begin(), order.end(),
                   [&](std::uint32_t a, std::uint32_t b) { return less(entries[a].first, entries[b].first); });
  // Of equal keys (neighbours now, in their order of writing) the first keeps its place and takes the last's value.
  std::vector<bool> dropped(entries.size(), false);
  bool any_dropped = false;
  for (std::size_t i = 1, first = 0; i < order.size(); ++i) {
    if (less(entries[order[first]].first, entries[order[i]].first)) {
      first = i;
    } else {
      entries[order[first]].second = std::move(entries[order[i]].second);
      dropped[order[i]] = any_dropped = true;
    }
  }
  if (any_dropped) {
    std::vector<std::pair<Value, Value>> kept;
    for (std::size_t i = 0; i < entries.size(); ++i) {
      if (!dropped[i]) kept.push_back(std::move(entries[i]));
    }
    return make_dict(std::move(kept));
  }
  made->entries = std::move(entries);
  made->order = std::move(order);
  return DictPtr(std::move(made));
}

}  // namespace multiverse::jinja

// Attributes, items and slices.
#include <algorithm>
#include <string>

#include "multiverse/base/check.h"

#include "tokenizer/jinja_ops.h"

namespace multiverse::jinja {
namespace {

Value loop_cycle(Budget&, const Value& self, const Arguments& arguments) {
  if (arguments.positional.empty()) fail("no items for cycling given");
  const auto index = static_cast<std::size_t>(self.as<std::shared_ptr<Loop>>()->index0);
  return arguments.positional[index % arguments.positional.size()];
}

std::optional<Value> loop_attribute(const std::shared_ptr<Loop>& loop, std::string_view name) {
  const std::int64_t index0 = loop->index0;
  if (name == "index0") return Value(index0);
  if (name == "index") return Value(index0 + 1);
  if (name == "first") return Value(index0 == 0);
  if (name == "last") return Value(!loop->peek(1));
  if (name == "length") return Value(loop->length());
  if (name == "revindex") return Value(loop->length() - index0);
  if (name == "revindex0") return Value(loop->length() - index0 - 1);
  if (name == "depth0") return Value(loop->depth0);
  if (name == "depth") return Value(loop->depth0 + 1);
  if (name == "previtem") return index0 == 0 ? undefined("there is no previous item") : loop->previous;
  if (name == "nextitem") return loop->peek(1) ? loop->ahead.front() : undefined("there is no next item");
  if (name == "cycle") return Value(std::make_shared<const Method>(Method{loop, "cycle", loop_cycle}));
  return std::nullopt;
}

// Python's getattr(), without the items.
std::optional<Value> own_attribute(const Value& object, std::string_view name) {
  if (object.is<Namespace*>()) {
    const auto& attributes = object.as<Namespace*>()->attributes;
    const auto found = attributes.find(name);
    return found == attributes.end() ? std::nullopt : std::optional<Value>(found->second);
  }
  if (object.is<std::shared_ptr<Loop>>()) return loop_attribute(object.as<std::shared_ptr<Loop>>(), name);
  if (const MethodFunction method = find_method(object, name)) {
    return Value(std::make_shared<const Method>(Method{object, std::string(name), method}));
  }
  return std::nullopt;
}

const Value* sequence_item(const Sequence& sequence, std::int64_t index) {
  if (sequence.kind > SequenceKind::kRange) return nullptr;
  const auto size = static_cast<std::int64_t>(sequence.items.size());
  if (index < 0) index += size;
  return index < 0 || index >= size ? nullptr : &sequence.items[static_cast<std::size_t>(index)];
}

std::optional<Value> text_item(Budget& budget, const Text& text, std::int64_t index) {
  budget.steps(text.size() / 16);
  const std::string& bytes = text.bytes();
  if (index < 0) index += static_cast<std::int64_t>(count_chars(bytes));
  if (index < 0) return std::nullopt;
  for (std::size_t at = 0; at < bytes.size(); --index) {
    const std::size_t end = char_at(bytes, at).end;
    if (index == 0) return make_text(budget, text.slice(at, end));
    at = end;
  }
  return std::nullopt;
}

// Python's object[key], or nothing where that raises.
std::optional<Value> own_item(Budget& budget, const Value& object, const Value& key) {
  const Value* found = nullptr;
  if (const Dict* dict = object.dict()) {
    const Sequence* items = key.sequence();
    if (key.is<DictPtr>() || (items != nullptr && items->kind != SequenceKind::kTuple)) return std::nullopt;
    found = dict->find(key);
  } else if (const auto index = key.integer()) {
    if (const Text* text = object.text()) return text_item(budget, *text, *index);
    if (const Sequence* sequence = object.sequence()) found = sequence_item(*sequence, *index);
  }
  return found == nullptr ? std::nullopt : std::optional<Value>(*found);
}

Value missing(const Value& object, const Value& key) {
  const std::string type = object.is<None>() ? "None" : type_name(object) + " object";
  if (const Text* name = key.text()) {
    // The name may be a user's whole text.
    return undefined(concat("'", type, "' has no attribute '", excerpt(name->bytes()), "'"));
  }
  const auto index = key.integer();
  return undefined(concat(type, " has no element ", index ? std::to_string(*index) : type_name(key)));
}

}  // namespace

Value get_attribute(Budget& budget, const Value& object, std::string_view name) {
  budget.steps(1);
  if (object.is<Undefined>()) fail(*object.as<Undefined>().why);
  if (auto value = own_attribute(object, name)) return *std::move(value);
  if (const Dict* dict = object.dict()) {
    if (const Value* found = dict->find(name)) return *found;
  }
  return missing(object, std::make_shared<const Text>(name, Trust::kNone));
}

Value get_item(Budget& budget, const Value& object, const Value& key) {
  budget.steps(1);
  if (object.is<Undefined>()) fail(*object.as<Undefined>().why);
  if (auto value = own_item(budget, object, key)) return *std::move(value);
  if (key.text() != nullptr) {
    if (auto value = own_attribute(object, key.text()->bytes())) return *std::move(value);
  }
  return missing(object, key);
}

Value get_path(Budget& budget, const Value& object, const Value& attribute, const Value* otherwise) {
  Value at = object;
  const auto step = [&](const Value& part) {
    at = get_item(budget, at, part);
    if (otherwise != nullptr && at.is<Undefined>()) at = *otherwise;
  };
  const Text* path = attribute.text();
  if (path == nullptr) {
    if (!attribute.is<None>()) step(attribute);
    return at;
  }
  const std::string_view bytes = path->bytes();
  for (std::size_t begin = 0; begin <= bytes.size();) {
    const std::size_t end = std::min(bytes.find('.', begin), bytes.size());
    const std::string_view part = bytes.substr(begin, end - begin);
    const bool digits = !part.empty() && part.size() < 10 && part.find_first_not_of("0123456789") == part.npos;
    step(digits ? Value(std::int64_t{std::stol(std::string(part))}) : make_text(budget, path->slice(begin, end)));
    begin = end + 1;
  }
  return at;
}

SliceRange slice_range(const Value& start, const Value& stop, const Value& step, std::int64_t size) {
  // Bounds beyond the size in either direction mean the same as just beyond it; this keeps sums from overflowing.
  const auto bound = [&](const Value& value, std::int64_t otherwise) {
    if (value.is<None>()) return otherwise;
    std::int64_t at = std::clamp(to_integer(value, "a slice index"), -size - 1, size + 1);
    return at < 0 ? at + size : at;
  };
  SliceRange range;
  range.step = step.is<None>() ? 1 : std::clamp(to_integer(step, "a slice step"), -size - 1, size + 1);
  if (range.step == 0) fail("slice step cannot be zero");
  if (range.step > 0) {
    range.start = std::clamp<std::int64_t>(bound(start, 0), 0, size);
    const std::int64_t end = std::clamp<std::int64_t>(bound(stop, size), 0, size);
    range.count = std::max<std::int64_t>(0, (end - range.start + range.step - 1) / range.step);
  } else {
    range.start = std::clamp<std::int64_t>(bound(start, size - 1), -1, size - 1);
    const std::int64_t end = std::clamp<std::int64_t>(bound(stop, -1), -1, size - 1);
    range.count = std::max<std::int64_t>(0, (range.start - end - range.step - 1) / -range.step);
  }
  return range;
}

Value get_slice(Budget& budget, const Value& object, const Value& start, const Value& stop, const Value& step) {
  if (object.is<Undefined>()) fail(*object.as<Undefined>().why);
  if (const Text* text = object.text()) {
    budget.steps(text->size() / 8 + 1);
    const std::vector<std::size_t> offsets = char_offsets(text->bytes());
    const SliceRange range = slice_range(start, stop, step, static_cast<std::int64_t>(offsets.size()) - 1);
    const auto at = [&](std::int64_t index) { return offsets[static_cast<std::size_t>(index)]; };
    if (range.step == 1) return make_text(budget, text->slice(at(range.start), at(range.start + range.count)));
    Text out;
    for (std::int64_t i = 0, index = range.start; i < range.count; ++i, index += range.step) {
      out.append(*text, at(index), at(index + 1));
    }
    return make_text(budget, std::move(out));
  }
  const Sequence* sequence = object.sequence();
  if (sequence == nullptr || sequence->kind > SequenceKind::kRange) {
    fail(concat("'", type_name(object), "' object is not subscriptable"));
  }
  const SliceRange range = slice_range(start, stop, step, static_cast<std::int64_t>(sequence->items.size()));
  budget.steps(static_cast<std::size_t>(range.count));
  std::vector<Value> items;
  for (std::int64_t i = 0, index = range.start; i < range.count; ++i, index += range.step) {
    items.push_back(sequence->items[static_cast<std::size_t>(index)]);
  }
  return make_sequence(sequence->kind, std::move(items));
}

}  // namespace multiverse::jinja

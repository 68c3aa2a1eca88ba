// Values of the template language, as Python has them.
#pragma once

#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>
#include <variant>
#include <vector>

#include "tokenizer/jinja_error.h"
#include "tokenizer/jinja_text.h"

namespace multiverse::jinja {

class Value;
struct Arguments;
struct Dict;
struct Loop;
struct MacroNode;
struct Method;
struct Namespace;
struct Scope;
struct Sequence;

// jinja2's default Undefined: prints empty, is false, fails when looked into. `why` is its error message, never null
// but for a default-constructed Value.
struct Undefined {
  std::shared_ptr<const std::string> why;
};
struct None {};
// An integer of the input beyond 64 bits: prints and compares, has no arithmetic. Its canonical decimal digits.
struct BigInteger {
  std::shared_ptr<const std::string> digits;
};
// A macro and the scope that it was defined in, which the interpreter keeps alive until the render ends.
struct Macro {
  const MacroNode* node;
  Scope* scope;
};
// A global function.
enum class Function { kRange, kNamespace, kDict, kRaiseException, kStrftimeNow };

using TextPtr = std::shared_ptr<const Text>;
using SequencePtr = std::shared_ptr<const Sequence>;
using DictPtr = std::shared_ptr<const Dict>;

template <class T, class Variant>
struct IsAlternative;
template <class T, class... Alternatives>
struct IsAlternative<T, std::variant<Alternatives...>> : std::disjunction<std::is_same<T, Alternatives>...> {};

// Cheap to copy: what is large is shared and immutable. (Namespaces and loops change; namespaces belong to the
// interpreter, so that cycles through them leak nothing.)
class Value {
 public:
  using Data = std::variant<Undefined, None, bool, std::int64_t, double, BigInteger, TextPtr, SequencePtr, DictPtr,
                            Namespace*, std::shared_ptr<Loop>, Macro, Function, std::shared_ptr<const Method>>;

  Value() = default;
  // Only the alternatives themselves: nothing turns into a bool or an integer by itself.
  template <class T, class = std::enable_if_t<IsAlternative<std::decay_t<T>, Data>::value>>
  Value(T&& data) : data_(std::in_place_type<std::decay_t<T>>, std::forward<T>(data)) {}  // NOLINT: implicit on purpose

  const Data& data() const { return data_; }
  template <class T>
  bool is() const {
    return std::holds_alternative<T>(data_);
  }
  template <class T>
  const T& as() const {
    return std::get<T>(data_);
  }
  // The text, sequence or dict, or null where it is something else.
  const Text* text() const { return is<TextPtr>() ? as<TextPtr>().get() : nullptr; }
  const Sequence* sequence() const { return is<SequencePtr>() ? as<SequencePtr>().get() : nullptr; }
  const Dict* dict() const { return is<DictPtr>() ? as<DictPtr>().get() : nullptr; }
  // True, 1, or nothing: bools count as integers, as Python's.
  std::optional<std::int64_t> integer() const;
  // Any number as double.
  std::optional<double> number() const;

 private:
  Data data_;
};

// In this order: what has order and sums, what has an index, what has a size, and what has none of it.
enum class SequenceKind { kList, kTuple, kRange, kView, kGenerator };

// A list, a tuple, or what Python has in their stead. kGenerator gives each item once; kView is dict.items() and the
// like (a size, no index).
struct Sequence {
  SequenceKind kind = SequenceKind::kList;
  std::vector<Value> items;
  std::string label;              // of a view: its type's name; of a range: its text, "" where it is to be found
  int depth = 1;                  // of lists in lists
  mutable std::size_t taken = 0;  // kGenerator: items already given
};

// Insertion order, as Python's; immutable once made.
struct Dict {
  std::vector<std::pair<Value, Value>> entries;
  std::vector<std::uint32_t> order;  // entries by key (key_less), for lookup
  int depth = 1;

  const Value* find(const Value& key) const;
  const Value* find(std::string_view key) const;
};

struct Namespace {
  std::map<std::string, Value, std::less<>> attributes;
};

// The `loop` variable. Items are pulled one at a time, since the loop's condition may depend on what its body does.
struct Loop {
  std::function<std::optional<Value>()> pull;  // null once the loop has ended
  std::deque<Value> ahead;                     // pulled, not yet current
  Value current, previous;
  std::int64_t index0 = -1;
  std::int64_t depth0 = 0;

  // Makes `count` items available ahead if there are so many.
  bool peek(std::size_t count);
  bool advance();
  std::int64_t length();
};

using MethodFunction = Value (*)(Budget&, const Value& self, const Arguments&);
struct Method {
  Value self;
  std::string name;
  MethodFunction function = nullptr;
};

// Arguments of a call, filter or test.
struct Arguments {
  std::vector<Value> positional;
  std::vector<std::pair<std::string, Value>> named;
};

// Arguments by the callee's parameter names; too many or unknown ones fail as Python's TypeError.
class BoundArguments {
 public:
  BoundArguments(std::string_view callee, const Arguments& arguments, std::initializer_list<std::string_view> names);
  // Null where not given.
  const Value* get(std::size_t index) const { return values_[index]; }
  const Value& require(std::size_t index) const;
  bool flag(std::size_t index, bool otherwise) const;

 private:
  std::string_view callee_;
  std::vector<std::string_view> names_;
  std::vector<const Value*> values_;
};

// Constructors. Those that make text charge it to the budget.
Value undefined(std::string why);
Value make_text(Budget& budget, Text text);
Value make_text(Budget& budget, std::string_view bytes, Trust trust);
Value make_sequence(SequenceKind kind, std::vector<Value> items, std::string label = "");
inline Value make_list(std::vector<Value> items) {
  return make_sequence(SequenceKind::kList, std::move(items));
}
// A later entry with an equal key replaces the value of the earlier, in its place. Fails on keys that cannot be hashed.
Value make_dict(std::vector<std::pair<Value, Value>> entries);

// A total order of hashable values in which equals (1, 1.0, True) are equivalent.
struct KeyLess {
  bool operator()(const Value& a, const Value& b) const;
};
// Fails where Python would say "unhashable type".
void check_hashable(const Value& value);

}  // namespace multiverse::jinja

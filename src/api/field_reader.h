// Reads the fields of a JSON object with checks of type and range, and remembers which fields nobody asked for.
#pragma once

#include <cstdint>
#include <limits>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "multiverse/base/status.h"

#include "api/json.h"

namespace multiverse {

template <class T>
struct Bounds {
  T low = std::numeric_limits<T>::lowest();
  T high = std::numeric_limits<T>::max();
  bool low_excluded = false;
};

// The first mistake is kept in error(); reads after it give what they find and change nothing. `null` counts as absent.
// The object must outlive the reader.
class FieldReader {
 public:
  // `prefix`: of the names in messages, "multiverse." for instance.
  explicit FieldReader(const Json& object, std::string prefix = "") : object_(object), prefix_(std::move(prefix)) {}

  const Json* find(std::string_view name);  // nullptr where absent
  std::optional<bool> boolean(std::string_view name);
  std::optional<std::int64_t> integer(std::string_view name, Bounds<std::int64_t> bounds);
  std::optional<std::int32_t> integer32(std::string_view name, Bounds<std::int32_t> bounds);
  std::optional<double> number(std::string_view name, Bounds<double> bounds);
  std::optional<std::string> text(std::string_view name, std::size_t max_bytes);
  // The meaning of one of the texts.
  template <class Value>
  std::optional<Value> choice(std::string_view name, const std::vector<std::pair<std::string_view, Value>>& choices) {
    const Json* value = find(name);
    if (value == nullptr) return std::nullopt;
    std::string known;
    for (const auto& [text, meaning] : choices) {
      if (*value == text) return meaning;
      known += concat(known.empty() ? "'" : ", '", text, "'");
    }
    fail_value(name, *value, concat("one of ", known, " is wanted"));
    return std::nullopt;
  }
  const Json* array(std::string_view name, std::size_t max_size);
  const Json* object(std::string_view name);

  // Known, but not built: any value other than null and those listed is refused by name.
  void refuse_unless(std::string_view name, const std::vector<Json>& neutral);

  void fail(Error error);
  // "`name` is VALUE, WANTED": the usual sentence.
  void fail_value(std::string_view name, const Json& value, std::string_view wanted);
  std::string full_name(std::string_view name) const { return prefix_ + std::string(name); }

  bool ok() const { return !error_; }
  const Error& error() const { return *error_; }
  void collect_unknown(std::vector<std::string>& names) const;

 private:
  const Json& object_;
  std::string prefix_;
  std::set<std::string, std::less<>> known_;
  std::optional<Error> error_;
};

// A value for an error message: short, one line.
std::string describe(const Json& value);

// An integer of JSON, nullopt where it is none or int64 can't hold it.
std::optional<std::int64_t> exact_integer(const Json& value);

}  // namespace multiverse

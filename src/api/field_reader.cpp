#include "api/field_reader.h"

#include <algorithm>
#include <utility>

namespace multiverse {

std::string describe(const Json& value) {
  if (value.is_string()) return "a string";
  if (value.is_array()) return concat("an array of ", value.size());
  if (value.is_object()) return "an object";
  return value.dump();
}

std::optional<std::int64_t> exact_integer(const Json& value) {
  if (value.is_number_unsigned()) {
    const auto number = value.get<std::uint64_t>();
    if (number > static_cast<std::uint64_t>(std::numeric_limits<std::int64_t>::max())) return std::nullopt;
    return static_cast<std::int64_t>(number);
  }
  if (value.is_number_integer()) return value.get<std::int64_t>();
  return std::nullopt;
}

const Json* FieldReader::find(std::string_view name) {
  known_.emplace(name);
  const auto found = object_.find(std::string(name));
  return found == object_.end() || found->is_null() ? nullptr : &*found;
}

std::optional<bool> FieldReader::boolean(std::string_view name) {
  const Json* value = find(name);
  if (value == nullptr) return std::nullopt;
  if (value->is_boolean()) return value->get<bool>();
  fail_value(name, *value, "true or false is wanted");
  return std::nullopt;
}

std::optional<std::int64_t> FieldReader::integer(std::string_view name, Bounds<std::int64_t> bounds) {
  const Json* value = find(name);
  if (value == nullptr) return std::nullopt;
  const auto number = exact_integer(*value);
  if (number && *number >= bounds.low && *number <= bounds.high) return number;
  fail_value(name, *value, concat("an integer from ", bounds.low, " to ", bounds.high, " is wanted"));
  return std::nullopt;
}

std::optional<std::int32_t> FieldReader::integer32(std::string_view name, Bounds<std::int32_t> bounds) {
  const auto wide = integer(name, {bounds.low, bounds.high});
  if (!wide) return std::nullopt;
  return static_cast<std::int32_t>(*wide);  // within the bounds, so within int32
}

std::optional<double> FieldReader::number(std::string_view name, Bounds<double> bounds) {
  const Json* value = find(name);
  if (value == nullptr) return std::nullopt;
  if (value->is_number()) {
    const auto number = value->get<double>();
    const bool low_enough = number <= bounds.high;
    const bool high_enough = bounds.low_excluded ? number > bounds.low : number >= bounds.low;
    if (low_enough && high_enough) return number;
  }
  fail_value(
      name, *value,
      concat("a number ", bounds.low_excluded ? "above " : "from ", bounds.low, " to ", bounds.high, " is wanted"));
  return std::nullopt;
}

std::optional<std::string> FieldReader::text(std::string_view name, std::size_t max_bytes) {
  const Json* value = find(name);
  if (value == nullptr) return std::nullopt;
  if (!value->is_string()) {
    fail_value(name, *value, "a string is wanted");
    return std::nullopt;
  }
  const auto& text = value->get_ref<const std::string&>();
  if (text.size() <= max_bytes) return text;
  fail(invalid_argument(
      concat("'", full_name(name), "' has ", text.size(), " bytes, at most ", max_bytes, " are allowed"),
      full_name(name)));
  return std::nullopt;
}

const Json* FieldReader::array(std::string_view name, std::size_t max_size) {
  const Json* value = find(name);
  if (value == nullptr) return nullptr;
  if (value->is_array() && value->size() <= max_size) return value;
  fail_value(name, *value, concat("an array of at most ", max_size, " is wanted"));
  return nullptr;
}

const Json* FieldReader::object(std::string_view name) {
  const Json* value = find(name);
  if (value == nullptr || value->is_object()) return value;
  fail_value(name, *value, "an object is wanted");
  return nullptr;
}

void FieldReader::refuse_unless(std::string_view name, const std::vector<Json>& neutral) {
  const Json* value = find(name);
  if (value == nullptr || std::find(neutral.begin(), neutral.end(), *value) != neutral.end()) return;
  fail({ErrorCode::kUnsupported,
        concat("'", full_name(name), "' with this value is not supported by this server; leave it out"),
        full_name(name), "unsupported_parameter"});
}

void FieldReader::fail(Error error) {
  if (!error_) error_ = std::move(error);
}

void FieldReader::fail_value(std::string_view name, const Json& value, std::string_view wanted) {
  fail(invalid_argument(concat("'", full_name(name), "' is ", describe(value), ", but ", wanted), full_name(name)));
}

void FieldReader::collect_unknown(std::vector<std::string>& names) const {
  for (const auto& [name, value] : object_.items()) {
    if (known_.find(name) == known_.end()) names.push_back(prefix_ + name);
  }
}

}  // namespace multiverse

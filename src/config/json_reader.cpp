#include "config/json_reader.h"

#include <fstream>
#include <limits>
#include <sstream>

namespace multiverse {
namespace {

constexpr std::size_t kMaxJsonBytes = std::size_t{16} << 20;

}  // namespace

Result<nlohmann::json> read_json_object(const std::string& file) {
  std::ifstream in(file, std::ios::binary);
  if (!in) return Error{ErrorCode::kNotFound, concat("cannot open ", file), "model"};
  std::string text(kMaxJsonBytes + 1, '\0');
  in.read(text.data(), static_cast<std::streamsize>(text.size()));
  text.resize(static_cast<std::size_t>(in.gcount()));
  if (in.bad()) return invalid_argument(concat("cannot read ", file), "model");
  if (text.size() > kMaxJsonBytes) return invalid_argument(concat(file, " is larger than 16 MiB"), "model");
  nlohmann::json json = nlohmann::json::parse(text, nullptr, /*allow_exceptions=*/false);
  if (json.is_discarded()) return invalid_argument(concat(file, " is not valid JSON"), "model");
  if (!json.is_object()) return invalid_argument(concat(file, " is not a JSON object but ", json.type_name()), "model");
  return json;
}

std::string shown(const nlohmann::json& value) {
  constexpr std::size_t kMaxShown = 60;
  if (value.is_structured()) return value.is_array() ? "an array" : "an object";
  std::string text = value.dump(-1, ' ', /*ensure_ascii=*/true, nlohmann::json::error_handler_t::replace);
  if (text.size() > kMaxShown) text = text.substr(0, kMaxShown) + "…";
  return text;
}

bool JsonReader::has(const std::string& key) const {
  const auto it = object_.find(key);
  return it != object_.end() && !it->is_null();
}

void JsonReader::fail(const std::string& key, const std::string& what) {
  if (!error_) error_ = invalid_argument(concat(file_, ": `", path_, key, "` ", what), "model");
}

const nlohmann::json* JsonReader::find(const std::string& key, bool required) {
  if (has(key)) return &object_.at(key);
  if (required) fail(key, "is missing");
  return nullptr;
}

std::int64_t JsonReader::integer(const std::string& key, std::int64_t min, std::int64_t max,
                                 std::optional<std::int64_t> fallback) {
  const nlohmann::json* value = find(key, !fallback);
  if (value == nullptr) return fallback.value_or(min);
  const bool fits =
      value->is_number_integer() &&
      (!value->is_number_unsigned() ||
       value->get<std::uint64_t>() <= static_cast<std::uint64_t>(std::numeric_limits<std::int64_t>::max()));
  if (fits) {
    const auto number = value->get<std::int64_t>();
    if (number >= min && number <= max) return number;
  }
  fail(key, concat("must be a whole number from ", min, " to ", max, ", not ", shown(*value)));
  return fallback.value_or(min);
}

double JsonReader::number(const std::string& key, double min, double max, std::optional<double> fallback) {
  const nlohmann::json* value = find(key, !fallback);
  if (value == nullptr) return fallback.value_or(min);
  if (value->is_number()) {
    const auto number = value->get<double>();
    if (number >= min && number <= max) return number;  // false for NaN
  }
  fail(key, concat("must be a number from ", min, " to ", max, ", not ", shown(*value)));
  return fallback.value_or(min);
}

bool JsonReader::boolean(const std::string& key, bool fallback) {
  const nlohmann::json* value = find(key, false);
  if (value == nullptr) return fallback;
  if (value->is_boolean()) return value->get<bool>();
  fail(key, concat("must be true or false, not ", shown(*value)));
  return fallback;
}

std::string JsonReader::string(const std::string& key, const std::optional<std::string>& fallback) {
  const nlohmann::json* value = find(key, !fallback);
  if (value == nullptr) return fallback.value_or("");
  if (value->is_string()) return value->get<std::string>();
  fail(key, concat("must be a string, not ", shown(*value)));
  return fallback.value_or("");
}

}  // namespace multiverse

// Typed reading of the JSON objects in a model's folder: every conversion is checked, the first mistake is kept.
#pragma once

#include <cstdint>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>

#include "multiverse/base/status.h"

namespace multiverse {

// Reads FILE as one JSON object of at most 16 MiB.
Result<nlohmann::json> read_json_object(const std::string& file);

// One JSON object. After the first mistake the getters go on with harmless values; error() tells of it.
class JsonReader {
 public:
  // `path` is put before keys in messages ("rope_parameters."). The object must outlive the reader.
  JsonReader(const nlohmann::json& object, std::string file, std::string path = "")
      : object_(object), file_(std::move(file)), path_(std::move(path)) {}

  // Present and not null.
  bool has(const std::string& key) const;
  const nlohmann::json& at(const std::string& key) const { return object_.at(key); }

  // An absent (or null) key gives `fallback`, or is a mistake where there is none. Bounds are inclusive.
  std::int64_t integer(const std::string& key, std::int64_t min, std::int64_t max,
                       std::optional<std::int64_t> fallback = std::nullopt);
  double number(const std::string& key, double min, double max, std::optional<double> fallback = std::nullopt);
  bool boolean(const std::string& key, bool fallback);
  std::string string(const std::string& key, const std::optional<std::string>& fallback = std::nullopt);

  // Records "FILE: `key` …".
  void fail(const std::string& key, const std::string& what);
  const std::optional<Error>& error() const { return error_; }

 private:
  // The value of a key that is present; else records the mistake unless there is a fallback.
  const nlohmann::json* find(const std::string& key, bool required);

  const nlohmann::json& object_;
  std::string file_;
  std::string path_;
  std::optional<Error> error_;
};

// The value as a message shows it: at most 60 bytes of JSON.
std::string shown(const nlohmann::json& value);

}  // namespace multiverse

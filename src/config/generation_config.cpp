#include <filesystem>
#include <limits>

#include "multiverse/config/model_config.h"

#include "config/json_reader.h"

namespace multiverse {
namespace {

constexpr std::size_t kMaxEosTokens = 64;

bool is_token_id(const nlohmann::json& value) {
  return value.is_number_unsigned() &&
         value.get<std::uint64_t>() <= static_cast<std::uint64_t>(std::numeric_limits<std::int32_t>::max());
}

// `eos_token_id`: a number, a list of numbers, null or absent.
std::vector<std::int32_t> read_eos(JsonReader& reader) {
  std::vector<std::int32_t> ids;
  if (!reader.has("eos_token_id")) return ids;
  const nlohmann::json& value = reader.at("eos_token_id");
  const nlohmann::json list = value.is_array() ? value : nlohmann::json::array({value});
  if (list.size() > kMaxEosTokens) {
    reader.fail("eos_token_id", concat("has ", list.size(), " entries; the limit is ", kMaxEosTokens));
    return ids;
  }
  for (const nlohmann::json& id : list) {
    if (!is_token_id(id)) {
      reader.fail("eos_token_id", concat("must be a token id or a list of them, not ", shown(id)));
      return ids;
    }
    ids.push_back(id.get<std::int32_t>());
  }
  return ids;
}

std::optional<double> optional_number(JsonReader& reader, const std::string& key, double min, double max) {
  if (!reader.has(key)) return std::nullopt;
  return reader.number(key, min, max);
}

}  // namespace

Result<GenerationConfig> GenerationConfig::load(const std::string& model_dir) {
  GenerationConfig config;
  const std::string file = model_dir + "/generation_config.json";
  std::error_code ignored;
  if (std::filesystem::exists(file, ignored)) {
    const Result<nlohmann::json> json = read_json_object(file);
    if (!json.ok()) return json.error();
    JsonReader reader(json.value(), file);
    config.eos_token_ids = read_eos(reader);
    config.temperature = optional_number(reader, "temperature", 0.0, 1e6);
    config.top_p = optional_number(reader, "top_p", 1e-9, 1.0);
    config.min_p = optional_number(reader, "min_p", 0.0, 1.0);
    config.repetition_penalty = optional_number(reader, "repetition_penalty", 1e-6, 1e6);
    if (reader.has("top_k")) config.top_k = reader.integer("top_k", 0, std::numeric_limits<std::int32_t>::max());
    config.do_sample = reader.boolean("do_sample", true);
    if (reader.error()) return *reader.error();
  }
  if (config.eos_token_ids.empty()) {
    const std::string model_file = model_dir + "/config.json";
    const Result<nlohmann::json> json = read_json_object(model_file);
    if (!json.ok()) return json.error();
    JsonReader reader(json.value(), model_file);
    config.eos_token_ids = read_eos(reader);
    if (reader.error()) return *reader.error();
  }
  return config;
}

}  // namespace multiverse

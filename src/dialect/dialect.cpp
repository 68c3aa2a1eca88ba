#include "multiverse/dialect/dialect.h"

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>

#include "multiverse/base/log.h"

namespace multiverse {
namespace {

struct TokenField {
  const char* name;
  std::int32_t Dialect::*id;
  bool required;
};

constexpr std::int64_t kGreatestDepth = 1000;

// Names the one error of a dialect file that is no mistake: the tokenizer is of another family.
constexpr const char* kTokenMissing = "token_missing";

constexpr TokenField kTokens[] = {
    {"block_open", &Dialect::block_open, false},
    {"block_close", &Dialect::block_close, false},
    {"goal_open", &Dialect::goal_open, true},
    {"fork", &Dialect::fork, true},
    {"outline_open", &Dialect::outline_open, true},
    {"outline_close", &Dialect::outline_close, false},
    {"path_open", &Dialect::path_open, true},
    {"path_close", &Dialect::path_close, true},
    {"conclusion_open", &Dialect::conclusion_open, true},
    {"conclusion_close", &Dialect::conclusion_close, false},
    {"think_open", &Dialect::think_open, false},
    {"think_close", &Dialect::think_close, false},
};

bool is_label_byte(char c) {
  return (c >= '0' && c <= '9') || c == '.' || c == ':';
}
bool is_space_byte(char c) {
  return c == ' ' || (c >= '\t' && c <= '\r');
}

// Tokens that an outline's label is read over; see Dialect::label_bytes.
std::vector<std::pair<std::int32_t, std::string>> make_label_table(const TokenSource& tokens,
                                                                   const std::vector<std::int32_t>& control) {
  std::vector<std::pair<std::int32_t, std::string>> table;
  for (std::int32_t id = 0; id < tokens.size; ++id) {
    const std::string_view bytes = tokens.token_bytes(id);
    if (bytes.empty() || std::binary_search(control.begin(), control.end(), id)) continue;
    const bool plain =
        std::all_of(bytes.begin(), bytes.end(), [](char c) { return is_label_byte(c) || is_space_byte(c); });
    if (plain || bytes.front() == ':') table.emplace_back(id, bytes);
  }
  return table;
}

Error file_error(const std::string& file, const std::string& what) {
  return invalid_argument("dialect file " + file + ": " + what, "dialect");
}

// What stands beside the tokens.
std::optional<Error> check_keys(const std::string& file, const nlohmann::json& json) {
  for (const auto& [key, value] : json.items()) {
    if (key == "tokens") continue;
    if (key == "name" || key == "separator") {
      if (!value.is_string()) return file_error(file, key + " is not a string");
    } else if (key == "max_depth") {
      const std::int64_t depth = value.is_number_integer() ? value.get<std::int64_t>() : 0;
      if (depth >= 1 && depth <= kGreatestDepth) continue;
      return file_error(file,
                        concat("max_depth is ", value.dump(), "; it takes a whole number from 1 to ", kGreatestDepth));
    } else {
      return file_error(file, "unknown key \"" + key + "\"; known: name, tokens, separator, max_depth");
    }
  }
  return std::nullopt;
}

}  // namespace

std::vector<std::int32_t> Dialect::path_header(std::string_view label) const {
  std::vector<std::int32_t> header = {path_open, separator};
  const std::vector<std::int32_t> text = encode(std::string(label) + ":");
  header.insert(header.end(), text.begin(), text.end());
  return header;
}

std::vector<std::int32_t> Dialect::conclusion_header() const {
  return {conclusion_open, separator};
}

std::string_view Dialect::label_bytes(std::int32_t token) const {
  const auto entry = std::lower_bound(label_table.begin(), label_table.end(), token,
                                      [](const auto& e, std::int32_t id) { return e.first < id; });
  if (entry == label_table.end() || entry->first != token) return {};
  return entry->second;
}

bool Dialect::is_label_token(std::int32_t token) const {
  const std::string_view bytes = label_bytes(token);
  return !bytes.empty() && std::all_of(bytes.begin(), bytes.end(), is_label_byte);
}

bool Dialect::ends_label(std::int32_t token) const {
  return label_bytes(token).find(':') != std::string_view::npos;
}

Result<Dialect> Dialect::load(const std::string& file, const TokenSource& tokens) {
  std::ifstream in(file);
  if (!in) return file_error(file, "cannot be read");
  const auto json = nlohmann::json::parse(in, nullptr, /*allow_exceptions=*/false, /*ignore_comments=*/true);
  if (!json.is_object() || !json.contains("tokens") || !json["tokens"].is_object()) {
    return file_error(file, "is not a JSON object with an object \"tokens\"");
  }
  if (std::optional<Error> wrong = check_keys(file, json)) return *std::move(wrong);
  Dialect dialect;
  dialect.name = json.value("name", std::filesystem::path(file).stem().string());
  dialect.max_depth = json.value("max_depth", dialect.max_depth);
  for (const auto& [key, value] : json["tokens"].items()) {
    const auto* known = std::find_if(std::begin(kTokens), std::end(kTokens),
                                     [&key = key](const TokenField& field) { return key == field.name; });
    if (known == std::end(kTokens)) return file_error(file, "unknown token name \"" + key + "\"");
    if (!value.is_string()) return file_error(file, "tokens." + key + " is not a string");
    const auto id = tokens.token_id(value.get<std::string>());
    if (!id) {
      Error missing = file_error(file, "the tokenizer has no token \"" + value.get<std::string>() + "\" (" + key + ")");
      missing.code_name = kTokenMissing;
      return missing;
    }
    dialect.*(known->id) = *id;
    dialect.control_tokens.push_back(*id);
  }
  if (dialect.block_close < 0 && dialect.conclusion_close < 0) {
    return file_error(file, "tokens.block_close and tokens.conclusion_close are missing; one of them closes a block");
  }
  for (const TokenField& field : kTokens) {
    if (field.required && dialect.*(field.id) < 0) {
      return file_error(file, std::string("tokens.") + field.name + " is missing");
    }
  }
  std::sort(dialect.control_tokens.begin(), dialect.control_tokens.end());
  if (std::adjacent_find(dialect.control_tokens.begin(), dialect.control_tokens.end()) !=
      dialect.control_tokens.end()) {
    return file_error(file, "two of its names mean the same token");
  }
  const auto separator = tokens.encode(json.value("separator", "\n"));
  if (separator.size() != 1) {
    return file_error(file, "the separator must be one token, here it is " + std::to_string(separator.size()));
  }
  dialect.separator = separator.front();
  dialect.encode = tokens.encode;
  dialect.label_table = make_label_table(tokens, dialect.control_tokens);
  return dialect;
}

Result<std::optional<Dialect>> Dialect::detect(const std::string& dir, const TokenSource& tokens) {
  std::error_code error;
  std::vector<std::string> files;
  for (const auto& entry : std::filesystem::directory_iterator(dir, error)) {
    if (entry.path().extension() == ".json") files.push_back(entry.path().string());
  }
  if (error) return invalid_argument("dialect folder " + dir + " cannot be read: " + error.message(), "dialect");
  std::sort(files.begin(), files.end());
  for (const std::string& file : files) {
    Result<Dialect> dialect = load(file, tokens);
    if (dialect.ok()) return std::optional<Dialect>(std::move(dialect).value());
    if (dialect.error().code_name != kTokenMissing) {
      log(LogLevel::kWarning, "a dialect is left out", {{"reason", dialect.error().message}});
    }
  }
  return std::optional<Dialect>();
}

}  // namespace multiverse

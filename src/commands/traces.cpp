#include "commands/traces.h"

#include <fstream>
#include <iostream>
#include <nlohmann/json.hpp>
#include <sstream>
#include <utility>

namespace multiverse {
namespace {

Result<std::string> read_all(const std::string& file) {
  std::ostringstream content;
  if (file == "-") {
    content << std::cin.rdbuf();
  } else {
    std::ifstream in(file, std::ios::binary);
    if (!in) return invalid_argument("cannot read " + file);
    content << in.rdbuf();
  }
  return content.str();
}

std::string string_field(const nlohmann::json& record, const char* name) {
  const auto field = record.find(name);
  return field != record.end() && field->is_string() ? field->get<std::string>() : std::string();
}

}  // namespace

Result<std::vector<Trace>> read_traces(const std::string& file) {
  Result<std::string> content = read_all(file);
  if (!content.ok()) return content.error();
  std::vector<Trace> traces;
  std::istringstream lines(content.value());
  std::size_t number = 0;
  for (std::string line; std::getline(lines, line);) {
    ++number;
    if (line.empty()) continue;
    const auto record = nlohmann::json::parse(line, nullptr, /*allow_exceptions=*/false);
    if (traces.empty() && !record.is_object()) {  // no JSON lines: all of it is one text
      Trace text;
      text.name = file;
      text.completion = std::move(content).value();
      return std::vector<Trace>{std::move(text)};
    }
    if (!record.is_object() || !record.contains("completion") || !record["completion"].is_string()) {
      return invalid_argument(concat(file, ":", number, " is not a JSON object with a string \"completion\""));
    }
    Trace trace;
    trace.name = string_field(record, "id");
    if (trace.name.empty()) trace.name = concat(file, ":", number);
    trace.system = string_field(record, "system");
    trace.user = string_field(record, "user");
    trace.completion = string_field(record, "completion");
    traces.push_back(std::move(trace));
  }
  return traces;
}

}  // namespace multiverse

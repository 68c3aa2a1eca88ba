#include "multiverse/base/log.h"

#include <spdlog/sinks/stdout_color_sinks.h>
#include <spdlog/spdlog.h>

#include <atomic>
#include <cstdlib>
#include <nlohmann/json.hpp>
#include <string>

#include "multiverse/base/check.h"

namespace multiverse {
namespace {

constexpr const char* kTextPattern = "%Y-%m-%dT%H:%M:%S.%eZ %l %v";
// What log() makes of message and fields follows: `"message":"…"}`.
constexpr const char* kJsonPattern = R"({"time":"%Y-%m-%dT%H:%M:%S.%eZ","level":"%l",%v)";

std::atomic<LogFormat> log_format = LogFormat::kText;

spdlog::logger& logger() {
  static const std::shared_ptr<spdlog::logger> instance = [] {
    auto created = spdlog::stderr_color_mt("multiverse");
    created->set_pattern(kTextPattern, spdlog::pattern_time_type::utc);
    created->flush_on(spdlog::level::info);
    return created;
  }();
  return *instance;
}

spdlog::level::level_enum to_spdlog(LogLevel level) {
  switch (level) {
    case LogLevel::kDebug:
      return spdlog::level::debug;
    case LogLevel::kInfo:
      return spdlog::level::info;
    case LogLevel::kWarning:
      return spdlog::level::warn;
    case LogLevel::kError:
      return spdlog::level::err;
  }
  return spdlog::level::info;
}

std::string escaped(std::string_view message) {
  static constexpr char kHex[] = "0123456789abcdef";
  std::string out;
  out.reserve(message.size());
  for (const char c : message) {
    const auto byte = static_cast<unsigned char>(c);
    if (byte >= 0x20 && byte != 0x7f) {
      out += c;
    } else {
      out += "\\x";
      out += kHex[byte >> 4];
      out += kHex[byte & 15];
    }
  }
  return out;
}

bool is_empty(const LogField& field) {
  const auto* text = std::get_if<std::string_view>(&field.value);
  return text != nullptr && text->empty();
}

std::string text_line(std::string_view message, std::initializer_list<LogField> fields) {
  std::string line = escaped(message);
  for (const LogField& field : fields) {
    if (is_empty(field)) continue;
    line += concat(" ", field.name, "=");
    std::visit([&](auto value) { line += escaped(concat(value)); }, field.value);
  }
  return line;
}

std::string json_line(std::string_view message, std::initializer_list<LogField> fields) {
  nlohmann::ordered_json object;
  object["message"] = message;
  for (const LogField& field : fields) {
    if (!is_empty(field)) std::visit([&](auto value) { object[std::string(field.name)] = value; }, field.value);
  }
  // Bytes that are no UTF-8 are replaced. The opening brace is the pattern's.
  return object.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace).substr(1);
}

}  // namespace

void log(LogLevel level, std::string_view message, std::initializer_list<LogField> fields) {
  if (!logger().should_log(to_spdlog(level))) return;
  logger().log(to_spdlog(level),
               log_format == LogFormat::kJson ? json_line(message, fields) : text_line(message, fields));
}

void set_log_format(LogFormat format) {
  log_format = format;
  logger().set_pattern(format == LogFormat::kJson ? kJsonPattern : kTextPattern, spdlog::pattern_time_type::utc);
}

void set_log_level(LogLevel level) {
  logger().set_level(to_spdlog(level));
}

void check_failed(const char* file, int line, const char* condition, const std::string& sentence) {
  log(LogLevel::kError, concat("CHECK failed at ", file, ":", line, ": ", condition, ": ", sentence));
  std::abort();
}

}  // namespace multiverse

// Log lines. Only base/log.cpp sees spdlog (its fmt must not meet torch's in one translation unit).
#pragma once

#include <cstdint>
#include <initializer_list>
#include <string_view>
#include <variant>

namespace multiverse {

enum class LogLevel { kDebug, kInfo, kWarning, kError };

enum class LogFormat {
  kText,  // TIME LEVEL MESSAGE NAME=VALUE…
  kJson,  // one object a line: time, level, message, and the fields
};

struct LogField {
  std::string_view name;  // of ours
  std::variant<std::string_view, std::int64_t> value;
};

// One line to stderr; fields with an empty text are left out. Control characters are escaped, so that no text of a
// client starts a line of its own. Any thread.
void log(LogLevel level, std::string_view message, std::initializer_list<LogField> fields = {});

// Before other threads log.
void set_log_format(LogFormat format);
void set_log_level(LogLevel level);

}  // namespace multiverse

// Log lines. Only base/log.cpp sees spdlog (its fmt must not meet torch's in one translation unit).
#pragma once

#include <string_view>

namespace multiverse {

enum class LogLevel { kDebug, kInfo, kWarning, kError };

// One line to stderr. Control characters in `message` are escaped, so that no text of a client starts a line of its
// own. Any thread.
void log(LogLevel level, std::string_view message);

void set_log_level(LogLevel level);

}  // namespace multiverse

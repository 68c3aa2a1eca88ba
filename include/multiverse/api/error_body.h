// Errors as clients read them: OpenAI's shape, on every answer that is not 2xx.
#pragma once

#include <string>

#include "multiverse/base/status.h"

namespace multiverse {

// The status line's number for an error of the request.
int http_status(ErrorCode code);

// {"error": {"message", "type", "param", "code"}}; the type follows from the status. One line, no newline at the end.
std::string error_body(const Error& error, int status);
inline std::string error_body(const Error& error) {
  return error_body(error, http_status(error.code));
}

}  // namespace multiverse

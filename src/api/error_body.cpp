#include "multiverse/api/error_body.h"

#include "api/json.h"

namespace multiverse {
namespace {

const char* error_type(int status) {
  switch (status) {
    case 401:
      return "authentication_error";
    case 403:
      return "permission_error";
    case 404:
      return "not_found_error";
    case 408:
      return "timeout_error";
    case 429:
      return "rate_limit_error";
    default:
      return status >= 500 ? "server_error" : "invalid_request_error";
  }
}

OrderedJson text_or_null(const std::string& text) {
  return text.empty() ? OrderedJson(nullptr) : OrderedJson(text);
}

}  // namespace

int http_status(ErrorCode code) {
  switch (code) {
    case ErrorCode::kInvalidArgument:
    case ErrorCode::kUnsupported:  // the caller can only leave the field out: a 5xx would make SDKs try again
      return 400;
    case ErrorCode::kUnauthenticated:
      return 401;
    case ErrorCode::kNotFound:
      return 404;
    case ErrorCode::kTooLarge:
      return 413;
    case ErrorCode::kOverloaded:
      return 429;
    case ErrorCode::kCancelled:
      return 499;  // logged and counted, never sent
    case ErrorCode::kDeadline:
      return 408;
    case ErrorCode::kUnavailable:
      return 503;
    case ErrorCode::kInternal:
      return 500;
  }
  return 500;
}

std::string error_body(const Error& error, int status) {
  return dump({{"error",
                {{"message", error.message},
                 {"type", error_type(status)},
                 {"param", text_or_null(error.param)},
                 {"code", text_or_null(error.code_name)}}}});
}

}  // namespace multiverse

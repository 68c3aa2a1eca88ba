// The caller's mistakes and the expected failures, as values. Our own mistakes are CHECKs (check.h); the machine's are
// exceptions, caught at the engine boundary.
#pragma once

#include <string>
#include <utility>
#include <variant>

#include "multiverse/base/check.h"

namespace multiverse {

// What kind of failure; the HTTP layer maps each to one status code.
enum class ErrorCode {
  kInvalidArgument,  // 400: a value out of range, malformed input; `param` names the field
  kUnauthenticated,  // 401
  kNotFound,         // 404
  kTooLarge,         // 413
  kOverloaded,       // 429: this replica is full; another or a later try may do
  kCancelled,        // the client went away; never sent
  kDeadline,         // 408: the request's own deadline passed
  kUnavailable,      // 503: not ready or draining
  kUnsupported,      // 400: known, but not built; a 5xx would make clients try again
  kInternal,         // 500
};

// One failure. `message` is one sentence that says what, got, limit and remedy, and is fit for a client to read (no
// paths or addresses of ours in request errors).
struct Error {
  ErrorCode code = ErrorCode::kInternal;
  std::string message;
  std::string param;           // the request field or option at fault, "" where none is
  std::string code_name = "";  // machine-readable name ("context_length_exceeded"), "" where none is
};

inline Error invalid_argument(std::string message, std::string param = "") {
  return {ErrorCode::kInvalidArgument, std::move(message), std::move(param)};
}

// Either a value or an Error. Movable; reading the side that is not there is our mistake and CHECK-fails.
template <class T>
class [[nodiscard]] Result {
 public:
  Result(T value) : state_(std::move(value)) {}      // NOLINT: implicit on purpose, `return value;`
  Result(Error error) : state_(std::move(error)) {}  // NOLINT: implicit on purpose, `return invalid_argument(…);`

  bool ok() const { return std::holds_alternative<T>(state_); }
  T& value() & { return check_value(); }
  const T& value() const& { return const_cast<Result*>(this)->check_value(); }
  T&& value() && { return std::move(check_value()); }
  const Error& error() const {
    CHECK(!ok(), "error() of a Result that holds a value");
    return std::get<Error>(state_);
  }

 private:
  T& check_value() {
    CHECK(ok(), "value() of a Result that holds the error: ", std::get<Error>(state_).message);
    return std::get<T>(state_);
  }
  std::variant<T, Error> state_;
};

struct Unit {};
using Status = Result<Unit>;
inline Status ok_status() {
  return Unit{};
}

}  // namespace multiverse

#include "http/exchange.h"

#include <algorithm>
#include <array>
#include <ctime>

#include "multiverse/api/error_body.h"
#include "multiverse/base/entropy.h"

namespace multiverse {
namespace {

constexpr std::size_t kMaxRequestId = 128;

bool is_request_id(std::string_view id) {
  const auto fits = [](char c) {
    return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '.' || c == '_' ||
           c == '-';
  };
  return !id.empty() && id.size() <= kMaxRequestId && std::all_of(id.begin(), id.end(), fits);
}

std::string date() {
  const std::time_t now = std::time(nullptr);
  std::tm utc{};
  gmtime_r(&now, &utc);
  std::array<char, 64> text{};
  const std::size_t size = std::strftime(text.data(), text.size(), "%a, %d %b %Y %H:%M:%S GMT", &utc);
  return {text.data(), size};
}

}  // namespace

Exchange::Exchange(Connection& connection, const RequestHead& head) : connection_(connection), head_(head) {
  const std::string_view given = head.field("x-request-id");
  request_id_ = is_request_id(given) ? std::string(given) : "req-" + random_id();
  add_field("X-Request-Id", request_id_);
  add_field("Date", date());
}

std::variant<std::string, Refusal> Exchange::read_body(std::size_t max_bytes) {
  std::string body;
  bool fits = head_.content_length.value_or(0) <= max_bytes;
  const bool whole = fits && body_reader_([&](const char* bytes, std::size_t size) {
                       fits = size <= max_bytes - body.size();
                       if (fits) body.append(bytes, size);
                       return fits;
                     });
  if (!fits) {
    const std::string message = concat("the request body is larger than the ", max_bytes, " bytes allowed");
    return Refusal{413, {ErrorCode::kTooLarge, message, "", ""}};
  }
  CHECK(whole || connection_.body_failure(), "httplib took a body of ", body.size(), " bytes for incomplete");
  if (!whole) return *connection_.body_failure();
  body_read_ = true;
  return body;
}

void Exchange::send(int status, std::string body, std::string content_type) {
  status_ = status;
  body_ = std::move(body);
  content_type_ = std::move(content_type);
}

void Exchange::send_error(int status, const Error& error) {
  send(status, error_body(error, status));
}

void Exchange::send_error(const Error& error) {
  const int status = http_status(error.code);
  if (status == 401) add_field("WWW-Authenticate", "Bearer");
  if (status == 429) add_field("Retry-After", "1");
  if (status == 503) add_field("Retry-After", "5");
  if (status == 500) add_field("X-Should-Retry", "false");  // the same request would fail again
  send_error(status, error);
}

void Exchange::send_stream(std::function<bool()> write) {
  send(200, "", "text/event-stream; charset=utf-8");
  add_field("Cache-Control", "no-cache");
  add_field("X-Accel-Buffering", "no");
  stream_ = std::move(write);
  if (head_.http_1_0) close_ = true;
}

void Exchange::abandon() {
  close_ = true;
  status_ = 499;
  connection_.interrupt();
}

}  // namespace multiverse

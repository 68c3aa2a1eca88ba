#include "http/exchange.h"

#include <algorithm>
#include <array>
#include <cstdio>
#include <ctime>
#include <random>

#include "multiverse/api/error_body.h"

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

std::string random_request_id() {
  std::random_device device;
  std::array<char, 40> text{};
  const int size =
      std::snprintf(text.data(), text.size(), "req-%08x%08x%08x%08x", device(), device(), device(), device());
  return {text.data(), static_cast<std::size_t>(size)};
}

const char* reason_phrase(int status) {
  switch (status) {
    case 200:
      return "OK";
    case 400:
      return "Bad Request";
    case 401:
      return "Unauthorized";
    case 404:
      return "Not Found";
    case 405:
      return "Method Not Allowed";
    case 408:
      return "Request Timeout";
    case 413:
      return "Content Too Large";
    case 414:
      return "URI Too Long";
    case 415:
      return "Unsupported Media Type";
    case 417:
      return "Expectation Failed";
    case 429:
      return "Too Many Requests";
    case 431:
      return "Request Header Fields Too Large";
    case 500:
      return "Internal Server Error";
    case 501:
      return "Not Implemented";
    case 503:
      return "Service Unavailable";
    case 505:
      return "HTTP Version Not Supported";
    default:
      return "Unknown";
  }
}

std::string status_line(int status) {
  return concat("HTTP/1.1 ", status, " ", reason_phrase(status), "\r\n");
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
  request_id_ = is_request_id(given) ? std::string(given) : random_request_id();
}

std::variant<std::string, Refusal> Exchange::read_body(std::size_t max_bytes) {
  auto body = connection_.read_body(head_, max_bytes);
  body_read_ = std::holds_alternative<std::string>(body);
  return body;
}

bool Exchange::keep_alive() const {
  return head_.keep_alive && !close_ && !broken_ && !body_unread();
}

std::string Exchange::answer_head(int status, std::string_view content_type) const {
  std::string head = status_line(status);
  head += concat("Date: ", date(), "\r\nContent-Type: ", content_type, "\r\nX-Request-Id: ", request_id_, "\r\n");
  for (const auto& [name, value] : fields_) head += concat(name, ": ", value, "\r\n");
  if (!keep_alive()) {
    head += "Connection: close\r\n";
  } else if (head_.http_1_0) {
    head += "Connection: keep-alive\r\n";
  }
  return head;
}

void Exchange::send(int status, std::string_view body, std::string_view content_type) {
  status_ = status;
  std::string answer = answer_head(status, content_type);
  answer += concat("Content-Length: ", body.size(), "\r\n\r\n");
  if (head_.method != "HEAD") answer += body;
  if (!connection_.write(answer)) broken_ = true;
  if (body_unread()) connection_.linger();
}

void Exchange::send_error(int status, const Error& error) {
  send(status, error_body(error, status));
}

void Exchange::send_error(const Error& error) {
  send_error(http_status(error.code), error);
}

bool Exchange::start_stream() {
  status_ = 200;
  if (head_.http_1_0) close_ = true;
  std::string head = answer_head(200, "text/event-stream; charset=utf-8");
  head += "Cache-Control: no-cache\r\nX-Accel-Buffering: no\r\n";
  if (!head_.http_1_0) head += "Transfer-Encoding: chunked\r\n";
  broken_ = !connection_.write(head + "\r\n");
  return !broken_;
}

bool Exchange::chunk(std::string_view bytes) {
  if (broken_ || bytes.empty()) return !broken_;
  if (head_.http_1_0) {
    broken_ = !connection_.write(bytes);
    return !broken_;
  }
  std::array<char, 24> size{};
  const int digits = std::snprintf(size.data(), size.size(), "%zx\r\n", bytes.size());
  // One write, so that a chunk is one packet where it can be.
  std::string framed(size.data(), static_cast<std::size_t>(digits));
  framed += bytes;
  framed += "\r\n";
  broken_ = !connection_.write(framed);
  return !broken_;
}

bool Exchange::end_stream() {
  if (!broken_ && !head_.http_1_0) broken_ = !connection_.write("0\r\n\r\n");
  return !broken_;
}

bool Exchange::probe() {
  return !head_.http_1_0 && connection_.write("HTTP/1.1 100 Continue\r\n\r\n");
}

std::string bare_error(int status, const Error& error) {
  const std::string body = error_body(error, status);
  std::string answer = status_line(status);
  if (status == 503) answer += "Retry-After: 1\r\n";
  return answer + concat("Date: ", date(),
                         "\r\nContent-Type: application/json\r\nConnection: close\r\nContent-Length: ", body.size(),
                         "\r\n\r\n", body);
}

}  // namespace multiverse

// One request and its answer: what is decided here, listener.cpp has httplib write.
#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

#include "multiverse/base/status.h"

#include "http/connection.h"

namespace multiverse {

using HeaderFields = std::vector<std::pair<std::string, std::string>>;

// One thread. Answered by send() or send_stream(), once.
class Exchange {
 public:
  // Calls its argument with each part of the body, in order, until that says false. False where not all was taken.
  using BodyReader = std::function<bool(std::function<bool(const char* bytes, std::size_t size)>)>;

  Exchange(Connection& connection, const RequestHead& head);

  const RequestHead& head() const { return head_; }
  // The client's X-Request-Id where it is fit to be repeated, else one of ours. In every answer.
  const std::string& request_id() const { return request_id_; }

  void set_body_reader(BodyReader reader) { body_reader_ = std::move(reader); }
  // The whole body, at most `max_bytes`. While the request is handled, before it is answered.
  std::variant<std::string, Refusal> read_body(std::size_t max_bytes);
  bool body_unread() const { return !body_read_ && (head_.chunked || head_.content_length.value_or(0) > 0); }

  // A field for the answer to come. Values of ours only, or checked ones.
  void add_field(std::string name, std::string value) { fields_.emplace_back(std::move(name), std::move(value)); }
  // Lives until the answer is written.
  void hold(std::shared_ptr<void> owned) { held_ = std::move(owned); }

  void send(int status, std::string body, std::string content_type = "application/json");
  void send_error(int status, const Error& error);
  // With the status of its code, and what clients should know of it: when to try again, how to authenticate.
  void send_error(const Error& error);
  // text/event-stream: chunked, or up to the connection's end where the client speaks HTTP/1.0. `write` runs once the
  // status line is written; it writes to the connection, whole chunks but the last, empty one. False where the stream
  // did not come to its end.
  void send_stream(std::function<bool()> write);
  Connection& connection() { return connection_; }

  int status() const { return status_; }
  bool answered() const { return status_ != 0; }
  // Whether another request may follow.
  bool keep_alive() const { return head_.keep_alive && !close_ && !connection_.broken() && !body_unread(); }
  void close_after() { close_ = true; }
  // The client is gone and gets nothing more: counted as 499.
  void abandon();

  std::chrono::duration<double> age() const { return std::chrono::steady_clock::now() - start_; }

  // Of the access log.
  std::string route = "unmatched";
  std::int64_t prompt_tokens = 0, completion_tokens = 0;
  std::string weights_versions;  // "3", "3, 4"

  // Of the answer, for who writes it.
  const HeaderFields& fields() const { return fields_; }
  const std::string& body() const { return body_; }
  const std::string& content_type() const { return content_type_; }
  bool streams() const { return stream_ != nullptr; }
  // Writes the stream. False where it did not come to its end.
  bool run_stream() { return stream_() && !connection_.broken(); }

 private:
  Connection& connection_;
  const RequestHead& head_;
  const std::chrono::steady_clock::time_point start_ = std::chrono::steady_clock::now();
  std::string request_id_;
  BodyReader body_reader_;
  bool body_read_ = false;

  int status_ = 0;
  HeaderFields fields_;
  std::string body_, content_type_;
  std::shared_ptr<void> held_;
  std::function<bool()> stream_;
  bool close_ = false;
};

}  // namespace multiverse

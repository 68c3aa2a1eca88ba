// One request and its answer on a connection.
#pragma once

#include <chrono>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

#include "multiverse/base/status.h"

#include "http/connection.h"

namespace multiverse {

using HeaderFields = std::vector<std::pair<std::string, std::string>>;

// One thread. Either send() once, or start_stream(), any number of chunk() and end_stream().
class Exchange {
 public:
  Exchange(Connection& connection, const RequestHead& head);

  const RequestHead& head() const { return head_; }
  // The client's X-Request-Id where it is fit to be repeated, else one of ours. In every answer.
  const std::string& request_id() const { return request_id_; }

  std::variant<std::string, Refusal> read_body(std::size_t max_bytes);
  // A field for the answer to come. Values of ours only, or checked ones.
  void add_field(std::string name, std::string value) { fields_.emplace_back(std::move(name), std::move(value)); }

  void send(int status, std::string_view body, std::string_view content_type = "application/json");
  void send_error(int status, const Error& error);
  void send_error(const Error& error);

  // text/event-stream: chunked, or up to the connection's end where the client speaks HTTP/1.0. All of these: false
  // once the client is gone.
  bool start_stream();
  bool chunk(std::string_view bytes);
  bool end_stream();

  // Makes a client that only half closed go on waiting, and one that closed show itself at the next look: an interim
  // answer, which RFC 9110 lets a server send at any time. False where the protocol has none.
  bool probe();
  Connection::Peer peer() const { return connection_.peer(); }
  bool slow_reader() const { return connection_.slow(); }

  int status() const { return status_; }
  bool answered() const { return status_ != 0; }
  // Whether another request may follow.
  bool keep_alive() const;
  void close_after() { close_ = true; }
  // The client is gone: counted as 499, which is never sent.
  void abandon() {
    close_ = true;
    if (status_ == 0) status_ = 499;
  }

  std::chrono::duration<double> age() const { return std::chrono::steady_clock::now() - start_; }

  // Of the access log.
  std::string route = "unmatched";
  std::int64_t prompt_tokens = 0, completion_tokens = 0;

 private:
  bool body_unread() const { return !body_read_ && (head_.chunked || head_.content_length.value_or(0) > 0); }
  std::string answer_head(int status, std::string_view content_type) const;

  Connection& connection_;
  const RequestHead& head_;
  const std::chrono::steady_clock::time_point start_ = std::chrono::steady_clock::now();
  std::string request_id_;
  HeaderFields fields_;
  int status_ = 0;
  bool body_read_ = false;
  bool close_ = false;
  bool broken_ = false;  // the answer is not whole
};

// What a connection gets that never came to have an exchange.
std::string bare_error(int status, const Error& error);

}  // namespace multiverse

// One accepted socket: requests in, bytes out, each with a deadline, and a look at whether the peer is still there.
#pragma once

#include <sys/types.h>

#include <chrono>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <variant>

#include "http/request_head.h"

namespace multiverse {

struct ConnectionDeadlines {
  std::chrono::milliseconds idle{75'000};  // between requests
  std::chrono::milliseconds head{10'000};  // from a request's first byte to its head's end
  std::chrono::milliseconds body{30'000};
  std::chrono::milliseconds write{30'000};  // without progress
};

// Owns the socket. One thread; interrupt() from any.
class Connection {
 public:
  explicit Connection(int fd, ConnectionDeadlines deadlines = {});
  ~Connection();
  Connection(const Connection&) = delete;
  Connection& operator=(const Connection&) = delete;

  // The next request's head, or why it is refused; nullopt at the end: the peer closed, or said nothing for too long.
  std::optional<std::variant<RequestHead, Refusal>> read_head();
  // Some bytes of that request's body, at most `size`; 0 at its end, -1 where it is malformed or late: body_failure()
  // says so. A client that waits to be told to go on is told at the first call.
  ssize_t read_body(char* out, std::size_t size);
  const std::optional<Refusal>& body_failure() const { return body_.failure; }

  // Waits until all is taken. False, now and later, once the peer is gone or takes nothing.
  bool write(std::string_view bytes);
  // Without waiting: what the socket takes now is removed from the front. False once the peer is gone.
  bool send_some(std::string& bytes);
  bool broken() const { return broken_; }
  int fd() const { return fd_; }  // to watch

  // What the peer still sends is read and dropped for a moment, so that it gets to read our last answer.
  void linger();
  // Ends all waiting, now and later. Any thread.
  void interrupt();

 private:
  using Time = std::chrono::steady_clock::time_point;
  enum class Read { kSome, kEnd, kTimeout };
  struct Body {
    std::uint64_t left = 0;  // of the body, or of the chunk
    bool chunked = false, in_chunks = false, ended = false;
    bool continue_awaited = false;
    Time deadline{};
    std::optional<Refusal> failure;
  };
  Read fill(Time deadline);
  // Moves a line without its CRLF out of the buffer; nullopt where there is none of at most `max_bytes` in time.
  std::optional<std::string> read_line(std::size_t max_bytes, Time deadline);
  void start_body(const RequestHead& head);
  bool next_chunk();
  std::size_t send_now(std::string_view bytes);

  const int fd_;
  const ConnectionDeadlines deadlines_;
  std::string buffer_;    // received, not yet used
  std::size_t used_ = 0;  // of the buffer's start
  Body body_;
  bool broken_ = false;
};

}  // namespace multiverse

// One accepted socket: requests in, bytes out, each with a deadline, and a look at whether the peer is still there.
#pragma once

#include <chrono>
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
  // The whole body of that request, at most `max_bytes`.
  std::variant<std::string, Refusal> read_body(const RequestHead& head, std::size_t max_bytes);

  // False once the peer is gone or takes nothing; slow() then tells the two apart.
  bool write(std::string_view bytes);
  bool slow() const { return slow_; }

  enum class Peer {
    kOpen,
    kHalfClosed,  // sends no more; it may still read, or may have closed: only writing to it will tell
    kGone,
  };
  Peer peer() const;

  // What the peer still sends is read and dropped for a moment, so that it gets to read our last answer.
  void linger();
  // Ends all waiting, now and later. Any thread.
  void interrupt();

 private:
  using Time = std::chrono::steady_clock::time_point;
  enum class Read { kSome, kEnd, kTimeout };
  Read fill(Time deadline);
  // Moves a line without its CRLF out of the buffer; nullopt where there is none of at most `max_bytes` in time.
  std::optional<std::string> read_line(std::size_t max_bytes, Time deadline);
  std::optional<Refusal> read_exactly(std::size_t bytes, std::string& out, Time deadline);
  std::variant<std::string, Refusal> read_chunked(std::size_t max_bytes, Time deadline);

  const int fd_;
  const ConnectionDeadlines deadlines_;
  std::string buffer_;    // received, not yet used
  std::size_t used_ = 0;  // of the buffer's start
  bool slow_ = false;
};

}  // namespace multiverse

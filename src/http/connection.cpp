#include "http/connection.h"

#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <charconv>

namespace multiverse {
namespace {

using std::chrono::milliseconds;
using std::chrono::steady_clock;

constexpr std::size_t kReadBytes = 16 * 1024;
constexpr std::size_t kMaxChunkLineBytes = 1024;  // size and extensions
constexpr std::size_t kMaxTrailers = 64;

void set_option(int fd, int level, int name, int value) {
  // A socket that lacks the option (not TCP) still serves.
  (void)setsockopt(fd, level, name, &value, sizeof value);
}

// Whether `events` came before the deadline.
bool wait_for(int fd, short events, steady_clock::time_point deadline) {
  while (true) {
    const auto left = std::chrono::duration_cast<milliseconds>(deadline - steady_clock::now()).count() + 1;
    if (left <= 0) return false;
    pollfd entry{fd, events, 0};
    const int ready = poll(&entry, 1, static_cast<int>(std::min<long long>(left, 60'000)));
    if (ready > 0) return true;
    if (ready < 0 && errno != EINTR) return false;
  }
}

Refusal refusal(int status, std::string message) {
  return {status, invalid_argument(std::move(message))};
}

Refusal body_too_large(std::size_t max_bytes) {
  return {413,
          {ErrorCode::kTooLarge, concat("the request body is larger than the ", max_bytes, " bytes allowed"), "", ""}};
}

Refusal late(std::string_view what) {
  return {408, {ErrorCode::kDeadline, concat("the request's ", what, " did not arrive in time"), "", ""}};
}

// Hexadecimal digits alone; extensions after ';' mean nothing to us.
std::optional<std::uint64_t> chunk_size(std::string_view line) {
  const std::string_view digits = line.substr(0, std::min(line.find_first_of(" \t;"), line.size()));
  std::uint64_t size = 0;
  const auto [end, failure] = std::from_chars(digits.data(), digits.data() + digits.size(), size, 16);
  const bool whole = failure == std::errc() && end == digits.data() + digits.size() && !digits.empty();
  if (!whole || digits[0] == '-' || digits.size() > 15) return std::nullopt;
  return size;
}

}  // namespace

Connection::Connection(int fd, ConnectionDeadlines deadlines) : fd_(fd), deadlines_(deadlines) {
  (void)fcntl(fd_, F_SETFL, fcntl(fd_, F_GETFL) | O_NONBLOCK);
  set_option(fd_, IPPROTO_TCP, TCP_NODELAY, 1);
  // A peer that vanished without a word is noticed within a minute, whether or not we have something to send.
  set_option(fd_, SOL_SOCKET, SO_KEEPALIVE, 1);
  set_option(fd_, IPPROTO_TCP, TCP_KEEPIDLE, 30);
  set_option(fd_, IPPROTO_TCP, TCP_KEEPINTVL, 10);
  set_option(fd_, IPPROTO_TCP, TCP_KEEPCNT, 3);
  set_option(fd_, IPPROTO_TCP, TCP_USER_TIMEOUT, 60'000);
}

Connection::~Connection() {
  close(fd_);
}

Connection::Read Connection::fill(Time deadline) {
  if (used_ > 0) {
    buffer_.erase(0, used_);
    used_ = 0;
  }
  if (!wait_for(fd_, POLLIN, deadline)) return Read::kTimeout;
  std::array<char, kReadBytes> bytes;
  const ssize_t count = recv(fd_, bytes.data(), bytes.size(), 0);
  if (count > 0) {
    buffer_.append(bytes.data(), static_cast<std::size_t>(count));
    return Read::kSome;
  }
  const bool again = count < 0 && (errno == EINTR || errno == EAGAIN);
  return again ? Read::kSome : Read::kEnd;
}

std::optional<std::variant<RequestHead, Refusal>> Connection::read_head() {
  Time deadline = steady_clock::now() + deadlines_.idle;
  bool started = false;
  std::size_t searched = 0;
  while (true) {
    // A client may send an empty line before a request.
    while (!started && buffer_.compare(used_, 2, "\r\n") == 0) used_ += 2;
    if (!started && used_ < buffer_.size()) {
      started = true;
      searched = used_;
      deadline = steady_clock::now() + deadlines_.head;
    }
    for (; started && searched < buffer_.size(); ++searched) {
      if (buffer_[searched] != '\n') continue;
      if (searched == used_ || buffer_[searched - 1] != '\r') return refusal(400, "a line does not end in CRLF");
      if (searched < used_ + 3 || buffer_.compare(searched - 3, 4, "\r\n\r\n") != 0) continue;
      const auto head = std::string_view(buffer_).substr(used_, searched - 1 - used_);
      if (head.size() > kMaxHeadBytes) break;
      auto parsed = parse_head(head);
      used_ = searched + 1;
      return parsed;
    }
    if (buffer_.size() - used_ > kMaxHeadBytes) {
      const bool in_request_line = std::string_view(buffer_).substr(used_).find('\n') == std::string_view::npos;
      return refusal(in_request_line ? 414 : 431, concat("the request's head has more than ", kMaxHeadBytes, " bytes"));
    }
    searched -= std::min(searched, used_);  // fill() drops what was used
    const Read read = fill(deadline);
    if (read == Read::kSome) continue;
    if (!started || read == Read::kEnd) return std::nullopt;
    return late("head");
  }
}

std::optional<std::string> Connection::read_line(std::size_t max_bytes, Time deadline) {
  while (true) {
    const auto end = buffer_.find("\r\n", used_);
    if (end != std::string::npos && end - used_ <= max_bytes) {
      std::string line = buffer_.substr(used_, end - used_);
      used_ = end + 2;
      return line;
    }
    const bool bare = buffer_.find('\n', used_) < end;
    if (bare || buffer_.size() - used_ > max_bytes || fill(deadline) != Read::kSome) return std::nullopt;
  }
}

std::optional<Refusal> Connection::read_exactly(std::size_t bytes, std::string& out, Time deadline) {
  while (bytes > 0) {
    const std::size_t here = std::min(bytes, buffer_.size() - used_);
    out.append(buffer_, used_, here);
    used_ += here;
    bytes -= here;
    if (bytes == 0) break;
    const Read read = fill(deadline);
    if (read == Read::kTimeout) return late("body");
    if (read == Read::kEnd) return refusal(400, "the connection ended within the request's body");
  }
  return std::nullopt;
}

std::variant<std::string, Refusal> Connection::read_chunked(std::size_t max_bytes, Time deadline) {
  std::string body, ending;
  while (true) {
    const auto line = read_line(kMaxChunkLineBytes, deadline);
    const auto size = line ? chunk_size(*line) : std::nullopt;
    if (!size) return refusal(400, "the chunked request body is malformed");
    if (*size == 0) break;
    if (*size > max_bytes - body.size()) return body_too_large(max_bytes);
    if (auto failed = read_exactly(static_cast<std::size_t>(*size), body, deadline)) return *failed;
    ending.clear();
    if (auto failed = read_exactly(2, ending, deadline)) return *failed;
    if (ending != "\r\n") return refusal(400, "the chunked request body is malformed");
  }
  for (std::size_t trailers = 0; trailers <= kMaxTrailers; ++trailers) {
    const auto line = read_line(kMaxChunkLineBytes, deadline);
    if (!line) break;
    if (line->empty()) return body;
  }
  return refusal(400, "the chunked request body is malformed");
}

std::variant<std::string, Refusal> Connection::read_body(const RequestHead& head, std::size_t max_bytes) {
  if (head.content_length.value_or(0) > max_bytes) return body_too_large(max_bytes);
  const bool has_body = head.chunked || head.content_length.value_or(0) > 0;
  if (head.expects_continue && has_body) write("HTTP/1.1 100 Continue\r\n\r\n");
  const Time deadline = steady_clock::now() + deadlines_.body;
  if (head.chunked) return read_chunked(max_bytes, deadline);
  std::string body;
  if (auto failed = read_exactly(static_cast<std::size_t>(head.content_length.value_or(0)), body, deadline)) {
    return *failed;
  }
  return body;
}

bool Connection::write(std::string_view bytes) {
  while (!bytes.empty()) {
    const ssize_t count = send(fd_, bytes.data(), bytes.size(), MSG_NOSIGNAL);
    if (count > 0) {
      bytes.remove_prefix(static_cast<std::size_t>(count));
    } else if (count < 0 && errno == EAGAIN) {
      if (wait_for(fd_, POLLOUT, steady_clock::now() + deadlines_.write)) continue;
      slow_ = true;
      return false;
    } else if (count < 0 && errno != EINTR) {
      return false;
    }
  }
  return true;
}

Connection::Peer Connection::peer() const {
  pollfd entry{fd_, POLLRDHUP, 0};
  if (poll(&entry, 1, 0) <= 0) return Peer::kOpen;
  if ((entry.revents & (POLLERR | POLLHUP | POLLNVAL)) != 0) return Peer::kGone;
  return (entry.revents & POLLRDHUP) != 0 ? Peer::kHalfClosed : Peer::kOpen;
}

void Connection::linger() {
  shutdown(fd_, SHUT_WR);
  const Time deadline = steady_clock::now() + milliseconds(500);
  std::size_t dropped = 0;
  while (dropped < 16 * kMaxHeadBytes && fill(deadline) == Read::kSome) {
    dropped += buffer_.size();
    used_ = buffer_.size();
  }
}

void Connection::interrupt() {
  shutdown(fd_, SHUT_RDWR);
}

}  // namespace multiverse

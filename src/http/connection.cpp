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
#include <utility>

namespace multiverse {
namespace {

using std::chrono::milliseconds;
using std::chrono::steady_clock;

constexpr std::size_t kReadBytes = std::size_t{16} * 1024;
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
  (void)fcntl(fd_, F_SETFD, FD_CLOEXEC);
  set_option(fd_, IPPROTO_TCP, TCP_NODELAY, 1);
  // A peer that vanished without a word is noticed within a minute, whether or not we have something to send.
  set_option(fd_, SOL_SOCKET, SO_KEEPALIVE, 1);
  set_option(fd_, IPPROTO_TCP, TCP_KEEPIDLE, 30);
  set_option(fd_, IPPROTO_TCP, TCP_KEEPINTVL, 10);
  set_option(fd_, IPPROTO_TCP, TCP_KEEPCNT, 3);
  set_option(fd_, IPPROTO_TCP, TCP_USER_TIMEOUT, 60'000);
  // What a slow reader has not been sent waits with us, who count it, and not in the kernel's buffer of megabytes.
  set_option(fd_, IPPROTO_TCP, TCP_NOTSENT_LOWAT, 128 * 1024);
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
      if (const auto* request = std::get_if<RequestHead>(&parsed)) start_body(*request);
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

void Connection::start_body(const RequestHead& head) {
  body_ = {};
  body_.left = head.content_length.value_or(0);
  body_.chunked = head.chunked;
  body_.continue_awaited = head.expects_continue && (head.chunked || body_.left > 0);
  body_.deadline = steady_clock::now() + deadlines_.body;
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
    if (bare || buffer_.size() - used_ > max_bytes + 1 || fill(deadline) != Read::kSome) return std::nullopt;
  }
}

// Steps to the next chunk's data. False after the last chunk, or where the framing is malformed.
bool Connection::next_chunk() {
  if (body_.ended || body_.failure) return false;
  const bool first = !std::exchange(body_.in_chunks, true);
  const bool in_step = first || read_line(0, body_.deadline);  // the CRLF after a chunk's data
  const auto line = in_step ? read_line(kMaxChunkLineBytes, body_.deadline) : std::nullopt;
  const auto size = line ? chunk_size(*line) : std::nullopt;
  body_.left = size.value_or(0);
  if (body_.left > 0) return true;
  for (std::size_t trailers = 0; size && !body_.ended && trailers <= kMaxTrailers; ++trailers) {
    const auto trailer = read_line(kMaxChunkLineBytes, body_.deadline);
    if (!trailer) break;
    body_.ended = trailer->empty();
  }
  if (!body_.ended) body_.failure = refusal(400, "the chunked request body is malformed");
  return false;
}

ssize_t Connection::read_body(char* out, std::size_t size) {
  if (std::exchange(body_.continue_awaited, false)) write("HTTP/1.1 100 Continue\r\n\r\n");
  if (body_.left == 0 && !(body_.chunked && next_chunk())) return body_.failure ? -1 : 0;
  while (used_ == buffer_.size()) {
    const Read read = fill(body_.deadline);
    if (read == Read::kSome) continue;
    body_.failure =
        read == Read::kTimeout ? late("body") : refusal(400, "the connection ended within the request's body");
    return -1;
  }
  const std::size_t wanted = static_cast<std::size_t>(std::min<std::uint64_t>(size, body_.left));
  const std::size_t count = buffer_.copy(out, wanted, used_);
  used_ += count;
  body_.left -= count;
  return static_cast<ssize_t>(count);
}

// How much of it the socket takes now.
std::size_t Connection::send_now(std::string_view bytes) {
  std::size_t sent = 0;
  while (sent < bytes.size() && !broken_) {
    const ssize_t count = send(fd_, bytes.data() + sent, bytes.size() - sent, MSG_NOSIGNAL);
    if (count > 0) {
      sent += static_cast<std::size_t>(count);
    } else if (count < 0 && errno == EAGAIN) {
      break;
    } else if (count < 0 && errno != EINTR) {
      broken_ = true;
    }
  }
  return sent;
}

bool Connection::write(std::string_view bytes) {
  while (!broken_) {
    bytes.remove_prefix(send_now(bytes));
    if (bytes.empty()) break;
    if (!broken_) broken_ = !wait_for(fd_, POLLOUT, steady_clock::now() + deadlines_.write);
  }
  return !broken_;
}

bool Connection::send_some(std::string& bytes) {
  bytes.erase(0, send_now(bytes));
  return !broken_;
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

#include "http/raw_client.h"

#include <arpa/inet.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <array>

#include "multiverse/base/check.h"

namespace multiverse::testing {

RawClient::RawClient(int port) : fd_(socket(AF_INET, SOCK_STREAM, 0)) {
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_port = htons(static_cast<std::uint16_t>(port));
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  EXPECT_EQ(connect(fd_, reinterpret_cast<sockaddr*>(&address), sizeof address), 0);
}

RawClient::~RawClient() {
  close();
}

void RawClient::send(std::string_view bytes) {
  while (!bytes.empty()) {
    const ssize_t count = ::send(fd_, bytes.data(), bytes.size(), MSG_NOSIGNAL);
    if (count <= 0) return;  // the server may refuse before all is sent
    bytes.remove_prefix(static_cast<std::size_t>(count));
  }
}

bool RawClient::fill() {
  const auto left = std::chrono::duration_cast<std::chrono::milliseconds>(deadline_ - std::chrono::steady_clock::now());
  pollfd entry{fd_, POLLIN, 0};
  if (left.count() <= 0 || poll(&entry, 1, static_cast<int>(left.count())) <= 0) return false;
  std::array<char, 4096> bytes;
  const ssize_t count = recv(fd_, bytes.data(), bytes.size(), 0);
  if (count <= 0) return false;
  buffer_.append(bytes.data(), static_cast<std::size_t>(count));
  return true;
}

std::string RawClient::read_until(std::string_view end) {
  deadline_ = std::chrono::steady_clock::now() + std::chrono::seconds(10);
  while (true) {
    const auto found = end.empty() ? std::string::npos : buffer_.find(end);
    if (found != std::string::npos) {
      std::string out = buffer_.substr(0, found + end.size());
      buffer_.erase(0, out.size());
      return out;
    }
    if (!fill()) return std::exchange(buffer_, "");
  }
}

std::string RawClient::read_answer() {
  std::string answer = read_until("\r\n\r\n");
  const std::string length = field_of(answer, "Content-Length");
  const std::size_t wanted = length.empty() ? 0 : std::stoul(length);
  while (buffer_.size() < wanted && fill()) {
  }
  answer += buffer_.substr(0, wanted);
  buffer_.erase(0, wanted);
  return answer;
}

void RawClient::half_close() {
  shutdown(fd_, SHUT_WR);
}

void RawClient::close() {
  if (fd_ >= 0) ::close(fd_);
  fd_ = -1;
}

void RawClient::reset() {
  const linger now{1, 0};
  setsockopt(fd_, SOL_SOCKET, SO_LINGER, &now, sizeof now);
  close();
}

std::string post(std::string_view path, std::string_view body, std::string_view fields) {
  return concat("POST ", path,
                " HTTP/1.1\r\nHost: test\r\nContent-Type: application/json\r\nContent-Length: ", body.size(), "\r\n",
                fields, "\r\n", body);
}

int status_of(std::string_view answer) {
  return answer.size() > 12 ? std::stoi(std::string(answer.substr(9, 3))) : 0;
}

std::string body_of(std::string_view answer) {
  const auto end = answer.find("\r\n\r\n");
  return end == std::string_view::npos ? "" : std::string(answer.substr(end + 4));
}

std::string field_of(std::string_view answer, std::string_view name) {
  const auto at = answer.find(concat("\r\n", name, ": "));
  if (at == std::string_view::npos || at > answer.find("\r\n\r\n")) return "";
  const auto start = at + name.size() + 4;
  return std::string(answer.substr(start, answer.find("\r\n", start) - start));
}

std::string dechunked(std::string_view body) {
  std::string out;
  while (!body.empty()) {
    const auto line = body.find("\r\n");
    if (line == std::string_view::npos) break;
    const std::size_t size = std::stoul(std::string(body.substr(0, line)), nullptr, 16);
    if (size == 0) break;
    out += body.substr(line + 2, size);
    body.remove_prefix(std::min(body.size(), line + 2 + size + 2));
  }
  return out;
}

}  // namespace multiverse::testing

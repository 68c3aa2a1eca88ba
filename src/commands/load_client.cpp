#include "commands/load_client.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstring>

#include "multiverse/base/check.h"

namespace multiverse {

LoadClient::LoadClient(int port) : port_(port), epoll_(epoll_create1(EPOLL_CLOEXEC)) {
  CHECK(epoll_ >= 0, "epoll_create1: ", std::strerror(errno));
}

LoadClient::~LoadClient() {
  for (const int fd : sockets_) close(fd);
  close(epoll_);
}

std::size_t LoadClient::connect() {
  const int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  CHECK(fd >= 0, "socket ", sockets_.size(), ": ", std::strerror(errno));
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_port = htons(static_cast<std::uint16_t>(port_));
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  const int connected = ::connect(fd, reinterpret_cast<const sockaddr*>(&address), sizeof address);
  CHECK(connected == 0, "connection ", sockets_.size(), ": ", std::strerror(errno));
  (void)fcntl(fd, F_SETFL, O_NONBLOCK);
  const int on = 1;
  (void)setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
  epoll_event event{};
  event.events = EPOLLIN;
  event.data.u64 = sockets_.size();
  (void)epoll_ctl(epoll_, EPOLL_CTL_ADD, fd, &event);
  sockets_.push_back(fd);
  return sockets_.size() - 1;
}

void LoadClient::send(std::size_t connection, std::string_view bytes) {
  while (!bytes.empty()) {
    const ssize_t count = ::send(sockets_[connection], bytes.data(), bytes.size(), MSG_NOSIGNAL);
    if (count < 0 && (errno == EAGAIN || errno == EINTR)) continue;
    CHECK(count > 0, "sending on connection ", connection, ": ", std::strerror(errno));
    bytes.remove_prefix(static_cast<std::size_t>(count));
  }
}

void LoadClient::receive(int milliseconds, const std::function<void(std::size_t, std::string_view)>& take) {
  std::array<epoll_event, 256> events;
  const int ready = epoll_wait(epoll_, events.data(), static_cast<int>(events.size()), milliseconds);
  std::array<char, 65536> bytes;
  for (int i = 0; i < ready; ++i) {
    const std::size_t connection = events[static_cast<std::size_t>(i)].data.u64;
    const ssize_t count = recv(sockets_[connection], bytes.data(), bytes.size(), 0);
    if (count < 0 && (errno == EAGAIN || errno == EINTR)) continue;
    if (count <= 0) (void)epoll_ctl(epoll_, EPOLL_CTL_DEL, sockets_[connection], nullptr);
    take(connection, {bytes.data(), static_cast<std::size_t>(count > 0 ? count : 0)});
  }
}

std::size_t raise_file_limit() {
  rlimit limit{};
  (void)getrlimit(RLIMIT_NOFILE, &limit);
  limit.rlim_cur = limit.rlim_max;
  (void)setrlimit(RLIMIT_NOFILE, &limit);
  return limit.rlim_cur;
}

}  // namespace multiverse

#include "http/listener.h"

#include <netdb.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <cstring>

#include "multiverse/base/log.h"

namespace multiverse {
namespace {

constexpr int kBacklog = 4096;  // bursts wait here, not in the clients' retries

int bound_port(int fd) {
  sockaddr_storage address{};
  socklen_t size = sizeof address;
  if (getsockname(fd, reinterpret_cast<sockaddr*>(&address), &size) != 0) return 0;
  if (address.ss_family == AF_INET6) return ntohs(reinterpret_cast<const sockaddr_in6&>(address).sin6_port);
  return ntohs(reinterpret_cast<const sockaddr_in&>(address).sin_port);
}

// -1 with errno where it fails.
int listen_on(const addrinfo& address) {
  const int fd = socket(address.ai_family, SOCK_STREAM | SOCK_CLOEXEC, address.ai_protocol);
  if (fd < 0) return -1;
  const int on = 1;
  (void)setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
  if (bind(fd, address.ai_addr, address.ai_addrlen) == 0 && listen(fd, kBacklog) == 0) return fd;
  const int reason = errno;
  close(fd);
  errno = reason;
  return -1;
}

}  // namespace

Result<std::unique_ptr<Listener>> Listener::open(const std::string& host, int port) {
  addrinfo hints{};
  hints.ai_family = AF_UNSPEC;
  hints.ai_socktype = SOCK_STREAM;
  hints.ai_flags = AI_PASSIVE | AI_NUMERICSERV;
  addrinfo* found = nullptr;
  const int failure = getaddrinfo(host.c_str(), std::to_string(port).c_str(), &hints, &found);
  if (failure != 0) {
    return invalid_argument(concat("host '", host, "' is no address to listen on: ", gai_strerror(failure)), "host");
  }
  const std::unique_ptr<addrinfo, decltype(&freeaddrinfo)> addresses(found, &freeaddrinfo);
  int reason = 0;
  for (const addrinfo* address = found; address != nullptr; address = address->ai_next) {
    const int fd = listen_on(*address);
    if (fd >= 0) return std::unique_ptr<Listener>(new Listener(fd, bound_port(fd)));
    reason = errno;
  }
  const char* advice = reason == EADDRINUSE ? "; stop the other program or choose another port" : "";
  return invalid_argument(concat("can't listen on ", host, ":", port, ": ", std::strerror(reason), advice), "port");
}

Listener::~Listener() {
  stop();
  close(fd_);
}

void Listener::start(std::function<void(int fd)> accepted) {
  accepted_ = std::move(accepted);
  thread_ = std::thread([this] { run(); });
}

void Listener::stop() {
  stopping_ = true;
  shutdown(fd_, SHUT_RDWR);  // wakes accept
  if (thread_.joinable()) thread_.join();
}

void Listener::run() {
  while (!stopping_) {
    const int socket = accept4(fd_, nullptr, nullptr, SOCK_CLOEXEC);
    if (socket >= 0) {
      accepted_(socket);
    } else if (stopping_) {
      break;
    } else if (errno == EMFILE || errno == ENFILE || errno == ENOBUFS || errno == ENOMEM) {
      // No descriptor is left: those that are served go on, newcomers wait in the backlog.
      log(LogLevel::kWarning, concat("can't accept a connection: ", std::strerror(errno)));
      std::this_thread::sleep_for(std::chrono::milliseconds(100));
    }
  }
}

}  // namespace multiverse

// Many connections to one server from one thread, to put load on it.
#pragma once

#include <functional>
#include <string>
#include <string_view>
#include <vector>

namespace multiverse {

// One thread. Sockets that don't block, on 127.0.0.1.
class LoadClient {
 public:
  explicit LoadClient(int port);
  ~LoadClient();
  LoadClient(const LoadClient&) = delete;
  LoadClient& operator=(const LoadClient&) = delete;

  // Opens one more connection; its number, counted from 0. CHECKs that there are descriptors for it.
  std::size_t connect();
  // All of it; a request is small against a socket's buffer.
  void send(std::size_t connection, std::string_view bytes);
  // Hands on what came on any connection, waiting for something up to `milliseconds`; "" where a connection ended.
  void receive(int milliseconds, const std::function<void(std::size_t connection, std::string_view bytes)>& take);

 private:
  const int port_;
  const int epoll_;
  std::vector<int> sockets_;
};

// Raises the number of files that this process may open to what it is allowed, and returns that.
std::size_t raise_file_limit();

}  // namespace multiverse

// The listening socket and the thread that accepts.
#pragma once

#include <atomic>
#include <functional>
#include <memory>
#include <string>
#include <thread>

#include "multiverse/base/status.h"

namespace multiverse {

class Listener {
 public:
  // Binds and listens. `port` 0: any free one. The error says what is wrong with the address.
  static Result<std::unique_ptr<Listener>> open(const std::string& host, int port);
  ~Listener();

  int port() const { return port_; }
  // Calls `accepted` with each socket, on a thread of the listener's; the callee owns the socket.
  void start(std::function<void(int fd)> accepted);
  void stop();

 private:
  Listener(int fd, int port) : fd_(fd), port_(port) {}
  void run();

  const int fd_;
  const int port_;
  std::function<void(int)> accepted_;
  std::atomic<bool> stopping_ = false;
  std::thread thread_;
};

}  // namespace multiverse

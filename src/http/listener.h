// One address that connections come to. cpp-httplib is behind it.
#pragma once

#include <chrono>
#include <memory>
#include <string>

#include "multiverse/base/status.h"

#include "http/metrics.h"
#include "http/service.h"

namespace multiverse {

struct ListenerOptions {
  std::string host;
  int port = 0;  // 0 = any free one
  int max_connections = 1;
  Audience audience = Audience::kClients;
  std::chrono::milliseconds write_timeout{30'000};
};

// Accepts from open() on, and has `service` decide each request's answer, on a thread for each connection.
class Listener {
 public:
  // Service and metrics outlive it. The error says what is wrong with host or port.
  static Result<std::unique_ptr<Listener>> open(const ListenerOptions& options, Service& service, Metrics& metrics);
  virtual ~Listener() = default;  // as stop()

  virtual int port() const = 0;  // the real one
  // Stops listening, closes all connections and waits for their threads.
  virtual void stop() = 0;
};

}  // namespace multiverse

// Sockets, threads and HTTP/1.1: cpp-httplib's server under our rules. transport.cpp alone sees its header.
#pragma once

#include <memory>

#include "multiverse/base/status.h"
#include "multiverse/http/server.h"

#include "http/metrics.h"
#include "http/service.h"

namespace multiverse {

// All member functions from any thread.
class Transport {
 public:
  // Binds, listens and serves, each connection on a thread of its own; `service` and `metrics` outlive it. The error
  // says what is wrong with host or port.
  static Result<std::unique_ptr<Transport>> listen(const HttpOptions& options, Service& service, Metrics& metrics);
  virtual ~Transport() = default;  // as stop()

  virtual int port() const = 0;  // the real one
  // Closes all connections and accepts none. Blocks until the threads are done.
  virtual void stop() = 0;
};

}  // namespace multiverse

// The HTTP server: sockets, routes, keys, limits, metrics, drain.
#pragma once

#include <chrono>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "multiverse/api/reload.h"
#include "multiverse/api/served_model.h"
#include "multiverse/base/status.h"
#include "multiverse/engine/engine.h"

namespace multiverse {

struct HttpOptions {
  std::string host = "127.0.0.1";
  int port = 8000;  // 0 = any free one
  // An address of its own for /metrics and the probes, without keys; /metrics is then only there. 0 = any free port.
  std::string metrics_host = "127.0.0.1";
  std::optional<int> metrics_port;
  std::string version;
  std::size_t max_body_bytes = std::size_t{8} << 20;
  int max_connections = 4096;                        // one thread each while it lasts
  std::chrono::milliseconds request_timeout{0};      // of a generation; 0 = none
  std::chrono::milliseconds first_token_timeout{0};  // of a generation's first token; 0 = none
  std::chrono::milliseconds ping_interval{15'000};   // between comments on a silent stream; 0 = none
  // A client that takes nothing of its answer for this long, or lags more than 1 MiB behind for as long, is given up.
  std::chrono::milliseconds write_timeout{30'000};
  std::chrono::milliseconds stall_timeout{120'000};  // the engine has work and ended no step for this long: not alive
  std::vector<std::string> api_keys;                 // none: everyone may
  std::vector<std::string> cors_origins;             // whose pages may ask from a browser; "*": all
  std::vector<std::string> allowed_hosts;            // names in Host, without port; none: any
  WeightPlaces weights;                              // of POST /admin/reload_weights
  bool ui = false;                                   // the page at /
};

// All member functions from any thread.
class HttpServer {
 public:
  // Listens at once: /livez answers, everything that needs a model says 503 until attach(). The error says what is
  // wrong with host or port.
  static Result<std::unique_ptr<HttpServer>> start(HttpOptions options);
  virtual ~HttpServer() = default;  // as stop()

  virtual int port() const = 0;          // the real one
  virtual int metrics_port() const = 0;  // that of /metrics
  // Requests are served from now on. `engine` outlives the server.
  virtual void attach(std::shared_ptr<const ServedModel> model, Engine& engine) = 0;
  // Replaces the keys, for requests from now on; none would let everyone in, so it is our mistake where there were
  // some.
  virtual void set_api_keys(std::vector<std::string> keys) = 0;
  // What /livez says: false where the engine is stuck.
  virtual bool alive() const = 0;
  // New requests get 503, /readyz fails; running ones go on. Returns at once.
  virtual void begin_drain() = 0;
  // Waits until nothing runs, at most `limit`. True if so.
  virtual bool wait_idle(std::chrono::milliseconds limit) = 0;
  // Ends what still runs with an error, closes all connections and stops listening. Blocks until the threads are done.
  virtual void stop() = 0;
};

}  // namespace multiverse

#include "multiverse/http/server.h"

#include <utility>

#include "http/metrics.h"
#include "http/service.h"
#include "http/transport.h"

namespace multiverse {
namespace {

// How long stop() waits for generations to send their error before it closes their connections.
constexpr std::chrono::milliseconds kAbortGrace{1000};

class HttpServerImpl final : public HttpServer {
 public:
  explicit HttpServerImpl(HttpOptions options) : options_(std::move(options)), service_(options_, metrics_) {}
  ~HttpServerImpl() override { HttpServerImpl::stop(); }
  Status listen() {
    auto transport = Transport::listen(options_, service_, metrics_);
    if (!transport.ok()) return transport.error();
    transport_ = std::move(transport).value();
    return ok_status();
  }

  int port() const override { return transport_->port(); }
  void attach(std::shared_ptr<const ServedModel> model, Engine& engine) override {
    service_.attach(std::move(model), engine);
  }
  void begin_drain() override { service_.begin_drain(); }
  bool wait_idle(std::chrono::milliseconds limit) override { return service_.wait_idle(limit); }
  void stop() override {
    service_.begin_drain();
    service_.abort_generations();
    (void)service_.wait_idle(kAbortGrace);
    if (transport_) transport_->stop();
  }

 private:
  const HttpOptions options_;
  Metrics metrics_;
  Service service_;
  std::unique_ptr<Transport> transport_;
};

}  // namespace

Result<std::unique_ptr<HttpServer>> HttpServer::start(HttpOptions options) {
  auto server = std::make_unique<HttpServerImpl>(std::move(options));
  const Status listening = server->listen();
  if (!listening.ok()) return listening.error();
  return std::unique_ptr<HttpServer>(std::move(server));
}

}  // namespace multiverse

#include "multiverse/http/server.h"

#include "http/listener.h"
#include "http/metrics.h"
#include "http/service.h"

namespace multiverse {
namespace {

// How long stop() waits for generations to send their error before it closes their connections. A process past its
// drain deadline is to be gone within 2 s.
constexpr std::chrono::milliseconds kAbortGrace{1500};
// Scrapers and probes on their own address: a few each.
constexpr int kMaxOperatorConnections = 64;

class HttpServerImpl final : public HttpServer {
 public:
  explicit HttpServerImpl(HttpOptions options) : options_(std::move(options)), service_(options_, metrics_) {}
  ~HttpServerImpl() override { HttpServerImpl::stop(); }

  Status open() {
    auto clients = Listener::open(
        {options_.host, options_.port, options_.max_connections, Audience::kClients, options_.write_timeout}, service_,
        metrics_);
    if (!clients.ok()) return clients.error();
    clients_ = std::move(clients).value();
    if (!options_.metrics_port) return ok_status();
    auto operators =
        Listener::open({options_.metrics_host, *options_.metrics_port, kMaxOperatorConnections, Audience::kOperators},
                       service_, metrics_);
    if (!operators.ok()) {
      Error error = operators.error();
      error.param = "metrics_" + error.param;
      return error;
    }
    operators_ = std::move(operators).value();
    return ok_status();
  }

  int port() const override { return clients_->port(); }
  int metrics_port() const override { return operators_ != nullptr ? operators_->port() : clients_->port(); }
  void attach(std::shared_ptr<const ServedModel> model, Engine& engine) override {
    service_.attach(std::move(model), engine);
  }
  void set_api_keys(std::vector<std::string> keys) override { service_.set_api_keys(std::move(keys)); }
  bool alive() const override { return service_.alive(); }
  void begin_drain() override { service_.begin_drain(); }
  bool wait_idle(std::chrono::milliseconds limit) override { return service_.wait_idle(limit); }

  void stop() override {
    service_.begin_drain();
    service_.abort_generations();
    (void)service_.wait_idle(kAbortGrace);
    for (Listener* listener : {clients_.get(), operators_.get()}) {
      if (listener != nullptr) listener->stop();
    }
  }

 private:
  const HttpOptions options_;
  Metrics metrics_;
  Service service_;
  std::unique_ptr<Listener> clients_, operators_;  // last: their threads use all of the above
};

}  // namespace

Result<std::unique_ptr<HttpServer>> HttpServer::start(HttpOptions options) {
  auto server = std::make_unique<HttpServerImpl>(std::move(options));
  const Status opened = server->open();
  if (!opened.ok()) return opened.error();
  return std::unique_ptr<HttpServer>(std::move(server));
}

}  // namespace multiverse

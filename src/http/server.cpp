#include "multiverse/http/server.h"

#include <sys/socket.h>
#include <unistd.h>

#include <mutex>
#include <set>
#include <utility>

#include "multiverse/base/log.h"

#include "http/connection.h"
#include "http/connection_threads.h"
#include "http/exchange.h"
#include "http/listener.h"
#include "http/metrics.h"
#include "http/service.h"

namespace multiverse {
namespace {

// How long stop() waits for generations to send their error before it closes their connections.
constexpr std::chrono::milliseconds kAbortGrace{1000};

class HttpServerImpl final : public HttpServer {
 public:
  HttpServerImpl(HttpOptions options, std::unique_ptr<Listener> listener)
      : options_(std::move(options)),
        listener_(std::move(listener)),
        service_(options_, metrics_),
        threads_(options_.max_connections, [this](int fd) { serve(fd); }) {
    listener_->start([this](int fd) { accept(fd); });
  }
  ~HttpServerImpl() override { stop(); }

  int port() const override { return listener_->port(); }
  void attach(std::shared_ptr<const ServedModel> model, Engine& engine) override {
    service_.attach(std::move(model), engine);
  }
  void begin_drain() override { service_.begin_drain(); }
  bool wait_idle(std::chrono::milliseconds limit) override { return service_.wait_idle(limit); }
  void stop() override;

 private:
  void accept(int fd);
  void serve(int fd);
  void serve_requests(Connection& connection);

  const HttpOptions options_;
  Metrics metrics_;
  std::unique_ptr<Listener> listener_;
  Service service_;
  std::mutex mutex_;
  std::set<Connection*> open_;  // for stop()
  bool stopping_ = false;
  ConnectionThreads threads_;
};

// On the listener's thread, which must not wait for anyone.
void HttpServerImpl::accept(int fd) {
  if (threads_.take(fd)) return;
  static const std::string kFull =
      bare_error(503, {ErrorCode::kUnavailable, "the server has as many connections as it may have; try again", "",
                       "connections_full"});
  (void)send(fd, kFull.data(), kFull.size(), MSG_NOSIGNAL | MSG_DONTWAIT);
  shutdown(fd, SHUT_WR);
  close(fd);
}

void HttpServerImpl::serve(int fd) {
  Connection connection(fd);
  {
    const std::lock_guard lock(mutex_);
    if (stopping_) return;
    open_.insert(&connection);
  }
  metrics_.connections += 1;
  serve_requests(connection);
  metrics_.connections -= 1;
  const std::lock_guard lock(mutex_);
  open_.erase(&connection);
}

void HttpServerImpl::serve_requests(Connection& connection) {
  while (auto next = connection.read_head()) {
    if (const auto* refusal = std::get_if<Refusal>(&*next)) {
      metrics_.count_request("refused", "other", refusal->status);
      if (connection.write(bare_error(refusal->status, refusal->error))) connection.linger();
      return;
    }
    Exchange exchange(connection, std::get<RequestHead>(*next));
    service_.handle(exchange);
    if (!exchange.keep_alive()) return;
  }
}

void HttpServerImpl::stop() {
  service_.begin_drain();
  service_.abort_generations();
  (void)service_.wait_idle(kAbortGrace);
  listener_->stop();
  {
    const std::lock_guard lock(mutex_);
    stopping_ = true;
    for (Connection* connection : open_) connection->interrupt();
  }
  threads_.join();
}

}  // namespace

Result<std::unique_ptr<HttpServer>> HttpServer::start(HttpOptions options) {
  auto listener = Listener::open(options.host, options.port);
  if (!listener.ok()) return listener.error();
  return std::unique_ptr<HttpServer>(std::make_unique<HttpServerImpl>(std::move(options), std::move(listener).value()));
}

}  // namespace multiverse

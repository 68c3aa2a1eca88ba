#include "http/listener.h"

// As Debian compiles its library: a Request has one member more.
#define CPPHTTPLIB_OPENSSL_SUPPORT
#include <fcntl.h>
#include <httplib.h>
#include <sys/socket.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <cstring>
#include <mutex>
#include <set>
#include <thread>

#include "multiverse/base/log.h"

#include "http/connection.h"
#include "http/connection_threads.h"
#include "http/exchange.h"

namespace multiverse {
namespace {

using std::chrono::milliseconds;

constexpr int kBacklog = 4096;  // bursts wait here, not in the clients' retries
constexpr milliseconds kAcceptPause{100};

// httplib's handlers are told nothing of the connection; one thread serves one request at a time.
thread_local Exchange* current_exchange = nullptr;
thread_local bool on_accepting_thread = false;

// Stands in for a request that was refused before it was understood.
const RequestHead kUnread = std::get<RequestHead>(parse_head("GET / HTTP/1.0\r\n"));

// What httplib sees of a connection: a head written anew from what parse_head() understood, with the method and the
// body's length alone, and the body's bytes without chunk framing. No other field reaches it (Range, Accept-Encoding,
// Content-Encoding, Expect, Connection), and no path: routes are matched on the path as sent.
class ConnectionStream final : public httplib::Stream {
 public:
  ConnectionStream(Connection& connection, const RequestHead& head)
      : connection_(connection), head_(concat(head.method, " / HTTP/1.1\r\n")) {
    // Without a length httplib reads the body to the stream's end, which read() says where the last chunk was.
    if (!head.chunked) head_ += concat("Content-Length: ", head.content_length.value_or(0), "\r\n");
    head_ += "\r\n";
  }

  ssize_t read(char* out, std::size_t size) override {
    if (head_used_ == head_.size()) return connection_.read_body(out, size);
    const std::size_t count = head_.copy(out, size, head_used_);
    head_used_ += count;
    return static_cast<ssize_t>(count);
  }
  ssize_t write(const char* bytes, std::size_t size) override {
    return connection_.write({bytes, size}) ? static_cast<ssize_t>(size) : -1;
  }
  bool is_readable() const override { return true; }
  bool is_writable() const override { return !connection_.broken(); }
  void get_remote_ip_and_port(std::string& /*ip*/, int& /*port*/) const override {}
  void get_local_ip_and_port(std::string& /*ip*/, int& /*port*/) const override {}
  socket_t socket() const override { return 0; }  // to httplib only a number that select() could take

 private:
  Connection& connection_;
  std::string head_;
  std::size_t head_used_ = 0;
};

class TaskQueue final : public httplib::TaskQueue {
 public:
  explicit TaskQueue(ConnectionThreads& threads) : threads_(threads) {}
  void enqueue(std::function<void()> task) override {
    if (!threads_.take(task)) task();  // on the accepting thread, where it refuses the connection
  }
  void shutdown() override {}  // ListenerImpl::stop() does it

 private:
  ConnectionThreads& threads_;
};

class ListenerImpl final : public Listener, private httplib::Server {
 public:
  ListenerImpl(const ListenerOptions& options, Service& service, Metrics& metrics);
  ~ListenerImpl() override;
  Status open();

  int port() const override { return port_; }
  void stop() override;

 private:
  void accept_connections();
  bool process_and_close_socket(socket_t fd) override;
  void refuse(Connection& connection);
  void serve(Connection& connection);
  void answer(Connection& connection, Exchange& exchange);
  void decide(Exchange& exchange, httplib::Response& response);

  const ListenerOptions options_;
  Service& service_;
  Metrics& metrics_;
  int listening_ = -1;
  int port_ = 0;
  bool resolved_ = false;  // the host had an address
  std::atomic<bool> stopping_ = false;
  std::mutex mutex_;
  std::set<Connection*> open_;  // for stop()
  ConnectionThreads threads_;
  std::thread accepting_;
};

ListenerImpl::ListenerImpl(const ListenerOptions& options, Service& service, Metrics& metrics)
    : options_(options), service_(service), metrics_(metrics), threads_(options_.max_connections) {
  new_task_queue = [this] { return new TaskQueue(threads_); };  // httplib owns it
  set_socket_options([this](socket_t fd) {
    resolved_ = true;
    const int on = 1;  // httplib's default, SO_REUSEPORT, would let two servers share a port unawares
    (void)setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
  });
  set_pre_routing_handler([this](const httplib::Request& request, httplib::Response& response) {
    if (request.method == "POST") return HandlerResponse::Unhandled;
    decide(*current_exchange, response);
    return HandlerResponse::Handled;
  });
  Post("/", [this](const httplib::Request&, httplib::Response& response, const httplib::ContentReader& reader) {
    current_exchange->set_body_reader(reader.reader_);
    decide(*current_exchange, response);
  });
  set_post_routing_handler([](const httplib::Request&, httplib::Response& response) {
    const Exchange& exchange = *current_exchange;
    response.headers.erase("Accept-Ranges");
    response.headers.erase("Keep-Alive");
    if (!exchange.keep_alive()) {
      response.set_header("Connection", "close");
    } else if (exchange.head().http_1_0) {
      response.set_header("Connection", "keep-alive");
    }
  });
}

ListenerImpl::~ListenerImpl() {
  ListenerImpl::stop();
  if (listening_ >= 0) close(listening_);
}

Status ListenerImpl::open() {
  const std::string& host = options_.host;
  const int port = options_.port;
  port_ = port == 0 ? bind_to_any_port(host) : (bind_to_port(host, port) ? port : -1);
  const int reason = errno;
  if (port_ < 0 && !resolved_) return invalid_argument(concat("host '", host, "' is no address to listen on"), "host");
  if (port_ < 0) {
    const char* advice = reason == EADDRINUSE ? "; stop the other program or choose another port" : "";
    return invalid_argument(concat("can't listen on ", host, ":", port, ": ", std::strerror(reason), advice), "port");
  }
  listening_ = svr_sock_.exchange(INVALID_SOCKET);
  (void)::listen(listening_, kBacklog);  // httplib's backlog is 5
  accepting_ = std::thread([this] { accept_connections(); });
  return ok_status();
}

// httplib leaves its loop, and closes its descriptor, at the first error of accept() that it doesn't know.
void ListenerImpl::accept_connections() {
  on_accepting_thread = true;
  while (true) {
    svr_sock_ = fcntl(listening_, F_DUPFD_CLOEXEC, 0);
    (void)listen_after_bind();
    if (stopping_) return;
    log(LogLevel::kWarning, concat("accepting connections failed, goes on: ", std::strerror(errno)));
    std::this_thread::sleep_for(kAcceptPause);
  }
}

bool ListenerImpl::process_and_close_socket(socket_t fd) {
  ConnectionDeadlines deadlines;
  deadlines.write = on_accepting_thread ? milliseconds(0) : options_.write_timeout;  // that thread waits for nobody
  Connection connection(fd, deadlines);
  {
    const std::lock_guard lock(mutex_);
    if (stopping_) return false;
    open_.insert(&connection);
  }
  metrics_.connections += 1;
  try {
    on_accepting_thread ? refuse(connection) : serve(connection);
  } catch (const std::exception& failure) {
    log(LogLevel::kError, concat("a connection failed: ", failure.what()));
  }
  metrics_.connections -= 1;
  const std::lock_guard lock(mutex_);
  open_.erase(&connection);
  return true;
}

void ListenerImpl::refuse(Connection& connection) {
  Exchange exchange(connection, kUnread);
  exchange.add_field("Retry-After", "1");
  exchange.send_error(503, {ErrorCode::kUnavailable, "the server has as many connections as it may have; try again", "",
                            "connections_full"});
  answer(connection, exchange);
}

void ListenerImpl::serve(Connection& connection) {
  while (auto next = connection.read_head()) {
    const auto* refusal = std::get_if<Refusal>(&*next);
    Exchange exchange(connection, refusal == nullptr ? std::get<RequestHead>(*next) : kUnread);
    if (refusal != nullptr) exchange.send_error(refusal->status, refusal->error);
    answer(connection, exchange);
    if (refusal != nullptr) {
      metrics_.count_request("refused", "other", refusal->status);
    } else {
      service_.conclude(exchange);
    }
    if (exchange.keep_alive()) continue;
    if (refusal != nullptr || exchange.body_unread()) connection.linger();
    return;
  }
}

void ListenerImpl::answer(Connection& connection, Exchange& exchange) {
  ConnectionStream stream(connection, exchange.head());
  current_exchange = &exchange;
  bool closed = false;  // by fields that httplib doesn't get to see
  (void)process_request(stream, false, closed, nullptr);
  current_exchange = nullptr;
}

// Runs before httplib writes the status line.
void ListenerImpl::decide(Exchange& exchange, httplib::Response& response) {
  if (!exchange.answered()) service_.handle(exchange, options_.audience);
  response.status = exchange.status();
  for (const auto& [name, value] : exchange.fields()) response.set_header(name, value);
  if (!exchange.streams()) return response.set_content(exchange.body(), exchange.content_type());
  const auto provider = [&exchange](std::size_t /*offset*/, httplib::DataSink& sink) {
    const bool whole = exchange.run_stream();  // which frames its chunks itself
    if (whole) sink.done();
    return whole;
  };
  if (exchange.head().http_1_0) {
    response.set_content_provider(exchange.content_type(), provider);
  } else {
    response.set_chunked_content_provider(exchange.content_type(), provider);
  }
}

void ListenerImpl::stop() {
  stopping_ = true;
  if (listening_ >= 0) shutdown(listening_, SHUT_RDWR);  // accept() fails from now on
  if (accepting_.joinable()) accepting_.join();
  {
    const std::lock_guard lock(mutex_);
    for (Connection* connection : open_) connection->interrupt();
  }
  threads_.join();
}

}  // namespace

Result<std::unique_ptr<Listener>> Listener::open(const ListenerOptions& options, Service& service, Metrics& metrics) {
  auto listener = std::make_unique<ListenerImpl>(options, service, metrics);
  const Status opened = listener->open();
  if (!opened.ok()) return opened.error();
  return std::unique_ptr<Listener>(std::move(listener));
}

}  // namespace multiverse

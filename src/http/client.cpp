#include "multiverse/http/client.h"

// As Debian compiles its library: a Request has one member more.
#define CPPHTTPLIB_OPENSSL_SUPPORT
#include <httplib.h>

#include <algorithm>
#include <atomic>
#include <charconv>

namespace multiverse {
namespace {

constexpr std::size_t kMaxErrorBytes = std::size_t{64} * 1024;
constexpr int kConnectSeconds = 10;
// A server computes in silence as long as it likes, or sends comments; a user ends what takes too long.
constexpr int kReadSeconds = 24 * 3600;

struct Address {
  std::string url;   // without a slash at the end
  std::string host;  // without brackets
  std::string authority, prefix;
  int port = 80;
};

Error wrong_url(std::string_view url, std::string_view why) {
  return invalid_argument(concat("the address '", url, "' ", why, "; for example http://127.0.0.1:8000"), "url");
}

Result<int> parse_port(std::string_view digits, std::string_view url) {
  int port = 0;
  const auto [end, error] = std::from_chars(digits.data(), digits.data() + digits.size(), port);
  if (error != std::errc() || end != digits.data() + digits.size() || port < 1 || port > 65535) {
    return wrong_url(url, "has no port from 1 to 65535 after the colon");
  }
  return port;
}

bool has_control_characters(std::string_view text) {
  return std::any_of(text.begin(), text.end(), [](char c) { return (c & 0xFF) < 0x20 || c == 0x7F; });
}

Result<Address> parse_url(std::string_view url) {
  if (has_control_characters(url)) return wrong_url("…", "has control characters");
  std::string_view rest = url;
  const std::size_t scheme = rest.find("://");
  if (scheme != std::string_view::npos) {
    if (rest.substr(0, scheme) == "https") {
      return wrong_url(url, "is https, which this client does not speak: use http, or a proxy that ends TLS");
    }
    if (rest.substr(0, scheme) != "http") return wrong_url(url, "is not http");
    rest.remove_prefix(scheme + 3);
  }
  while (!rest.empty() && rest.back() == '/') rest.remove_suffix(1);
  Address address;
  address.url = concat("http://", rest);
  const std::size_t slash = std::min(rest.find('/'), rest.size());
  address.authority = rest.substr(0, slash);
  address.prefix = rest.substr(slash);
  std::string_view host = address.authority;
  const std::size_t bracket = host.rfind(']');  // [::1]:8000
  const std::size_t colon = host.rfind(':');
  if (colon != std::string_view::npos && (bracket == std::string_view::npos || colon > bracket)) {
    const Result<int> port = parse_port(host.substr(colon + 1), url);
    if (!port.ok()) return port.error();
    address.port = port.value();
    host = host.substr(0, colon);
  }
  if (host.size() > 1 && host.front() == '[' && host.back() == ']') host = host.substr(1, host.size() - 2);
  if (host.empty() || host.find_first_of(" @?#") != std::string_view::npos) return wrong_url(url, "names no host");
  address.host = host;
  return address;
}

class HttpClientImpl final : public HttpClient {
 public:
  explicit HttpClientImpl(Address address) : address_(std::move(address)), client_(address_.host, address_.port) {
    client_.set_connection_timeout(kConnectSeconds);
    client_.set_read_timeout(kReadSeconds);
    client_.set_tcp_nodelay(true);
  }

  Result<HttpAnswer> post(const HttpPost& post, const std::function<void(std::string_view)>& on_bytes) override {
    HttpAnswer answer;
    httplib::Request request;
    request.method = "POST";
    request.path = address_.prefix + post.path;
    request.body = post.body;
    request.set_header("Host", address_.authority);
    for (const auto& [name, value] : post.headers) {
      if (has_control_characters(value)) return invalid_argument(concat(name, " has control characters"), name);
      request.set_header(name, value);
    }
    request.response_handler = [&](const httplib::Response& head) {
      answer.status = head.status;
      answer.retry_after = head.get_header_value("Retry-After");
      return !cancelled_;
    };
    request.content_receiver = [&](const char* bytes, std::size_t size, std::uint64_t, std::uint64_t) {
      if (answer.status / 100 == 2) {
        on_bytes({bytes, size});
      } else {
        answer.error_body.append(bytes, std::min(size, kMaxErrorBytes - answer.error_body.size()));
      }
      return !cancelled_;
    };
    if (!cancelled_) {
      const httplib::Result result = client_.send(request);
      if (!cancelled_) return outcome(result.error(), answer);
    }
    return Error{ErrorCode::kCancelled, "cancelled", "", ""};
  }

  void cancel() override {
    cancelled_ = true;
    client_.stop();
  }

  const std::string& url() const override { return address_.url; }

 private:
  Result<HttpAnswer> outcome(httplib::Error error, HttpAnswer& answer) const {
    switch (error) {
      case httplib::Error::Success:
        return std::move(answer);
      case httplib::Error::Connection:
      case httplib::Error::ConnectionTimeout:
      case httplib::Error::BindIPAddress:
        return Error{ErrorCode::kUnavailable, concat("can't connect to ", address_.url, ": is a server running there?"),
                     "", ""};
      default:
        return Error{ErrorCode::kInternal,
                     concat("the connection to ", address_.url, " was lost before the answer was whole"), "", ""};
    }
  }

  const Address address_;
  httplib::ClientImpl client_;
  std::atomic<bool> cancelled_ = false;
};

}  // namespace

Result<std::unique_ptr<HttpClient>> HttpClient::open(std::string_view url) {
  Result<Address> address = parse_url(url);
  if (!address.ok()) return address.error();
  return std::unique_ptr<HttpClient>(std::make_unique<HttpClientImpl>(std::move(address).value()));
}

}  // namespace multiverse

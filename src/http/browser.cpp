#include "http/browser.h"

#include <algorithm>
#include <string_view>

namespace multiverse {
namespace {

std::string lower(std::string_view text) {
  std::string out(text);
  std::transform(out.begin(), out.end(), out.begin(),
                 [](char c) { return c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c; });
  return out;
}

// "x:80" → "x", "[::1]:80" → "[::1]".
std::string_view without_port(std::string_view host) {
  const std::size_t from = host.substr(0, 1) == "[" ? std::min(host.find(']'), host.size()) : 0;
  return host.substr(0, std::min(host.find(':', from), host.size()));
}

bool has(const std::vector<std::string>& list, std::string_view value) {
  return std::any_of(list.begin(), list.end(), [&](const std::string& one) { return lower(one) == value; });
}

}  // namespace

bool is_listed_origin(const RequestHead& head, const std::vector<std::string>& origins) {
  const std::string origin = lower(head.field("origin"));
  return !origin.empty() && (has(origins, "*") || has(origins, origin));
}

bool crosses_origins(const RequestHead& head) {
  if (head.method == "GET" || head.method == "HEAD" || head.method == "OPTIONS") return false;
  if (head.count("sec-fetch-site") > 0) {  // holds also behind a proxy that changes Host
    const std::string_view site = head.field("sec-fetch-site");
    return site != "same-origin" && site != "none";
  }
  if (head.count("origin") == 0) return false;
  std::string origin = lower(head.field("origin"));
  const std::size_t scheme = origin.find("://");
  if (scheme == std::string::npos) return true;  // "null", or several
  origin.erase(0, scheme + 3);
  const std::string host = lower(head.field("host"));
  // Proxies may leave the port out.
  return without_port(host) == host ? without_port(origin) != host : origin != host;
}

bool is_allowed_host(const RequestHead& head, const std::vector<std::string>& hosts) {
  return hosts.empty() || has(hosts, without_port(lower(head.field("host"))));
}

bool answer_browser(Exchange& exchange, const HttpOptions& options, bool known_path, bool is_probe) {
  const RequestHead& head = exchange.head();
  const auto refuse = [&exchange](const char* message, const char* code) {
    exchange.send_error(403, {ErrorCode::kInvalidArgument, message, "", code});
    return true;
  };
  if (!is_probe && !is_allowed_host(head, options.allowed_hosts)) {
    return refuse("the request's Host is none of this server's names (allowed_hosts)", "host_not_allowed");
  }
  const bool listed = is_listed_origin(head, options.cors_origins);
  if (!listed && crosses_origins(head)) {
    return refuse("pages of this origin may not ask this server (cors_origins)", "origin_not_allowed");
  }
  if (!listed) return false;
  // In errors too: the page is to be able to read them.
  exchange.add_field("Access-Control-Allow-Origin", std::string(head.field("origin")));
  exchange.add_field("Vary", "Origin");
  exchange.add_field("Access-Control-Expose-Headers", "X-Request-Id, X-Ignored-Params, X-Weights-Version, Retry-After");
  if (head.method != "OPTIONS" || !known_path || head.count("access-control-request-method") == 0) return false;
  exchange.add_field("Access-Control-Allow-Methods", "GET, POST");
  exchange.add_field("Access-Control-Allow-Headers", "Authorization, Content-Type, X-Request-Id, X-Request-Timeout-Ms");
  exchange.add_field("Access-Control-Max-Age", "600");
  exchange.send(200, "", "text/plain");
  return true;
}

}  // namespace multiverse

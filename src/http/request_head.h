// The head of an HTTP/1.x request, read strictly: what RFC 9112 lets two readers understand differently is refused.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

#include "multiverse/base/status.h"

namespace multiverse {

// A request that is answered with an error, after which the connection closes.
struct Refusal {
  int status = 400;
  Error error;
};
Refusal refusal(int status, std::string message);  // of an invalid argument

struct RequestHead {
  std::string method;
  std::string target;  // as sent
  std::string path;    // of the target, without query; still percent-encoded
  bool http_1_0 = false;
  std::vector<std::pair<std::string, std::string>> fields;  // names in lower case, values trimmed

  // How the body is framed: at most one of the two.
  std::optional<std::uint64_t> content_length;
  bool chunked = false;
  bool expects_continue = false;
  bool keep_alive = true;

  // The field's value, "" where it is absent or there are several.
  std::string_view field(std::string_view name) const;
  std::size_t count(std::string_view name) const;
};

inline constexpr std::size_t kMaxHeadBytes = std::size_t{32} * 1024;
inline constexpr std::size_t kMaxRequestLineBytes = std::size_t{8} * 1024;
inline constexpr std::size_t kMaxFields = 64;

// `head`: from the request line to the last field, each line ended by CRLF, without the empty line.
std::variant<RequestHead, Refusal> parse_head(std::string_view head);

}  // namespace multiverse

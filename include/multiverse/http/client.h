// A client for one HTTP server: posts a body, hands the answer's bytes on as they come.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "multiverse/base/status.h"

namespace multiverse {

struct HttpPost {
  std::string path;  // "/v1/…", below the client's URL
  std::string body;
  std::vector<std::pair<std::string, std::string>> headers;  // Content-Type among them
};

struct HttpAnswer {
  int status = 0;
  std::string retry_after;  // the header's value, "" where there is none
  std::string error_body;   // of an answer that isn't 2xx, its first 64 KiB
};

class HttpClient {
 public:
  // `url`: http://HOST[:PORT][/PREFIX]; without a scheme it is http. https is refused. Connects at the first post().
  static Result<std::unique_ptr<HttpClient>> open(std::string_view url);
  virtual ~HttpClient() = default;

  // Blocks until the answer is whole. `on_bytes` gets the pieces of a 2xx answer's body, on this thread. Errors: no
  // connection (kUnavailable), a connection lost before the answer was whole (kInternal), cancel() (kCancelled), a
  // header's value with control characters (kInvalidArgument). One post at a time.
  virtual Result<HttpAnswer> post(const HttpPost& request, const std::function<void(std::string_view)>& on_bytes) = 0;

  // Closes the connection of the running post and refuses all later ones. Any thread; may have to be called again while
  // the post was about to connect.
  virtual void cancel() = 0;

  // The address, for messages.
  virtual const std::string& url() const = 0;
};

}  // namespace multiverse

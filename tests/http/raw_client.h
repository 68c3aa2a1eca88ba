// A client that sends exactly the bytes that it is told, and shows those that come back.
#pragma once

#include <chrono>
#include <string>
#include <string_view>

namespace multiverse::testing {

class RawClient {
 public:
  explicit RawClient(int port);
  ~RawClient();
  RawClient(const RawClient&) = delete;
  RawClient& operator=(const RawClient&) = delete;

  void send(std::string_view bytes);
  // Reads until `end` has come, the peer closed, or 10 s have passed.
  std::string read_until(std::string_view end);
  std::string read_all() { return read_until(""); }
  // One answer with a Content-Length; interim ones are kept in front.
  std::string read_answer();
  void half_close();
  void close();
  void reset();  // RST

 private:
  bool fill();
  int fd_;
  std::string buffer_;
  std::chrono::steady_clock::time_point deadline_;
};

std::string post(std::string_view path, std::string_view body, std::string_view fields = "");
int status_of(std::string_view answer);
std::string body_of(std::string_view answer);
std::string field_of(std::string_view answer, std::string_view name);
// The payload of a chunked body.
std::string dechunked(std::string_view body);

}  // namespace multiverse::testing

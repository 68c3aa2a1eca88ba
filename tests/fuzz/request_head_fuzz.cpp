// libFuzzer target: the head of an HTTP request, from bytes that anyone may send.
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <string_view>
#include <variant>

#include "multiverse/base/check.h"

#include "http/request_head.h"

// What is read must be what every later step counts on; libFuzzer's sanitizers look after the rest.
extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace multiverse;
  const auto parsed = parse_head({reinterpret_cast<const char*>(data), size});
  if (const auto* refused = std::get_if<Refusal>(&parsed)) {
    CHECK(refused->status >= 400 && refused->status < 600 && !refused->error.message.empty(), "status ",
          refused->status);
    return 0;
  }
  const auto& head = std::get<RequestHead>(parsed);
  const bool of_its_own = head.method == "OPTIONS" || head.method == "CONNECT";
  CHECK(!head.method.empty() && (of_its_own || head.path.substr(0, 1) == "/"), "a head without a path was taken");
  CHECK(head.fields.size() <= kMaxFields, head.fields.size(), " fields were taken");
  CHECK(!(head.chunked && head.content_length), "a body with two lengths was taken");
  CHECK(head.count("host") <= 1, "two Host fields were taken");
  CHECK(!head.keep_alive || !head.http_1_0 || head.count("connection") > 0, "HTTP/1.0 stays open unasked");
  for (const auto& [name, value] : head.fields) {
    const auto breaks_a_line = [](char c) { return c == '\r' || c == '\n' || c == '\0'; };
    CHECK(!name.empty() && std::none_of(name.begin(), name.end(), breaks_a_line), "a field's name breaks a line");
    CHECK(std::none_of(value.begin(), value.end(), breaks_a_line), "the value of ", name, " breaks a line");
    CHECK(head.field(name).empty() || head.field(name).size() <= size, "a value out of nowhere");
  }
  return 0;
}

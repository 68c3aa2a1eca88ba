#include "http/request_head.h"

#include <algorithm>
#include <array>
#include <charconv>

namespace multiverse {

Refusal refusal(int status, std::string message) {
  return {status, invalid_argument(std::move(message))};
}

namespace {

// RFC 9110's and PATCH: those that httplib takes.
constexpr std::array<std::string_view, 9> kMethods{"GET",     "HEAD",    "POST",  "PUT",  "DELETE",
                                                   "CONNECT", "OPTIONS", "TRACE", "PATCH"};

bool is_token_char(char c) {
  static constexpr std::string_view kMarks = "!#$%&'*+-.^_`|~";
  return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') ||
         kMarks.find(c) != std::string_view::npos;
}

bool is_token(std::string_view text) {
  return !text.empty() && std::all_of(text.begin(), text.end(), is_token_char);
}

// Visible ASCII, space and tab.
bool is_value(std::string_view text) {
  return std::all_of(text.begin(), text.end(), [](char c) { return c == '\t' || (c >= 0x20 && c < 0x7f); });
}

std::string lower(std::string_view text) {
  std::string out(text);
  for (char& c : out) {
    if (c >= 'A' && c <= 'Z') c = static_cast<char>(c - 'A' + 'a');
  }
  return out;
}

std::string_view trim(std::string_view text) {
  const auto first = text.find_first_not_of(" \t");
  if (first == std::string_view::npos) return "";
  return text.substr(first, text.find_last_not_of(" \t") - first + 1);
}

// One element of a comma-separated list.
bool list_has(std::string_view list, std::string_view wanted) {
  while (!list.empty()) {
    const auto comma = std::min(list.find(','), list.size());
    if (lower(trim(list.substr(0, comma))) == wanted) return true;
    list.remove_prefix(std::min(comma + 1, list.size()));
  }
  return false;
}

// "http://host:1/path?query" and "/path?query" → "/path"; "" where the target has neither form. A host ends at the
// first
// '/' or '?': a proxy that reads no path in "http://host?/path" must not be told another story.
std::string path_of(std::string_view target) {
  const std::string start = lower(target.substr(0, 8));
  for (const std::string_view scheme : {"http://", "https://"}) {
    if (start.compare(0, scheme.size(), scheme) != 0) continue;
    target.remove_prefix(scheme.size());
    const auto host = std::min(target.find_first_of("/?"), target.size());
    target.remove_prefix(host);
    if (target.empty() || target.front() == '?') return "/";
    break;
  }
  if (target.front() != '/') return "";
  return std::string(target.substr(0, target.find('?')));
}

std::optional<Refusal> parse_request_line(std::string_view line, RequestHead& head) {
  if (line.size() > kMaxRequestLineBytes) {
    return refusal(
        414, concat("the request line has ", line.size(), " bytes, at most ", kMaxRequestLineBytes, " are allowed"));
  }
  const auto first = line.find(' ');
  const auto last = line.rfind(' ');
  const bool three_parts = first != std::string_view::npos && first != last;
  if (!three_parts) return refusal(400, "the request line is not 'METHOD TARGET HTTP/1.1'");
  const auto target = line.substr(first + 1, last - first - 1);
  const auto version = line.substr(last + 1);
  const bool plain = std::all_of(target.begin(), target.end(), [](char c) { return c > 0x20 && c < 0x7f; });
  if (!is_token(line.substr(0, first)) || target.empty() || !plain) {
    return refusal(400, "the request line is not 'METHOD TARGET HTTP/1.1'");
  }
  if (std::find(kMethods.begin(), kMethods.end(), line.substr(0, first)) == kMethods.end()) {
    return refusal(501, "the request's method is not one of HTTP's");
  }
  if (version != "HTTP/1.1" && version != "HTTP/1.0") return refusal(505, "only HTTP/1.1 and HTTP/1.0 are spoken here");
  head.method = line.substr(0, first);
  head.target = target;
  head.path = path_of(target);
  // OPTIONS and CONNECT have forms of their own, which name no route here.
  const bool of_its_own = (head.method == "OPTIONS" && target == "*") || head.method == "CONNECT";
  if (head.path.empty() && !of_its_own) return refusal(400, "the request's target is no path");
  head.http_1_0 = version == "HTTP/1.0";
  return std::nullopt;
}

std::optional<Refusal> parse_field(std::string_view line, RequestHead& head) {
  if (head.fields.size() >= kMaxFields) {
    return refusal(431, concat("the request has more than ", kMaxFields, " header fields"));
  }
  // No space before the colon, no folded lines.
  const auto colon = line.find(':');
  if (colon == std::string_view::npos || !is_token(line.substr(0, colon)) || !is_value(line.substr(colon + 1))) {
    return refusal(400, "a header field is not 'Name: value' in visible ASCII");
  }
  head.fields.emplace_back(lower(line.substr(0, colon)), trim(line.substr(colon + 1)));
  return std::nullopt;
}

std::optional<Refusal> read_framing(RequestHead& head) {
  const std::size_t lengths = head.count("content-length"), codings = head.count("transfer-encoding");
  if (lengths + codings > 1) return refusal(400, "the request says more than once how long its body is");
  if (lengths == 1) {
    const std::string_view text = head.field("content-length");
    std::uint64_t length = 0;
    const auto [end, failure] = std::from_chars(text.data(), text.data() + text.size(), length);
    const bool whole = failure == std::errc() && end == text.data() + text.size() && !text.empty();
    if (!whole) return refusal(400, "Content-Length is not a number that a body may have");
    head.content_length = length;
  }
  if (codings == 1) {
    if (head.http_1_0) return refusal(400, "HTTP/1.0 has no Transfer-Encoding");
    if (lower(head.field("transfer-encoding")) != "chunked") return refusal(501, "only 'chunked' is read here");
    head.chunked = true;
  }
  return std::nullopt;
}

std::optional<Refusal> read_meaning(RequestHead& head) {
  const std::size_t hosts = head.count("host");
  if (hosts > 1 || (hosts == 0 && !head.http_1_0)) return refusal(400, "exactly one Host field is wanted");
  if (auto failed = read_framing(head)) return failed;
  const std::string encoding = lower(head.field("content-encoding"));
  if (head.count("content-encoding") > 0 && encoding != "identity") {
    return refusal(415, "compressed request bodies are not read here");
  }
  if (head.count("expect") > 0) {
    if (lower(head.field("expect")) != "100-continue") return refusal(417, "only 'Expect: 100-continue' is known here");
    head.expects_continue = !head.http_1_0;
  }
  head.keep_alive = !head.http_1_0;
  for (const auto& [name, value] : head.fields) {
    if (name != "connection") continue;
    if (head.http_1_0 && list_has(value, "keep-alive")) head.keep_alive = true;
    if (list_has(value, "close")) {
      head.keep_alive = false;
      break;
    }
  }
  return std::nullopt;
}

}  // namespace

std::size_t RequestHead::count(std::string_view name) const {
  return static_cast<std::size_t>(
      std::count_if(fields.begin(), fields.end(), [&](const auto& field) { return field.first == name; }));
}

std::string_view RequestHead::field(std::string_view name) const {
  if (count(name) != 1) return "";
  return std::find_if(fields.begin(), fields.end(), [&](const auto& field) { return field.first == name; })->second;
}

std::variant<RequestHead, Refusal> parse_head(std::string_view text) {
  RequestHead head;
  bool first = true;
  while (!text.empty()) {
    const auto end = text.find("\r\n");
    const std::string_view line = text.substr(0, end);
    text.remove_prefix(end == std::string_view::npos ? text.size() : end + 2);
    auto failed = first ? parse_request_line(line, head) : parse_field(line, head);
    if (failed) return *failed;
    first = false;
  }
  if (first) return refusal(400, "the request line is empty");
  if (auto failed = read_meaning(head)) return *failed;
  return head;
}

}  // namespace multiverse

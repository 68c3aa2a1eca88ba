#include "http/page.h"

#include <algorithm>
#include <charconv>
#include <string>

namespace multiverse {
namespace {

// Everything comes from this server and goes to this server. No inline script or style, no plugin, no frame.
constexpr const char* kPolicy =
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' data:; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

std::string_view trimmed(std::string_view text) {
  constexpr std::string_view kSpace = " \t";
  const std::size_t from = text.find_first_not_of(kSpace);
  return from == std::string_view::npos ? "" : text.substr(from, text.find_last_not_of(kSpace) - from + 1);
}

// Takes the part before the next `separator` off the front.
std::string_view take_part(std::string_view& list, char separator) {
  const std::size_t end = std::min(list.find(separator), list.size());
  const std::string_view part = list.substr(0, end);
  list.remove_prefix(std::min(end + 1, list.size()));
  return trimmed(part);
}

bool is_zero_weight(std::string_view parameter) {
  if (take_part(parameter, '=') != "q") return false;
  double weight = 1;
  const std::string_view value = trimmed(parameter);
  std::from_chars(value.data(), value.data() + value.size(), weight);
  return weight == 0;
}

}  // namespace

const PageFile* find_page_file(std::string_view name) {
  const auto files = page_files();
  const auto found = std::find_if(files.begin(), files.end(), [&](const PageFile& file) { return file.name == name; });
  return found == files.end() ? nullptr : &*found;
}

bool accepts_gzip(std::string_view field) {
  bool any = false;  // what `*` says, for codings that are not named
  while (!field.empty()) {
    std::string_view choice = take_part(field, ',');
    const std::string_view coding = take_part(choice, ';');
    const bool wanted = !is_zero_weight(choice);
    if (coding == "gzip" || coding == "x-gzip") return wanted;
    if (coding == "*") any = wanted;
  }
  return any;
}

bool has_etag(std::string_view field, std::string_view etag) {
  while (!field.empty()) {
    std::string_view tag = take_part(field, ',');
    if (tag.starts_with("W/")) tag.remove_prefix(2);
    if (tag == etag || tag == "*") return true;
  }
  return false;
}

void send_page_file(Exchange& exchange, const PageFile& file) {
  const bool gzip = accepts_gzip(exchange.head().field("accept-encoding"));
  const std::string etag = '"' + std::string(file.hash) + (gzip ? "-gzip\"" : "\"");  // one for each form
  exchange.add_field("Content-Security-Policy", kPolicy);
  exchange.add_field("X-Content-Type-Options", "nosniff");
  exchange.add_field("Referrer-Policy", "no-referrer");
  exchange.add_field("Cross-Origin-Opener-Policy", "same-origin");
  exchange.add_field("Cache-Control", "no-cache");  // asks each time; the tag says whether anything changed
  exchange.add_field("Vary", "Accept-Encoding");
  exchange.add_field("ETag", etag);
  if (has_etag(exchange.head().field("if-none-match"), etag)) return exchange.send(304, "", std::string(file.type));
  if (gzip) exchange.add_field("Content-Encoding", "gzip");
  exchange.send(200, std::string(gzip ? file.gzip : file.content), std::string(file.type));
}

}  // namespace multiverse

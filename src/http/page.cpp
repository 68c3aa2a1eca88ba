#include "http/page.h"

#include <algorithm>

namespace multiverse {
namespace {

// Everything comes from this server and goes to this server. No inline script or style, no plugin, no frame.
constexpr const char* kPolicy =
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' data:; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

}  // namespace

const PageFile* find_page_file(std::string_view name) {
  const auto files = page_files();
  const auto found = std::find_if(files.begin(), files.end(), [&](const PageFile& file) { return file.name == name; });
  return found == files.end() ? nullptr : &*found;
}

void send_page_file(Exchange& exchange, const PageFile& file) {
  exchange.add_field("Content-Security-Policy", kPolicy);
  exchange.add_field("X-Content-Type-Options", "nosniff");
  exchange.add_field("Referrer-Policy", "no-referrer");
  exchange.add_field("Cross-Origin-Opener-Policy", "same-origin");
  exchange.add_field("Cache-Control", "no-cache");  // asks each time; the tag says whether anything changed
  exchange.add_field("ETag", std::string(file.etag));
  if (exchange.head().field("if-none-match") == file.etag) return exchange.send(304, "", std::string(file.type));
  exchange.send(200, std::string(file.content), std::string(file.type));
}

}  // namespace multiverse

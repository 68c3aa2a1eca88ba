// The web page: the files of src/http/page, which the build puts into the binary.
#pragma once

#include <span>
#include <string_view>

#include "http/exchange.h"

namespace multiverse {

struct PageFile {
  std::string_view name;  // "app.js"; "" is the page itself
  std::string_view type;  // Content-Type
  std::string_view hash;  // of the content, in hexadecimal
  std::string_view content;
  std::string_view gzip;  // the content, compressed
};

// All of them, in the generated page_files.cpp (cmake/Page.cmake).
std::span<const PageFile> page_files();

// nullptr where there is none of that name.
const PageFile* find_page_file(std::string_view name);

// Whether an Accept-Encoding field takes gzip (RFC 9110, 12.5.3).
bool accepts_gzip(std::string_view field);

// Whether an If-None-Match field has `etag` (quoted), by the weak comparison (RFC 9110, 13.1.2): a proxy that
// compresses makes tags weak.
bool has_etag(std::string_view field, std::string_view etag);

// 200, as gzip where the client takes it, or 304 where it has the file; with the policy that keeps the page from
// loading, sending or running anything that is not the server's own.
void send_page_file(Exchange& exchange, const PageFile& file);

}  // namespace multiverse

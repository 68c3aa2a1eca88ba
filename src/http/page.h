// The web page: the files of src/http/page, which the build puts into the binary.
#pragma once

#include <span>
#include <string_view>

#include "http/exchange.h"

namespace multiverse {

struct PageFile {
  std::string_view name;  // "app.js"; "" is the page itself
  std::string_view type;  // Content-Type
  std::string_view etag;  // quoted, of the content
  std::string_view content;
};

// All of them, in the generated page_files.cpp (cmake/Page.cmake).
std::span<const PageFile> page_files();

// nullptr where there is none of that name.
const PageFile* find_page_file(std::string_view name);

// 200, or 304 where the browser has it; with the policy that keeps the page from loading, sending or running anything
// that is not the server's own.
void send_page_file(Exchange& exchange, const PageFile& file);

}  // namespace multiverse

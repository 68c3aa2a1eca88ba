// Server-sent events, from the client's side.
#pragma once

#include <functional>
#include <string>
#include <string_view>

#include "multiverse/base/status.h"

namespace multiverse {

// Takes a stream's bytes, cut anywhere, and gives the data of its events. Comments and other fields are left out; lines
// end with LF, CR LF or CR. What the end of the stream cut off is no event.
class SseSplitter {
 public:
  // `on_data` gets the data lines of each event that became whole, joined by LF. An event of more than 16 MiB is an
  // error, after which nothing more may be added.
  Status add(std::string_view bytes, const std::function<void(std::string_view)>& on_data);

 private:
  void end_line(const std::function<void(std::string_view)>& on_data);

  std::string line_;
  std::string data_;
  bool has_data_ = false;
  bool after_cr_ = false;  // an LF that follows belongs to the CR before it
};

}  // namespace multiverse

// Recorded answers, as files hold them.
#pragma once

#include <string>
#include <vector>

#include "multiverse/base/status.h"

namespace multiverse {

struct Trace {
  std::string name;          // the record's "id", else FILE:LINE, or the file of a plain text
  std::string system, user;  // the chat that was asked; "" where the record doesn't say
  std::string completion;
};

// FILE ("-" is standard input) is a text, or JSON lines with a field "completion" and perhaps "id", "system" and
// "user". The error names the file, and the line that is no such record.
Result<std::vector<Trace>> read_traces(const std::string& file);

}  // namespace multiverse

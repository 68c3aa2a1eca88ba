// Text of strangers, made fit for a terminal.
#pragma once

#include <string>
#include <string_view>

namespace multiverse {

// `text` with everything that a terminal could obey made visible: control characters (C0, DEL, C1, as escape sequences
// begin with), line and paragraph separators, marks that turn the direction of writing, and bytes that are no UTF-8
// become \x1b, \u202e and the like. Newline and tab stay, unless `one_line`: then they become spaces. The result is
// valid UTF-8.
std::string for_terminal(std::string_view text, bool one_line = false);

// Columns that valid UTF-8 without control characters takes on a terminal: wide characters two, combining marks none.
int columns(std::string_view text);

// The end of such a text that fits into `width` columns, after "…" where it isn't whole.
std::string last_columns(std::string_view text, int width);

}  // namespace multiverse

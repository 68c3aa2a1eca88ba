// The terminal's picture of an answer that several branches write at once.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "multiverse/chat/answer_event.h"

namespace multiverse {

struct TerminalSize {
  int columns = 80, rows = 24;
};

// Takes an answer's events and gives the bytes that bring a terminal from the last frame to the present one. The root's
// text runs on as it comes. While a block is open, a region below it has one line for each path, drawn in place; at
// the join its lines stay as they are and the root's text goes on below. All text is made fit for a terminal
// (for_terminal). Holds of each path the end of its text. One thread.
class LiveView {
 public:
  // `colors`: with ANSI's dim and green, else without.
  LiveView(TerminalSize size, bool colors) : colors_(colors) { resize(size); }

  // From the next frame on. Smaller than 20 columns or 4 rows counts as that.
  void resize(TerminalSize size);
  void add(const BranchUpdate& update);
  // The answer of a server that tells nothing of branches.
  void add_text(std::string_view text);
  // The end of the answer, wherever it stopped. The last frame ends with a newline.
  void finish();

  // "" where nothing has changed. Every line of the region is shorter than the terminal is wide, and there are fewer
  // of them than it has rows.
  std::string frame();

 private:
  struct Path {
    std::string id, label;
    std::string tail;  // the end of what it wrote
    bool cut = false;  // `tail` isn't all
    std::int64_t tokens = 0;
    bool ended = false, forked = false;  // forked: its own paths write
  };
  using Address = std::vector<std::int32_t>;  // in the order of the answer's text
  using Paths = std::map<Address, Path>;

  void write(std::string_view text);
  void fold();
  std::vector<std::string> region_lines(bool all) const;
  std::string line(const Address& address, const Path& path, int name_columns) const;
  std::string styled(std::string_view code, std::string_view text) const;
  std::string with_dim_tags(std::string_view text) const;

  TerminalSize size_;
  bool colors_;
  Paths paths_;          // of the open block
  std::string fresh_;    // lasting text that no frame has shown yet, with its styles
  int drawn_lines_ = 0;  // of the region, above the cursor
  bool at_line_start_ = true;
  bool changed_ = false;
};

}  // namespace multiverse

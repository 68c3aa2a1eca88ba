// --help, written from the table of knobs.
#include <algorithm>

#include "multiverse/base/check.h"

#include "config/knob.h"

namespace multiverse {
namespace {

constexpr std::size_t kWidth = 100, kIndent = 6;

void append_wrapped(std::string& out, std::string_view text) {
  std::size_t column = 0;
  while (!text.empty()) {
    const std::size_t end = std::min(text.find(' '), text.size());
    if (column > 0 && column + 1 + end > kWidth) {
      out += '\n';
      column = 0;
    }
    if (column == 0) {
      out.append(kIndent, ' ');
      column = kIndent;
    } else {
      out += ' ';
      ++column;
    }
    out += text.substr(0, end);
    column += end;
    text.remove_prefix(std::min(end + 1, text.size()));
  }
  out += '\n';
}

void append_knob(std::string& out, const Knob& knob) {
  static const ServerConfig defaults;
  const std::string flag = flag_of(knob.name);
  if (is_flag(knob)) {
    const std::string value = value_text(knob, defaults);
    out += concat("  ", flag, ", --no-", flag.substr(2), "  (default: ",
                  value == "true"    ? "on"
                  : value == "false" ? "off"
                                     : value,
                  ")\n");
  } else {
    const std::string value = value_text(knob, defaults);
    out += concat("  ", flag, " ", knob.value, value.empty() ? "" : concat("  (default: ", value, ")"), "\n");
  }
  append_wrapped(out, knob.description);
  const bool says_more = !is_flag(knob) && allowed(knob) != "a text" && allowed(knob) != "names separated by commas";
  if (says_more) append_wrapped(out, concat("Allowed: ", allowed(knob), "."));
  if (!knob.example.empty()) append_wrapped(out, concat("Example: ", flag, " ", knob.example));
}

}  // namespace

std::string serve_help() {
  std::string out =
      "Usage: multiverse serve --model DIR [options]\n\n"
      "Serves the model over an OpenAI-style HTTP API.\n\n"
      "Every option below can also stand in a JSON file (--config FILE, key max_rows for --max-rows) and\n"
      "in the environment (MULTIVERSE_MAX_ROWS). The command line goes before the environment, the\n"
      "environment before the file. configs/server.json is such a file, with every option explained.\n\n"
      "  --config FILE\n"
      "      Reads options from this file; // comments are allowed.\n"
      "  --print-config\n"
      "      Prints the options as they would be used, as JSON, and ends.\n"
      "  --help\n"
      "      Prints this text and ends.\n";
  std::string_view group;
  for (const Knob& knob : server_knobs()) {
    if (knob.group != group) {
      group = knob.group;
      out += concat("\n", group, "\n");
    }
    append_knob(out, knob);
  }
  return out;
}

}  // namespace multiverse

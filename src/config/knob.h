// One knob of the server: declared once, in server_knobs.cpp, for the file, the environment, the command line and
// --help.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "multiverse/config/server_config.h"

namespace multiverse {

struct Knob {
  using Member =
      std::variant<std::string ServerConfig::*, std::int64_t ServerConfig::*, double ServerConfig::*,
                   bool ServerConfig::*, std::optional<bool> ServerConfig::*, std::vector<std::string> ServerConfig::*>;
  std::string_view group;
  std::string_view name;  // as in the file: max_rows
  Member member;
  std::string_view value;         // what --help calls its value: "N", "DIR"; unused for flags
  std::string_view description;   // sentences
  std::string_view example = {};  // a value
  // Numbers: the bounds, both allowed. Texts with choices: one of them, or anything else where `or_other` says what.
  std::int64_t min = 0, max = 0;
  bool is_bytes = false;  // k, M, G and T may follow the number
  std::vector<std::string_view> choices = {};
  std::string_view or_other = {};
};

// In the order of --help; knobs of a group stand together.
const std::vector<Knob>& server_knobs();

// --NAME and --no-NAME: true, false, or open ("auto", null in a file) where the field is an optional.
bool is_flag(const Knob& knob);

// "--max-rows" and "MULTIVERSE_MAX_ROWS" of "max_rows".
std::string flag_of(std::string_view name);
std::string variable_of(std::string_view name);

// What a knob may be, for messages: "an integer from 1 to 65536", "one of auto, off, or a path".
std::string allowed(const Knob& knob);
// Its value as written on a command line.
std::string value_text(const Knob& knob, const ServerConfig& config);

// Sets the knob from the text of a command line or variable. False where the text is none of the allowed.
bool set_from_text(const Knob& knob, std::string_view text, ServerConfig& config);

// The one of `names` that `name` was most likely meant to be, "" where none is near.
std::string nearest(std::string_view name, const std::vector<std::string>& names);

}  // namespace multiverse

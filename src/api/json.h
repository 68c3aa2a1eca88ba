// JSON as requests may have it: strict, bounded, and read the same way by every reader.
#pragma once

#include <nlohmann/json.hpp>
#include <string>
#include <string_view>

#include "multiverse/base/status.h"

namespace multiverse {

using Json = nlohmann::json;
using OrderedJson = nlohmann::ordered_json;

inline constexpr std::size_t kMaxJsonDepth = 64;
inline constexpr std::size_t kMaxJsonKeys = 4096;  // of one object

// Refuses what two readers could read differently or what could hurt us: duplicate keys, invalid UTF-8, lone
// surrogates, numbers out of range, NaN, text after the value, depth and keys beyond the limits.
Result<Json> parse_json(std::string_view text);

// One line. Invalid UTF-8 (which no text of ours should hold) becomes U+FFFD rather than an exception.
std::string dump(const OrderedJson& value);

}  // namespace multiverse

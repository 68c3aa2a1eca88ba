// API keys.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "http/request_head.h"

namespace multiverse {

// Whether the request carries one of the keys as "Authorization: Bearer KEY". No keys: everyone may. The time taken
// depends on the lengths alone, never on how much of a key is right or which one it is.
bool is_authorized(const RequestHead& head, const std::vector<std::string>& keys);

}  // namespace multiverse

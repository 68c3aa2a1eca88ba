// Parts of a JSON text as the client wrote them: parsing sorts an object's keys, and in a schema their order says
// something.
#pragma once

#include <initializer_list>
#include <string_view>
#include <vector>

namespace multiverse {

// All take valid JSON (that parse_json has read) and give views into it. Linear.

// The value at the end of a path of keys; "" where there is none.
std::string_view raw_member(std::string_view json, std::initializer_list<std::string_view> path);
// The values of an array; none where it is no array.
std::vector<std::string_view> raw_elements(std::string_view json);

}  // namespace multiverse

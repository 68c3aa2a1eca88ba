// CHECK: a condition that only our own mistake can break. Nothing that a client sends or a model writes may reach one.
#pragma once

#include <sstream>
#include <string>

namespace multiverse {

// Parts joined as by operator<<.
template <class... Parts>
std::string concat(const Parts&... parts) {
  std::ostringstream out;
  (out << ... << parts);
  return out.str();
}

// Logs the sentence with its place and aborts the process.
[[noreturn]] void check_failed(const char* file, int line, const char* condition, const std::string& sentence);

}  // namespace multiverse

// CHECK(condition, parts…): the parts form a sentence with the values and the likely cause.
#define CHECK(condition, ...)                                                                        \
  do {                                                                                               \
    if (!(condition)) [[unlikely]]                                                                   \
      ::multiverse::check_failed(__FILE__, __LINE__, #condition, ::multiverse::concat(__VA_ARGS__)); \
  } while (false)

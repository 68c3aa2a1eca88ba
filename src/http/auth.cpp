#include "http/auth.h"

#include <strings.h>

namespace multiverse {
namespace {

constexpr std::string_view kScheme = "Bearer ";

// Looks at every byte of `given` whatever it finds.
bool equal(std::string_view given, std::string_view key) {
  unsigned char difference = given.size() == key.size() ? 0 : 1;
  for (std::size_t i = 0; i < given.size(); ++i) {
    const volatile char expected = key[i % key.size()];
    difference = static_cast<unsigned char>(difference | (given[i] ^ expected));
  }
  return difference == 0;
}

}  // namespace

bool is_authorized(const RequestHead& head, const std::vector<std::string>& keys) {
  if (keys.empty()) return true;
  std::string_view given = head.field("authorization");  // "" where there are two
  if (given.size() <= kScheme.size() || strncasecmp(given.data(), kScheme.data(), kScheme.size()) != 0) return false;
  given.remove_prefix(kScheme.size());
  bool authorized = false;
  for (const std::string& key : keys) {
    const bool same = !key.empty() && equal(given, key);
    authorized = authorized || same;
  }
  return authorized;
}

}  // namespace multiverse

#include "commands/service_manager.h"

#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <algorithm>
#include <charconv>
#include <cstddef>
#include <cstdlib>

namespace multiverse {
namespace {

// Read while other threads run; none of ours changes the environment.
std::string_view variable(const char* name) {
  const char* value = std::getenv(name);  // NOLINT(concurrency-mt-unsafe)
  return value == nullptr ? std::string_view() : std::string_view(value);
}

}  // namespace

void notify_service_manager(std::string_view state) {
  const std::string_view path = variable("NOTIFY_SOCKET");
  sockaddr_un address{};
  const bool usable = path.size() > 1 && path.size() < sizeof address.sun_path && (path[0] == '/' || path[0] == '@');
  if (!usable) return;
  address.sun_family = AF_UNIX;
  path.copy(address.sun_path, path.size());
  if (path[0] == '@') address.sun_path[0] = '\0';  // an abstract socket, which has no file
  const int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
  if (fd < 0) return;
  const auto size = static_cast<socklen_t>(offsetof(sockaddr_un, sun_path) + path.size());
  (void)sendto(fd, state.data(), state.size(), MSG_NOSIGNAL, reinterpret_cast<const sockaddr*>(&address), size);
  close(fd);
}

std::chrono::milliseconds watchdog_interval() {
  const std::string_view text = variable("WATCHDOG_USEC");
  std::uint64_t microseconds = 0;
  const auto [end, failure] = std::from_chars(text.data(), text.data() + text.size(), microseconds);
  constexpr std::chrono::milliseconds kNever = std::chrono::hours(1);
  if (failure != std::errc() || end != text.data() + text.size() || microseconds == 0) return kNever;
  const auto half = std::min<std::uint64_t>(microseconds / 2000, static_cast<std::uint64_t>(kNever.count()));
  return std::chrono::milliseconds(std::max<std::uint64_t>(half, 1));
}

}  // namespace multiverse

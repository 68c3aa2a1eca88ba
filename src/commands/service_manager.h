// What a service manager (systemd) wants to hear: its notification protocol, sd_notify(3).
#pragma once

#include <chrono>
#include <string_view>

namespace multiverse {

// Sends "READY=1", "STOPPING=1", "WATCHDOG=1" and the like to the socket named by NOTIFY_SOCKET. Nothing happens where
// there is none, or where it can't be reached: a server serves without its manager too.
void notify_service_manager(std::string_view state);

// How often "WATCHDOG=1" is wanted, by WATCHDOG_USEC: half of what may pass between two. An hour where it isn't.
std::chrono::milliseconds watchdog_interval();

}  // namespace multiverse

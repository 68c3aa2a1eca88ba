// The subcommands of `multiverse`. Each gets the arguments after its name and returns the process's exit code: 0, 1 for
// a failure, 2 for wrong arguments.
#pragma once

#include <span>
#include <string_view>

namespace multiverse {

int serve_command(std::span<const std::string_view> args);
int check_config_command(std::span<const std::string_view> args);
int chat_command(std::span<const std::string_view> args);
int inspect_command(std::span<const std::string_view> args);
int replay_command(std::span<const std::string_view> args);
int bench_command(std::span<const std::string_view> args);

}  // namespace multiverse

// `multiverse`: finds the subcommand and hands over.
#include <fcntl.h>
#include <unistd.h>

#include <array>
#include <cstdio>
#include <string>
#include <string_view>
#include <vector>

#include "multiverse/base/check.h"

#include "commands/commands.h"

namespace multiverse {
namespace {

struct Command {
  std::string_view name;
  std::string_view summary;
  int (*run)(std::span<const std::string_view> args);
};

constexpr std::array kCommands{
    Command{"serve", "serves a model over HTTP", serve_command},
    Command{"check-config", "says what is wrong with the options of serve", check_config_command},
    Command{"chat", "asks a question and shows the branches of the answer as they are written", chat_command},
    Command{"inspect", "shows the tree of a structured text", inspect_command},
    Command{"replay", "forces recorded answers through the engine: steps, times, exactness", replay_command},
    Command{"bench", "measures, beside the floor", bench_command},
};

std::string usage() {
  std::string text = "Usage: multiverse COMMAND [OPTIONS]\n\nCommands:\n";
  for (const Command& command : kCommands) {
    text += concat("  ", command.name, std::string(14 - command.name.size(), ' '), command.summary, "\n");
  }
  return text + "\n`multiverse COMMAND --help` lists a command's options; `multiverse --version` says the version.\n";
}

// Where a caller closed one of them, the next socket or file would get its number, and with it what is printed.
void hold_standard_streams() {
  int opened = STDIN_FILENO;
  while (opened >= 0 && opened <= STDERR_FILENO) opened = open("/dev/null", O_RDWR);
  if (opened > STDERR_FILENO) close(opened);
}

int run(const std::vector<std::string_view>& args) {
  const std::string_view name = args.empty() ? "" : args.front();
  for (const Command& command : kCommands) {
    if (command.name == name) return command.run(std::span(args).subspan(1));
  }
  if (name == "--help" || name == "-h" || name == "help") {
    std::fputs(usage().c_str(), stdout);
    return 0;
  }
  if (name == "--version") {
    std::puts("multiverse " MULTIVERSE_VERSION);
    return 0;
  }
  if (!name.empty()) std::fputs(concat("multiverse: there is no command '", name, "'\n\n").c_str(), stderr);
  std::fputs(usage().c_str(), stderr);
  return 2;
}

}  // namespace
}  // namespace multiverse

int main(int argc, char** argv) {
  multiverse::hold_standard_streams();
  return multiverse::run(std::vector<std::string_view>(argv + 1, argv + argc));
}

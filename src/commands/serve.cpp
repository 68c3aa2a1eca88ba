// `multiverse serve`: puts the parts together, keeps them running, takes them down.
#include <unistd.h>

#include <chrono>
#include <cstdio>
#include <string>
#include <vector>

#include "multiverse/base/log.h"
#include "multiverse/config/server_config.h"
#include "multiverse/http/server.h"

#include "commands/commands.h"
#include "commands/serving.h"
#include "commands/termination.h"

namespace multiverse {
namespace {

using std::chrono::steady_clock;

int fail(const Error& error, int exit_code) {
  std::fputs(concat("multiverse serve: ", error.message, "\n").c_str(), stderr);
  return exit_code;
}

void drain(HttpServer& server, std::chrono::milliseconds limit) {
  log(LogLevel::kInfo, concat("shutting down: running requests get ", limit.count() / 1000, " s to finish"));
  server.begin_drain();
  if (!server.wait_idle(limit)) log(LogLevel::kWarning, "requests still run and are ended");
  server.stop();
}

int serve(const ServerConfig& config) {
  const auto start = steady_clock::now();
  Termination termination;
  const auto options = http_options(config);
  if (!options.ok()) return fail(options.error(), 2);
  auto server = HttpServer::start(options.value());
  if (!server.ok()) return fail(server.error(), 1);
  auto serving = load_serving(config);
  if (!serving.ok()) return fail(serving.error(), 1);
  const Serving& running = serving.value();
  server.value()->attach(running.model, *running.engine);

  const std::chrono::duration<double> took = steady_clock::now() - start;
  std::printf("multiverse: serving %s on http://%s:%d (ready in %.1f s)\n", running.model->names.front().c_str(),
              config.host.c_str(), server.value()->port(), took.count());
  std::fflush(stdout);
  termination.wait();
  drain(*server.value(), to_milliseconds(config.drain_timeout_seconds));
  return 0;
}

}  // namespace

int serve_command(std::span<const std::string_view> args) {
  std::vector<std::string> environment;
  for (char** entry = environ; *entry != nullptr; ++entry) environment.emplace_back(*entry);
  const auto options = load_serve_options(std::vector<std::string>(args.begin(), args.end()), environment);
  if (!options.ok()) return fail(options.error(), 2);
  if (options.value().help || options.value().print_config) {
    const std::string text = options.value().help ? serve_help() : to_json(options.value().config);
    std::fputs(text.c_str(), stdout);
    return 0;
  }
  const ServerConfig& config = options.value().config;
  apply_log_level(config);
  try {
    return serve(config);
  } catch (const std::exception& failure) {
    return fail({ErrorCode::kInternal, failure.what(), "", ""}, 1);
  }
}

}  // namespace multiverse

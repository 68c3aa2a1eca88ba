// `multiverse serve`: puts the parts together, keeps them running, takes them down. `multiverse check-config`: looks at
// what it would be told.
#include <unistd.h>

#include <chrono>
#include <cstdio>
#include <string>
#include <vector>

#include "multiverse/base/log.h"
#include "multiverse/config/server_config.h"
#include "multiverse/http/server.h"

#include "commands/commands.h"
#include "commands/service_manager.h"
#include "commands/serving.h"
#include "commands/termination.h"

namespace multiverse {
namespace {

using std::chrono::steady_clock;

int fail(const Error& error, int exit_code) {
  std::fputs(concat("multiverse serve: ", error.message, "\n").c_str(), stderr);
  return exit_code;
}

Result<ServeOptions> options_of(std::span<const std::string_view> args) {
  std::vector<std::string> environment;
  for (char** entry = environ; *entry != nullptr; ++entry) environment.emplace_back(*entry);
  return load_serve_options(std::vector<std::string>(args.begin(), args.end()), environment);
}

// All that can be known to be wrong without reading the weights or listening.
Status check(const ServerConfig& config) {
  const auto http = http_options(config);
  if (!http.ok()) return http.error();
  const auto texts = load_texts(config);
  if (!texts.ok()) return texts.error();
  const ServedModel& model = *texts.value();
  std::printf("multiverse: the configuration is fine: %s, %s, %s, %zu API keys\n", model.names.front().c_str(),
              model.dialect ? "parallel" : "sequential", model.chat_template ? "chat and completions" : "completions",
              http.value().api_keys.size());
  return ok_status();
}

void drain(HttpServer& server, std::chrono::milliseconds limit) {
  log(LogLevel::kInfo, concat("shutting down: running requests get ", limit.count() / 1000, " s to finish"));
  notify_service_manager("STOPPING=1");
  server.begin_drain();
  if (!server.wait_idle(limit)) log(LogLevel::kWarning, "requests still run and are ended");
  server.stop();
}

// The keys in use stay where the file is of no use.
void reload_keys(HttpServer& server, const std::string& file) {
  if (file.empty()) return log(LogLevel::kInfo, "SIGHUP: there is no API key file to read again");
  auto keys = read_api_keys(file);
  if (!keys.ok())
    return log(LogLevel::kError, concat("SIGHUP: ", keys.error().message, "; the keys stay as they were"));
  const std::size_t count = keys.value().size();
  server.set_api_keys(std::move(keys).value());
  log(LogLevel::kInfo, "SIGHUP: API keys read again", {{"keys", static_cast<std::int64_t>(count)}});
}

void wait_for_the_end(Termination& termination, const HttpServer& server) {
  const auto interval = watchdog_interval();
  while (!termination.wait(interval)) {
    if (server.alive()) notify_service_manager("WATCHDOG=1");
  }
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
  termination.on_hangup([&server, &config] { reload_keys(*server.value(), config.api_key_file); });
  notify_service_manager("READY=1");
  wait_for_the_end(termination, *server.value());
  termination.on_hangup({});
  drain(*server.value(), to_milliseconds(config.drain_timeout_seconds));
  return 0;
}

}  // namespace

int serve_command(std::span<const std::string_view> args) {
  const auto options = options_of(args);
  if (!options.ok()) return fail(options.error(), 2);
  if (options.value().help || options.value().print_config) {
    const std::string text = options.value().help ? serve_help() : to_json(options.value().config);
    std::fputs(text.c_str(), stdout);
    return 0;
  }
  const ServerConfig& config = options.value().config;
  apply_log_options(config);
  try {
    return serve(config);
  } catch (const std::exception& failure) {
    return fail({ErrorCode::kInternal, failure.what(), "", ""}, 1);
  }
}

int check_config_command(std::span<const std::string_view> args) {
  const auto options = options_of(args);
  if (options.ok() && options.value().help) {
    std::fputs(
        "Usage: multiverse check-config [options of serve]\n\n"
        "Reads options, key file, tokenizer, template and dialect as `multiverse serve` would, and says what is\n"
        "wrong. Needs neither the weights' memory nor the port. Ends with 0 if all is well, else with 2.\n",
        stdout);
    return 0;
  }
  const Status checked = options.ok() ? check(options.value().config) : Status(options.error());
  if (checked.ok()) return 0;
  std::fputs(concat("multiverse check-config: ", checked.error().message, "\n").c_str(), stderr);
  return 2;
}

}  // namespace multiverse

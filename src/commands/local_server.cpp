#include "commands/local_server.h"

#include <unistd.h>

#include <vector>

#include "multiverse/config/server_config.h"

namespace multiverse {

Result<LocalServer> LocalServer::start(const std::string& model_dir) {
  std::vector<std::string> environment;
  for (char** entry = environ; *entry != nullptr; ++entry) environment.emplace_back(*entry);
  const auto options = load_serve_options(
      {"--model", model_dir, "--host", "127.0.0.1", "--port", "0", "--log-level", "warning"}, environment);
  if (!options.ok()) return options.error();
  const ServerConfig& config = options.value().config;
  apply_log_options(config);
  const auto http = http_options(config);
  if (!http.ok()) return http.error();
  auto serving = load_serving(config);
  if (!serving.ok()) return serving.error();
  auto server = HttpServer::start(http.value());
  if (!server.ok()) return server.error();
  server.value()->attach(serving.value().model, *serving.value().engine);
  return LocalServer(std::move(serving).value(), std::move(server).value());
}

std::string LocalServer::url() const {
  return concat("http://127.0.0.1:", server_->port());
}

}  // namespace multiverse

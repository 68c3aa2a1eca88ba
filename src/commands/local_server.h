// A server inside the process, for commands that ask one.
#pragma once

#include <memory>
#include <string>

#include "multiverse/base/status.h"
#include "multiverse/http/server.h"

#include "commands/serving.h"

namespace multiverse {

// Serves on a free port of 127.0.0.1 until destroyed; says nothing below warnings.
class LocalServer {
 public:
  // `model_dir` as in `multiverse serve --model`; the environment's MULTIVERSE_ variables count as they do there.
  static Result<LocalServer> start(const std::string& model_dir);

  std::string url() const;

 private:
  LocalServer(Serving serving, std::unique_ptr<HttpServer> server)
      : serving_(std::move(serving)), server_(std::move(server)) {}

  Serving serving_;  // outlives the server
  std::unique_ptr<HttpServer> server_;
};

}  // namespace multiverse

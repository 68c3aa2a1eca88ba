// What each route does. Knows requests and answers, not sockets.
#pragma once

#include <atomic>
#include <condition_variable>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <string_view>
#include <vector>

#include "multiverse/api/generation.h"
#include "multiverse/http/server.h"

#include "http/delivery_loop.h"
#include "http/exchange.h"
#include "http/metrics.h"

namespace multiverse {

// Who an address is for: clients of the API, or, on one of their own, those who watch over the server.
enum class Audience { kClients, kOperators };

// handle() on as many threads as there are connections.
class Service {
 public:
  Service(const HttpOptions& options, Metrics& metrics);

  // Decides the answer, whatever happens; a stream's follows when it is run.
  void handle(Exchange& exchange, Audience audience);
  // Once the answer is written: counts and logs it.
  void conclude(Exchange& exchange);

  void attach(std::shared_ptr<const ServedModel> model, Engine& engine);
  void set_api_keys(std::vector<std::string> keys);
  bool alive() const;
  void begin_drain() { draining_ = true; }
  bool draining() const { return draining_; }
  // Ends running generations with an error.
  void abort_generations() { aborting_ = true; }
  bool wait_idle(std::chrono::milliseconds limit);

  struct Route;  // a row of the table of routes

  // The table, for who checks that all of it is described and guarded. `path` may end in "/{id}".
  struct RouteFacts {
    std::string_view method, path;
    bool is_public, of_page;
  };
  static std::vector<RouteFacts> routes();

 private:
  struct Backend {
    std::shared_ptr<const ServedModel> model;
    Engine* engine = nullptr;
  };

  void dispatch(Exchange& exchange, Audience audience);
  bool is_allowed(const RequestHead& head, Audience audience) const;
  Backend backend() const;
  // Answers 503 and says false where nothing can be served now.
  bool check_ready(Exchange& exchange, const Backend& backend);
  void send_result(Exchange& exchange, const Result<std::string>& body);

  void live(Exchange& exchange, const std::string& body);
  void ready(Exchange& exchange, const std::string& body);
  void version(Exchange& exchange, const std::string& body);
  void metrics_page(Exchange& exchange, const std::string& body);
  void openapi(Exchange& exchange, const std::string& body);
  void models(Exchange& exchange, const std::string& body);
  void one_model(Exchange& exchange, const std::string& body);
  void tokenize(Exchange& exchange, const std::string& body);
  void detokenize(Exchange& exchange, const std::string& body);
  void inspect(Exchange& exchange, const std::string& body);
  void page(Exchange& exchange, const std::string& body);
  void render(Exchange& exchange, const std::string& body);
  void chat(Exchange& exchange, const std::string& body);
  void completions(Exchange& exchange, const std::string& body);
  void reload_weights(Exchange& exchange, const std::string& body);

  using Parser = Result<Job> (*)(std::string_view body, const ServedModel& model);
  void generate(Exchange& exchange, const std::string& body, Parser parse);
  struct Underway;
  void admit(Exchange& exchange, Underway& underway, const std::function<Result<Job>(const ServedModel& model)>& parse);
  bool deliver(Exchange& exchange, Underway& underway, bool stream);
  void reject(Exchange& exchange, GenerationTicket& ticket, const Error& error);
  void guard(Exchange& exchange, const std::function<void()>& work);

  const HttpOptions& options_;
  Metrics& metrics_;
  mutable std::mutex mutex_;
  std::condition_variable idle_;
  Backend backend_;
  std::shared_ptr<const std::vector<std::string>> api_keys_;
  int running_ = 0;  // generations
  std::atomic<bool> draining_ = false, aborting_ = false;
  std::vector<std::unique_ptr<DeliveryLoop>> loops_;  // generations go to one after the other
  std::atomic<std::size_t> next_loop_ = 0;
};

}  // namespace multiverse

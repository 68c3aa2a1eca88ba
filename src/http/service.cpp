#include "http/service.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <ctime>
#include <exception>
#include <thread>

#include "multiverse/api/endpoints.h"
#include "multiverse/api/error_body.h"
#include "multiverse/api/structure_report.h"
#include "multiverse/base/log.h"

#include "http/auth.h"
#include "http/browser.h"
#include "http/delivery.h"
#include "http/page.h"

namespace multiverse {

namespace {
constexpr std::string_view kMetricsPath = "/metrics";
constexpr std::string_view kReloadPath = "/admin/reload_weights";
}  // namespace

struct Service::Route {
  std::string_view method;
  std::string_view path;  // ends in "/{id}": any one segment
  bool is_public;         // needs no key
  void (Service::*handler)(Exchange&, const std::string& body);
  bool of_page = false;  // there only with HttpOptions::ui

  static const std::array<Route, 17>& table();
  bool matches(std::string_view given) const;
  // Such a route wants a key on the operators' address too.
  bool changes_server() const { return path == kReloadPath; }
  // Whether the address for `audience` has the route; those for operators may have moved away from that of the clients,
  // and the page and the reload of weights may be off.
  bool stands_on(Audience audience, const HttpOptions& options) const {
    const bool for_operators = path == kMetricsPath || changes_server();
    const bool metrics_apart = options.metrics_port.has_value();
    if (of_page) return options.ui && audience == Audience::kClients;
    if (changes_server() && options.weights.root.empty()) return false;
    return audience == Audience::kOperators ? is_public || for_operators : !for_operators || !metrics_apart;
  }
};

const std::array<Service::Route, 17>& Service::Route::table() {
  static const std::array<Route, 17> kRoutes{{
      {"GET", "/livez", true, &Service::live},
      {"GET", "/readyz", true, &Service::ready},
      {"GET", "/health", true, &Service::ready},
      {"GET", "/version", false, &Service::version},
      {"GET", kMetricsPath, false, &Service::metrics_page},
      {"GET", "/openapi.json", false, &Service::openapi},
      {"GET", "/", true, &Service::page, true},
      {"GET", "/page/{id}", true, &Service::page, true},
      {"GET", "/v1/models", false, &Service::models},
      {"GET", "/v1/models/{id}", false, &Service::one_model},
      {"POST", "/tokenize", false, &Service::tokenize},
      {"POST", "/detokenize", false, &Service::detokenize},
      {"POST", "/inspect", false, &Service::inspect},
      {"POST", "/v1/chat/completions/render", false, &Service::render},
      {"POST", "/v1/chat/completions", false, &Service::chat},
      {"POST", "/v1/completions", false, &Service::completions},
      {"POST", kReloadPath, false, &Service::reload_weights},
  }};
  return kRoutes;
}

namespace {

constexpr std::string_view kParameter = "{id}";

// One carries some 50,000 tokens a second; the cores are the engine's and the parsers' too.
unsigned delivery_loops() {
  return std::clamp(std::thread::hardware_concurrency() / 4, 1U, 4U);
}

bool is_json(std::string_view content_type) {
  static constexpr std::string_view kJson = "application/json";
  if (content_type.empty()) return true;
  if (content_type.size() < kJson.size()) return false;
  for (std::size_t i = 0; i < kJson.size(); ++i) {
    const char c = content_type[i];
    if ((c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c) != kJson[i]) return false;
  }
  const std::string_view rest = content_type.substr(kJson.size());
  return rest.empty() || rest[0] == ';' || rest[0] == ' ';
}

// %2F and the like. Malformed escapes stay as they are, and then name nothing.
std::string percent_decoded(std::string_view text) {
  const auto digit = [](char c) {
    if (c >= '0' && c <= '9') return c - '0';
    if (c >= 'a' && c <= 'f') return c - 'a' + 10;
    return c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
  };
  std::string out;
  for (std::size_t i = 0; i < text.size(); ++i) {
    const bool escape = text[i] == '%' && i + 2 < text.size() && digit(text[i + 1]) >= 0 && digit(text[i + 2]) >= 0;
    out += escape ? static_cast<char>(digit(text[i + 1]) * 16 + digit(text[i + 2])) : text[i];
    if (escape) i += 2;
  }
  return out;
}

// Names of unknown fields are the client's: only what can't break a header is repeated.
std::string header_list(const std::vector<std::string>& names) {
  static constexpr std::size_t kMaxNames = 32, kMaxNameBytes = 64;
  std::string list;
  for (std::size_t i = 0; i < names.size() && i < kMaxNames; ++i) {
    if (i > 0) list += ", ";
    for (const char c : names[i].substr(0, kMaxNameBytes)) {
      const bool plain = c > 0x20 && c < 0x7f && c != ',' && c != '"';
      list += plain ? c : '?';
    }
  }
  return list;
}

// The trace that the client says the request belongs to: VERSION-TRACE-PARENT-FLAGS of W3C's Trace Context,
// hexadecimal.
std::string_view trace_id(std::string_view traceparent) {
  static constexpr std::size_t kBegin = 3, kSize = 32;
  if (traceparent.size() < 55 || traceparent[2] != '-' || traceparent[kBegin + kSize] != '-') return "";
  const std::string_view id = traceparent.substr(kBegin, kSize);
  return id.find_first_not_of("0123456789abcdef") == std::string_view::npos ? id : "";
}

// The server's limit, or the client's own where that is sooner.
Result<std::optional<Nanoseconds>> deadline_of(const RequestHead& head, std::chrono::milliseconds limit) {
  static constexpr std::int64_t kMost = 7LL * 24 * 3600 * 1000;
  std::optional<Nanoseconds> deadline;
  if (limit.count() > 0) deadline = limit;
  if (head.count("x-request-timeout-ms") == 0) return deadline;
  const std::string_view text = head.field("x-request-timeout-ms");
  std::int64_t wanted = 0;
  const auto [end, failure] = std::from_chars(text.data(), text.data() + text.size(), wanted);
  if (failure != std::errc() || end != text.data() + text.size() || wanted < 1 || wanted > kMost) {
    return invalid_argument(concat("the header X-Request-Timeout-Ms takes milliseconds from 1 to ", kMost),
                            "X-Request-Timeout-Ms");
  }
  const Nanoseconds own = std::chrono::milliseconds(wanted);
  if (!deadline || own < *deadline) deadline = own;
  return deadline;
}

}  // namespace

std::vector<Service::RouteFacts> Service::routes() {
  std::vector<RouteFacts> facts;
  for (const Route& route : Route::table()) facts.push_back({route.method, route.path, route.is_public, route.of_page});
  return facts;
}

bool Service::Route::matches(std::string_view given) const {
  if (path.size() < kParameter.size() || path.substr(path.size() - kParameter.size()) != kParameter) {
    return given == path;
  }
  const std::string_view start = path.substr(0, path.size() - kParameter.size());
  return given.size() > start.size() && given.substr(0, start.size()) == start &&
         given.find('/', start.size()) == std::string_view::npos;
}

Service::Service(const HttpOptions& options, Metrics& metrics)
    : options_(options),
      metrics_(metrics),
      api_keys_(std::make_shared<const std::vector<std::string>>(options.api_keys)) {
  for (unsigned i = 0; i < delivery_loops(); ++i) loops_.push_back(std::make_unique<DeliveryLoop>());
}

void Service::handle(Exchange& exchange, Audience audience) {
  metrics_.requests_in_flight += 1;
  guard(exchange, [&] { dispatch(exchange, audience); });
}

void Service::guard(Exchange& exchange, const std::function<void()>& work) {
  try {
    work();
  } catch (const std::exception& failure) {
    log(LogLevel::kError, concat("request ", exchange.request_id(), " failed: ", failure.what()));
    if (!exchange.answered()) {
      exchange.send_error({ErrorCode::kInternal, "the server failed to answer this request", "", ""});
    }
    exchange.close_after();
  }
}

void Service::conclude(Exchange& exchange) {
  metrics_.requests_in_flight -= 1;
  metrics_.count_request(exchange.route, exchange.head().method, exchange.status());
  const RequestHead& head = exchange.head();
  const double seconds = exchange.age().count();
  metrics_.http_request_duration.observe(seconds);
  // Probes come many times a second.
  const bool probe = exchange.route == kMetricsPath || exchange.route == "/livez" || exchange.route == "/readyz" ||
                     exchange.route == "/health";
  log(probe ? LogLevel::kDebug : LogLevel::kInfo, "request",
      {{"method", std::string_view(head.method).substr(0, 16)},
       {"route", exchange.route},
       {"status", std::int64_t{exchange.status()}},
       {"ms", static_cast<std::int64_t>(seconds * 1000.0)},
       {"prompt_tokens", exchange.prompt_tokens},
       {"completion_tokens", exchange.completion_tokens},
       {"weights_versions", exchange.weights_versions},
       {"request_id", exchange.request_id()},
       {"trace_id", trace_id(head.field("traceparent"))}});
}

void Service::set_api_keys(std::vector<std::string> keys) {
  auto replaced = std::make_shared<const std::vector<std::string>>(std::move(keys));
  const std::lock_guard lock(mutex_);
  CHECK(api_keys_->empty() || !replaced->empty(), "no API keys were given to replace ", api_keys_->size());
  api_keys_ = std::move(replaced);
}

// Operators have their own address, which is not for everyone to reach.
bool Service::is_allowed(const RequestHead& head, Audience audience) const {
  if (audience == Audience::kOperators) return true;
  std::shared_ptr<const std::vector<std::string>> keys;
  {
    const std::lock_guard lock(mutex_);
    keys = api_keys_;
  }
  return is_authorized(head, *keys);
}

void Service::dispatch(Exchange& exchange, Audience audience) {
  const RequestHead& head = exchange.head();
  const Route* found = nullptr;
  std::string allowed;
  const std::string_view method = head.method == "HEAD" ? std::string_view("GET") : std::string_view(head.method);
  for (const Route& route : Route::table()) {
    if (!route.matches(head.path) || !route.stands_on(audience, options_)) continue;
    exchange.route = route.path;
    if (route.method == method) found = &route;
    allowed = route.method == "GET" ? "GET, HEAD" : std::string(route.method);
  }
  const bool is_public = found != nullptr && found->is_public;
  if (answer_browser(exchange, options_, !allowed.empty(), is_public && !found->of_page)) return;
  const Audience asks = found != nullptr && found->changes_server() ? Audience::kClients : audience;
  if (!is_public && !is_allowed(head, asks)) {
    return exchange.send_error({ErrorCode::kUnauthenticated,
                                "a valid API key is wanted, as 'Authorization: Bearer KEY'", "", "invalid_api_key"});
  }
  if (found == nullptr && allowed.empty()) {
    return exchange.send_error({ErrorCode::kNotFound, "there is no such route", "", "route_not_found"});
  }
  if (found == nullptr) {
    exchange.add_field("Allow", allowed);
    return exchange.send_error(405, invalid_argument(concat("this route takes ", allowed, " only")));
  }
  if (found->method == "POST" && (head.count("content-type") > 1 || !is_json(head.field("content-type")))) {
    return exchange.send_error(415, invalid_argument("the Content-Type must be application/json"));
  }
  std::string body;
  if (found->method == "POST") {
    auto read = exchange.read_body(options_.max_body_bytes);
    if (const auto* refusal = std::get_if<Refusal>(&read)) {
      exchange.close_after();
      return exchange.send_error(refusal->status, refusal->error);
    }
    body = std::move(std::get<std::string>(read));
  }
  (this->*found->handler)(exchange, body);
}

void Service::attach(std::shared_ptr<const ServedModel> model, Engine& engine) {
  const std::lock_guard lock(mutex_);
  backend_ = {std::move(model), &engine};
}

Service::Backend Service::backend() const {
  const std::lock_guard lock(mutex_);
  return backend_;
}

bool Service::check_ready(Exchange& exchange, const Backend& backend) {
  if (backend.engine != nullptr && !draining_) return true;
  if (draining_) exchange.close_after();
  exchange.send_error(
      {ErrorCode::kUnavailable,
       draining_ ? "the server is shutting down; try another replica" : "the model is still being loaded", "",
       draining_ ? "draining" : "not_ready"});
  return false;
}

bool Service::wait_idle(std::chrono::milliseconds limit) {
  std::unique_lock lock(mutex_);
  return idle_.wait_for(lock, limit, [this] { return running_ == 0; });
}

void Service::send_result(Exchange& exchange, const Result<std::string>& body) {
  if (body.ok()) {
    exchange.send(200, body.value());
  } else {
    exchange.send_error(body.error());
  }
}

bool Service::alive() const {
  const Backend serving = backend();
  if (serving.engine == nullptr) return true;
  const EngineStats stats = serving.engine->stats();
  const double limit = std::chrono::duration<double>(options_.stall_timeout).count();
  return stats.requests_running + stats.requests_waiting == 0 || stats.last_step_age_seconds <= limit;
}

void Service::live(Exchange& exchange, const std::string& /*body*/) {
  if (alive()) return exchange.send(200, status_body("alive"));
  exchange.send_error({ErrorCode::kUnavailable, "the engine has made no step for too long", "", "stalled"});
}

void Service::ready(Exchange& exchange, const std::string& /*body*/) {
  if (check_ready(exchange, backend())) exchange.send(200, status_body("ready"));
}

void Service::version(Exchange& exchange, const std::string& /*body*/) {
  exchange.send(200, version_body(options_.version));
}

void Service::metrics_page(Exchange& exchange, const std::string& /*body*/) {
  const Backend serving = backend();
  const std::string name = serving.model ? serving.model->names.front() : "";
  exchange.send(200, metrics_.text(name, options_.version, serving.engine), "text/plain; version=0.0.4; charset=utf-8");
}

void Service::openapi(Exchange& exchange, const std::string& /*body*/) {
  exchange.send(200, std::string(openapi_document()));
}

void Service::models(Exchange& exchange, const std::string& /*body*/) {
  const Backend serving = backend();
  if (check_ready(exchange, serving)) exchange.send(200, models_body(*serving.model));
}

void Service::one_model(Exchange& exchange, const std::string& /*body*/) {
  const Backend serving = backend();
  if (!check_ready(exchange, serving)) return;
  const std::string_view path = exchange.head().path;
  send_result(exchange, model_body(*serving.model, percent_decoded(path.substr(path.rfind('/') + 1))));
}

void Service::tokenize(Exchange& exchange, const std::string& body) {
  const Backend serving = backend();
  if (check_ready(exchange, serving)) send_result(exchange, tokenize_body(body, *serving.model));
}

void Service::detokenize(Exchange& exchange, const std::string& body) {
  const Backend serving = backend();
  if (check_ready(exchange, serving)) send_result(exchange, detokenize_body(body, *serving.model));
}

void Service::inspect(Exchange& exchange, const std::string& body) {
  const Backend serving = backend();
  if (check_ready(exchange, serving)) send_result(exchange, inspect_body(body, *serving.model));
}

// While the model is still being loaded too: the page says so.
void Service::page(Exchange& exchange, const std::string& /*body*/) {
  const std::string& path = exchange.head().path;
  const PageFile* file = find_page_file(path.substr(path.rfind('/') + 1));
  if (file == nullptr) {
    return exchange.send_error({ErrorCode::kNotFound, "the page has no such file", "", "route_not_found"});
  }
  send_page_file(exchange, *file);
}

void Service::render(Exchange& exchange, const std::string& body) {
  const Backend serving = backend();
  if (check_ready(exchange, serving)) send_result(exchange, render_body(body, *serving.model));
}

void Service::chat(Exchange& exchange, const std::string& body) {
  generate(exchange, body, parse_chat_request);
}

void Service::completions(Exchange& exchange, const std::string& body) {
  generate(exchange, body, parse_completion_request);
}

// On this connection's thread, which waits for the weights.
void Service::reload_weights(Exchange& exchange, const std::string& body) {
  const Backend serving = backend();
  if (!check_ready(exchange, serving)) return;
  const auto request = parse_reload_request(body, options_.weights);
  if (!request.ok()) return exchange.send_error(request.error());
  const auto reload = serving.engine->reload_weights(request.value().model_dir, request.value().mode);
  if (!reload.ok()) {
    // Another reload is under way: no matter of load, which 429 would say.
    if (reload.error().code == ErrorCode::kOverloaded) return exchange.send_error(409, reload.error());
    return exchange.send_error(reload.error());
  }
  exchange.send(200, reload_body(reload.value(), request.value().mode));
}

// A generation request, from its arrival until its answer is written. wait_idle() waits for it.
struct Service::Underway {
  explicit Underway(Service& of) : service(of), ticket(of.metrics_) {
    const std::lock_guard lock(service.mutex_);
    ++service.running_;
  }
  ~Underway() {
    const std::lock_guard lock(service.mutex_);
    if (--service.running_ == 0) service.idle_.notify_all();
  }
  Service& service;
  GenerationTicket ticket;
  std::unique_ptr<Generation> generation;
};

void Service::generate(Exchange& exchange, const std::string& body, Parser parse) {
  // Counted before the look at draining_, so that a drain either sees this request or is seen by it.
  const auto underway = std::make_shared<Underway>(*this);
  exchange.hold(underway);
  admit(exchange, *underway, [&](const ServedModel& model) { return parse(body, model); });
}

// Everything that may refuse the request comes before the first byte of its answer.
void Service::admit(Exchange& exchange, Underway& underway,
                    const std::function<Result<Job>(const ServedModel&)>& parse) {
  const Backend serving = backend();
  if (!check_ready(exchange, serving)) return underway.ticket.reject(exchange.status());
  Result<Job> parsed = parse(*serving.model);
  if (!parsed.ok()) return reject(exchange, underway.ticket, parsed.error());
  Job job = std::move(parsed).value();
  if (!job.ignored_params.empty()) exchange.add_field("X-Ignored-Params", header_list(job.ignored_params));
  const auto deadline = deadline_of(exchange.head(), options_.request_timeout);
  if (!deadline.ok()) return reject(exchange, underway.ticket, deadline.error());
  for (GenerateRequest& request : job.requests) {
    request.deadline = deadline.value();
    metrics_.request_n.observe(request.n);
    if (request.max_tokens > 0) metrics_.request_max_tokens.observe(request.max_tokens);
  }
  const bool stream = job.stream;
  // Of the weights as the answer begins; a fixed answer says at its end which drew it.
  if (stream) exchange.add_field(kWeightsField, std::to_string(serving.engine->stats().weights_version));
  auto generation = Generation::start(std::move(job), serving.model, *serving.engine, std::time(nullptr));
  if (!generation.ok()) return reject(exchange, underway.ticket, generation.error());
  underway.generation = std::move(generation).value();
  if (!stream) {
    (void)deliver(exchange, underway, false);
    return;
  }
  exchange.send_stream([this, &exchange, &underway] {
    bool whole = false;
    guard(exchange, [&] { whole = deliver(exchange, underway, true); });
    return whole;
  });
}

// Waits until the generation has come to its client. False where it did not.
bool Service::deliver(Exchange& exchange, Underway& underway, bool stream) {
  DeliveryOptions options;
  options.stream = stream;
  options.ping_interval = options_.ping_interval;
  options.first_token_timeout = options_.first_token_timeout;
  options.write_timeout = options_.write_timeout;
  options.aborting = &aborting_;
  Delivery delivery(exchange, *underway.generation, underway.ticket, options);
  loops_[next_loop_++ % loops_.size()]->run(delivery);
  return delivery.conclude();
}

void Service::reject(Exchange& exchange, GenerationTicket& ticket, const Error& error) {
  ticket.reject(http_status(error.code));
  exchange.send_error(error);
}

}  // namespace multiverse

#include "multiverse/http/server.h"

#include <gtest/gtest.h>

#include <atomic>
#include <nlohmann/json.hpp>
#include <set>
#include <stdexcept>
#include <thread>

#include "multiverse/api/endpoints.h"

#include "http/raw_client.h"
#include "http/service.h"
#include "support/fake_engine.h"
#include "support/fake_tokenizer.h"

namespace multiverse {
namespace {

using std::chrono::milliseconds;
using testing::body_of;
using testing::FakeEngine;
using testing::field_of;
using testing::post;
using testing::RawClient;
using testing::status_of;

const std::string kChat = R"({"messages":[{"role":"user","content":"q"}])";
const std::string kLongChat = kChat + "}";
const std::string kStreamedChat = kChat + R"(,"stream":true})";
constexpr const char* kChatPath = "/v1/chat/completions";

class Server : public ::testing::Test {
 protected:
  Server()
      : engine_([this](const GenerateRequest& request) -> Result<testing::Script> {
          if (refusal_) return *refusal_;
          return testing::text_script(request, text_, gap_);
        }) {}

  void start(HttpOptions options = {}) {
    options.port = 0;
    options.version = "9.9.9";
    auto server = HttpServer::start(std::move(options));
    ASSERT_TRUE(server.ok()) << server.error().message;
    server_ = std::move(server).value();
    server_->attach(testing::fake_model(), engine_);
  }
  std::string ask(const std::string& bytes) {
    RawClient client(server_->port());
    client.send(bytes);
    return client.read_answer();
  }
  std::string get(const std::string& path, const std::string& fields = "") {
    return ask("GET " + path + " HTTP/1.1\r\nHost: x\r\n" + fields + "\r\n");
  }
  // The value of a metric's line, -1 where it has none.
  double metric(const std::string& line_start) {
    const std::string page = body_of(get("/metrics"));
    const auto at = page.find("\n" + line_start);
    if (at == std::string::npos) return -1.0;
    return std::stod(page.substr(page.find("} ", at) + 2));
  }

  std::string text_ = "hello";
  milliseconds gap_{0};
  std::optional<Error> refusal_;
  FakeEngine engine_;
  std::unique_ptr<HttpServer> server_;
};

TEST_F(Server, AnswersAChat) {
  start();
  const std::string answer = ask(post(kChatPath, kLongChat, "X-Request-Id: my-id_1.2\r\n"));
  EXPECT_EQ(status_of(answer), 200);
  EXPECT_EQ(field_of(answer, "Content-Type"), "application/json");
  EXPECT_EQ(field_of(answer, "X-Request-Id"), "my-id_1.2");
  EXPECT_NE(body_of(answer).find(R"("content":"hello")"), std::string::npos);
}

TEST_F(Server, StreamsAChat) {
  start();
  RawClient client(server_->port());
  client.send(post(kChatPath, kStreamedChat));
  const std::string head = client.read_until("\r\n\r\n");
  EXPECT_EQ(status_of(head), 200);
  EXPECT_EQ(field_of(head, "Content-Type"), "text/event-stream; charset=utf-8");
  EXPECT_EQ(field_of(head, "Cache-Control"), "no-cache");
  EXPECT_EQ(field_of(head, "X-Accel-Buffering"), "no");
  EXPECT_EQ(field_of(head, "Transfer-Encoding"), "chunked");
  const std::string events = testing::dechunked(client.read_until("\r\n0\r\n\r\n"));
  EXPECT_NE(events.find(R"("content":"hello")"), std::string::npos);
  EXPECT_EQ(events.substr(events.size() - 14), "data: [DONE]\n\n");
  // The connection goes on.
  client.send("GET /livez HTTP/1.1\r\nHost: x\r\n\r\n");
  EXPECT_EQ(status_of(client.read_answer()), 200);
}

TEST_F(Server, StreamsToAnHttp10Client) {
  start();
  RawClient client(server_->port());
  client.send("POST /v1/chat/completions HTTP/1.0\r\nContent-Length: " + std::to_string(kStreamedChat.size()) +
              "\r\n\r\n" + kStreamedChat);
  const std::string answer = client.read_all();
  EXPECT_EQ(field_of(answer, "Transfer-Encoding"), "");
  EXPECT_EQ(answer.substr(answer.size() - 14), "data: [DONE]\n\n");
}

TEST_F(Server, EveryErrorHasTheSameShape) {
  start();
  const auto expect = [&](int status, const std::string& bytes, const std::string& part) {
    const std::string answer = ask(bytes);
    EXPECT_EQ(status_of(answer), status) << bytes;
    EXPECT_EQ(body_of(answer).substr(0, 21), R"({"error":{"message":")") << bytes;
    EXPECT_NE(answer.find(part), std::string::npos) << answer;
    return answer;
  };
  expect(404, "GET /nothing HTTP/1.1\r\nHost: x\r\n\r\n", R"("code":"route_not_found")");
  EXPECT_EQ(field_of(expect(405, "GET /v1/completions HTTP/1.1\r\nHost: x\r\n\r\n", "POST"), "Allow"), "POST");
  EXPECT_EQ(field_of(expect(405, "DELETE /v1/models HTTP/1.1\r\nHost: x\r\n\r\n", ""), "Allow"), "GET, HEAD");
  expect(415, "POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Type: text/plain\r\nContent-Length: 2\r\n\r\n{}",
         "application/json");
  expect(404, post(kChatPath, kChat + R"(,"model":"other"})"), R"("code":"model_not_found")");
  expect(400, post(kChatPath, kChat + R"(,"temperature":9})"), R"("param":"temperature")");
  expect(400, post("/v1/completions", "{"), "not valid JSON");
  expect(400, "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n", "body");
  expect(400, "GET / HTTP/1.1\nHost: x\n\n", "CRLF");
  expect(431, "GET / HTTP/1.1\r\nHost: x\r\nX: " + std::string(64 * 1024, 'a') + "\r\n\r\n", "head");
  expect(414, "GET /" + std::string(64 * 1024, 'a'), "head");
}

TEST_F(Server, BodiesAreBounded) {
  HttpOptions options;
  options.max_body_bytes = 1000;
  start(options);
  const std::string chunked = "POST /tokenize HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n";
  const std::string fits = R"({"prompt":")" + std::string(1000 - 13, 'a') + "\"}";
  ASSERT_EQ(fits.size(), 1000U);
  EXPECT_EQ(status_of(ask(post("/tokenize", fits))), 200);
  EXPECT_EQ(status_of(ask(post("/tokenize", fits + " "))), 413);
  const auto in_chunks = [](const std::string& body) {
    std::string out;
    for (const char c : body) out += std::string("1;ext=1\r\n") + c + "\r\n";
    return out + "0\r\nTrailer: x\r\n\r\n";
  };
  EXPECT_EQ(status_of(ask(chunked + in_chunks(fits))), 200);
  EXPECT_EQ(status_of(ask(chunked + in_chunks(fits + " "))), 413);
  for (const std::string& size : std::vector<std::string>{"-2", "+5", "0x5", "", "fffffffffffffffff", "g", "5 5"}) {
    EXPECT_EQ(status_of(ask(chunked + size + "\r\nhello\r\n0\r\n\r\n")), 400) << size;
  }
  EXPECT_EQ(status_of(ask(chunked + "3\r\nabcd\r\n0\r\n\r\n")), 400);
  EXPECT_EQ(status_of(ask(chunked + "1;" + std::string(1 << 20, 'x') + "\r\na\r\n0\r\n\r\n")), 400);
}

TEST_F(Server, KeepsConnectionsAndTakesPipelinedRequests) {
  start();
  RawClient client(server_->port());
  std::string requests;
  for (int i = 0; i < 50; ++i) requests += post("/tokenize", R"({"prompt":"a"})");
  client.send(requests);
  for (int i = 0; i < 50; ++i) EXPECT_EQ(status_of(client.read_answer()), 200);
  client.send("\r\nGET /livez HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
  const std::string last = client.read_all();
  EXPECT_EQ(status_of(last), 200);
  EXPECT_EQ(field_of(last, "Connection"), "close");
}

TEST_F(Server, ExpectContinueIsAnsweredBeforeTheBody) {
  start();
  RawClient client(server_->port());
  const std::string whole = post("/tokenize", R"({"prompt":"a"})", "Expect: 100-continue\r\n");
  const auto split = whole.find("\r\n\r\n") + 4;
  client.send(whole.substr(0, split));
  EXPECT_EQ(client.read_until("\r\n\r\n"), "HTTP/1.1 100 Continue\r\n\r\n");
  client.send(whole.substr(split));
  EXPECT_EQ(status_of(client.read_answer()), 200);
}

TEST_F(Server, AHeadRequestHasNoBody) {
  start();
  RawClient client(server_->port());
  client.send("HEAD /livez HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
  const std::string answer = client.read_all();
  EXPECT_EQ(status_of(answer), 200);
  EXPECT_EQ(body_of(answer), "");
  EXPECT_NE(field_of(answer, "Content-Length"), "0");
}

TEST_F(Server, KeysGuardEveryRouteButThree) {
  HttpOptions options;
  options.api_keys = {"secret"};
  start(options);
  const std::vector<std::string> open{"/livez", "/readyz", "/health"};
  for (const std::string& path : open) EXPECT_EQ(status_of(get(path)), 200) << path;
  for (const char* path :
       {"/version", "/metrics", "/v1/models", "/v1/models/fake", "/tokenize", "/detokenize", "/inspect", "/",
        "/v1/chat/completions/render", "/v1/chat/completions", "/v1/completions", "/nothing", "//livez", "/./livez",
        "/livez/", "/LIVEZ", "/%6civez", "/livez;x", "/livez%2e"}) {
    EXPECT_EQ(status_of(get(path)), 401) << path;
    EXPECT_EQ(status_of(get(path, "Authorization: Bearer secre\r\n")), 401) << path;
  }
  const std::string refused = ask(post(kChatPath, kLongChat));
  EXPECT_EQ(status_of(refused), 401);
  EXPECT_EQ(field_of(refused, "WWW-Authenticate"), "Bearer");
  EXPECT_NE(body_of(refused).find("authentication_error"), std::string::npos);
  EXPECT_EQ(status_of(get("/v1/models?api_key=secret")), 401);
  EXPECT_EQ(status_of(get("/v1/models", "Authorization: Bearer secret\r\n")), 200);
  EXPECT_EQ(status_of(get("/nothing", "Authorization: Bearer secret\r\n")), 404);
  EXPECT_EQ(status_of(get("/version", "Authorization: Bearer secret\r\nAuthorization: Bearer secret\r\n")), 401);
}

// Of the table itself, so that no new route is forgotten.
TEST_F(Server, EveryRouteIsInTheDocumentAndGuardedOrPublic) {
  HttpOptions options;
  options.api_keys = {"secret"};
  options.weights = {"/nowhere", "/nowhere"};  // the reload of weights is on
  start(options);
  const auto document = nlohmann::json::parse(openapi_document());
  std::set<std::string> served, described, open;
  for (const Service::RouteFacts& route : Service::routes()) {
    const std::string name = concat(route.method == "GET" ? "get " : "post ", route.path);
    if (!route.of_page) served.insert(name);
    if (route.is_public && !route.of_page) open.insert(std::string(route.path));
    if (route.of_page) continue;
    std::string path(route.path);
    if (path.find("{id}") != std::string::npos) path.replace(path.find("{id}"), 4, "fake");
    const std::string answer = route.method == "GET" ? get(path) : ask(post(path, "{}"));
    EXPECT_EQ(status_of(answer) == 401, !route.is_public) << name << ": " << answer;
    const auto operation = document["paths"][std::string(route.path)][route.method == "GET" ? "get" : "post"];
    const bool keyless = operation.contains("security") && operation["security"].empty();
    EXPECT_EQ(keyless, route.is_public) << name;
  }
  for (const auto& [path, operations] : document["paths"].items()) {
    for (const auto& [method, operation] : operations.items()) described.insert(concat(method, " ", path));
  }
  EXPECT_EQ(served, described);
  EXPECT_EQ(open, (std::set<std::string>{"/livez", "/readyz", "/health"}));
}

// S-12: a page's request that needs no preflight would run with the rights of who looks at the page.
TEST_F(Server, PagesFromElsewhereMayNotAsk) {
  start();
  const auto chat = [this](const std::string& fields) { return ask(post(kChatPath, kLongChat, fields)); };
  for (const char* fields : {"Origin: http://evil.example\r\n", "Origin: null\r\n", "Origin: http://test.evil\r\n",
                             "Origin: http://test\r\nOrigin: http://test\r\n", "Sec-Fetch-Site: cross-site\r\n",
                             "Sec-Fetch-Site: same-site\r\nOrigin: http://test\r\n"}) {
    const std::string refused = chat(fields);
    EXPECT_EQ(status_of(refused), 403) << fields;
    EXPECT_NE(body_of(refused).find("permission_error"), std::string::npos);
    EXPECT_EQ(field_of(refused, "Access-Control-Allow-Origin"), "");
  }
  for (const char* fields : {"", "Origin: http://TEST\r\n", "Origin: https://test:8443\r\n",
                             "Sec-Fetch-Site: same-origin\r\nOrigin: http://other\r\n"}) {
    EXPECT_EQ(status_of(chat(fields)), 200) << fields;
  }
  EXPECT_EQ(status_of(get("/v1/models", "Origin: http://evil.example\r\n")), 200) << "which the page can't read";
  EXPECT_EQ(status_of(ask("OPTIONS /v1/completions HTTP/1.1\r\nHost: x\r\nOrigin: http://evil.example\r\n"
                          "Access-Control-Request-Method: POST\r\n\r\n")),
            405);
}

TEST_F(Server, ListedOriginsMayAskAndRead) {
  HttpOptions options;
  options.api_keys = {"secret"};
  options.cors_origins = {"https://chat.example"};
  start(options);
  const std::string origin = "Origin: https://chat.example\r\n";
  const std::string preflight = ask("OPTIONS " + std::string(kChatPath) + " HTTP/1.1\r\nHost: x\r\n" + origin +
                                    "Access-Control-Request-Method: POST\r\n\r\n");
  EXPECT_EQ(status_of(preflight), 200);
  EXPECT_EQ(field_of(preflight, "Access-Control-Allow-Origin"), "https://chat.example");
  EXPECT_NE(field_of(preflight, "Access-Control-Allow-Headers").find("Authorization"), std::string::npos);
  EXPECT_EQ(field_of(preflight, "Access-Control-Allow-Credentials"), "") << "keys are no cookies";
  const std::string without_key = ask(post(kChatPath, kLongChat, origin));
  EXPECT_EQ(status_of(without_key), 401);
  EXPECT_EQ(field_of(without_key, "Access-Control-Allow-Origin"), "https://chat.example");
  const std::string stream = ask(post(kChatPath, kStreamedChat, origin + "Authorization: Bearer secret\r\n"));
  EXPECT_EQ(status_of(stream), 200);
  EXPECT_EQ(field_of(stream, "Access-Control-Allow-Origin"), "https://chat.example");
  EXPECT_EQ(field_of(stream, "Vary"), "Origin");
  EXPECT_EQ(status_of(ask(post(kChatPath, kLongChat, "Origin: https://chat.example.evil\r\n"))), 403);
}

TEST_F(Server, OtherNamesOfTheServerAreRefusedWhereItsOwnAreListed) {
  HttpOptions options;
  options.allowed_hosts = {"llm.example", "[::1]"};
  start(options);
  const auto by_name = [this](const std::string& path, const std::string& host) {
    return status_of(ask("GET " + path + " HTTP/1.1\r\nHost: " + host + "\r\n\r\n"));
  };
  EXPECT_EQ(by_name("/v1/models", "llm.example"), 200);
  EXPECT_EQ(by_name("/v1/models", "LLM.example:8000"), 200);
  EXPECT_EQ(by_name("/v1/models", "[::1]:8000"), 200);
  EXPECT_EQ(by_name("/v1/models", "rebound.evil"), 403);
  EXPECT_EQ(by_name("/v1/models", "llm.example.evil:8000"), 403);
  EXPECT_EQ(by_name("/livez", "10.1.2.3:8000"), 200) << "probes ask by address";
}

TEST_F(Server, ThePageNeedsNoKeyAndIsCached) {
  HttpOptions options;
  options.api_keys = {"secret"};
  options.ui = true;
  start(options);
  const std::string page = get("/");
  EXPECT_EQ(status_of(page), 200);
  EXPECT_NE(body_of(page).find("<!doctype html>"), std::string::npos);
  EXPECT_EQ(field_of(page, "Content-Type"), "text/html; charset=utf-8");
  EXPECT_EQ(field_of(page, "Content-Security-Policy").find("default-src 'none';"), 0U);
  EXPECT_EQ(field_of(page, "X-Content-Type-Options"), "nosniff");
  const std::string again = get("/", "If-None-Match: " + field_of(page, "ETag") + "\r\n");
  EXPECT_EQ(status_of(again), 304);
  EXPECT_EQ(body_of(again), "");
  const std::string script = get("/page/app.js");
  EXPECT_EQ(status_of(script), 200);
  EXPECT_EQ(field_of(script, "Content-Type"), "text/javascript; charset=utf-8");
  EXPECT_NE(field_of(script, "ETag"), field_of(page, "ETag"));
  EXPECT_EQ(status_of(get("/page/nothing.js")), 404);
  EXPECT_EQ(status_of(get("/page/../app.js", "Authorization: Bearer secret\r\n")), 404);
  EXPECT_EQ(status_of(ask(post("/", "{}"))), 401);
  EXPECT_EQ(status_of(get("/v1/models")), 401);
}

TEST_F(Server, KeysChangeWhileItRuns) {
  gap_ = milliseconds(40);
  HttpOptions options;
  options.api_keys = {"old"};
  start(options);
  RawClient running(server_->port());
  running.send(post(kChatPath, kStreamedChat, "Authorization: Bearer old\r\n"));
  running.read_until("\"assistant\"");
  server_->set_api_keys({"new", "newer"});
  EXPECT_EQ(status_of(get("/version", "Authorization: Bearer old\r\n")), 401);
  EXPECT_EQ(status_of(get("/version", "Authorization: Bearer new\r\n")), 200);
  EXPECT_EQ(status_of(get("/version", "Authorization: Bearer newer\r\n")), 200);
  EXPECT_NE(running.read_until("\r\n0\r\n\r\n").find("[DONE]"), std::string::npos);
}

TEST_F(Server, MetricsMayHaveAnAddressOfTheirOwn) {
  HttpOptions options;
  options.api_keys = {"secret"};
  options.metrics_port = 0;
  start(options);
  const auto get_there = [&](const std::string& path) {
    RawClient client(server_->metrics_port());
    client.send("GET " + path + " HTTP/1.1\r\nHost: x\r\n\r\n");
    return status_of(client.read_answer());
  };
  for (const char* path : {"/metrics", "/livez", "/readyz", "/health"}) EXPECT_EQ(get_there(path), 200) << path;
  for (const char* path : {"/v1/models", "/version", "/tokenize", "/v1/chat/completions", "/"}) {
    EXPECT_EQ(get_there(path), 404) << path;
  }
  EXPECT_EQ(status_of(get("/metrics")), 401);
  EXPECT_EQ(status_of(get("/metrics", "Authorization: Bearer secret\r\n")), 404);
  EXPECT_EQ(status_of(get("/readyz")), 200);
}

TEST_F(Server, TheReloadOfWeightsStandsWithTheOperatorsAndWantsAKeyThereToo) {
  HttpOptions options;
  options.api_keys = {"secret"};
  options.metrics_port = 0;
  options.weights = {"/models/served", "/"};
  start(options);
  const auto post_to = [](int port, const std::string& key) {
    RawClient client(port);
    client.send("POST /admin/reload_weights HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n" + key +
                "Content-Length: 2\r\n\r\n{}");
    return client.read_answer();
  };
  const std::string key = "Authorization: Bearer secret\r\n";
  EXPECT_EQ(status_of(post_to(server_->port(), key)), 404);
  EXPECT_EQ(status_of(post_to(server_->metrics_port(), "")), 401);
  const std::string answer = post_to(server_->metrics_port(), key);
  EXPECT_EQ(status_of(answer), 400);
  EXPECT_NE(answer.find("reload_unsupported"), std::string::npos);  // what a fake engine says
}

// No token in time: refused before the engine is asked to go on, as 408 or, on a stream, as its error event.
TEST_F(Server, AFirstTokenThatIsLateEndsTheRequest) {
  gap_ = std::chrono::seconds(60);
  HttpOptions options;
  options.first_token_timeout = milliseconds(60);
  start(options);
  const std::string answer = ask(post(kChatPath, kLongChat));
  EXPECT_EQ(status_of(answer), 408);
  EXPECT_TRUE(engine_.wait_for_cancel());
  RawClient client(server_->port());
  client.send(post(kChatPath, kStreamedChat));
  const std::string stream = client.read_all();
  EXPECT_NE(stream.find("data: {\"error\":"), std::string::npos) << stream;
  EXPECT_EQ(stream.find("[DONE]"), std::string::npos);
  EXPECT_EQ(metric("multiverse_requests_aborted_total{model_name=\"fake-model\",cause=\"deadline\"}"), 2.0);
}

TEST_F(Server, AClientsDeadlineReachesTheEngine) {
  HttpOptions options;
  options.request_timeout = milliseconds(5000);
  start(options);
  const auto deadline = [&](const std::string& field) {
    EXPECT_EQ(status_of(ask(post(kChatPath, kLongChat, field))), 200) << field;
    return engine_.records().back().request.deadline;
  };
  EXPECT_EQ(deadline(""), milliseconds(5000));
  EXPECT_EQ(deadline("X-Request-Timeout-Ms: 500\r\n"), milliseconds(500));
  EXPECT_EQ(deadline("X-Request-Timeout-Ms: 9000\r\n"), milliseconds(5000));
  for (const char* value : {"0", "-1", "1e3", "", "99999999999999999999", "5 "}) {
    const std::string field = std::string("X-Request-Timeout-Ms: ") + value + "x\r\n";
    EXPECT_EQ(status_of(ask(post(kChatPath, kLongChat, field))), 400) << field;
  }
  EXPECT_EQ(status_of(ask(post(kChatPath, kLongChat, "X-Request-Timeout-Ms: 0\r\n"))), 400);
  EXPECT_EQ(status_of(ask(post(kChatPath, kLongChat, "X-Request-Timeout-Ms: 5\r\nX-Request-Timeout-Ms: 6\r\n"))), 400);
}

TEST_F(Server, OddRequestIdsAreReplaced) {
  start();
  EXPECT_EQ(field_of(get("/livez", "X-Request-Id: " + std::string(128, 'a') + "\r\n"), "X-Request-Id"),
            std::string(128, 'a'));
  for (const std::string& id : {std::string(129, 'a'), std::string("a b"), std::string("a\"b"), std::string()}) {
    const std::string given = field_of(get("/livez", "X-Request-Id: " + id + "\r\n"), "X-Request-Id");
    EXPECT_EQ(given.substr(0, 4), "req-") << id;
  }
}

TEST_F(Server, SmallEndpoints) {
  start();
  EXPECT_NE(body_of(get("/v1/models")).find(R"({"id":"fake","object":"model")"), std::string::npos);
  EXPECT_EQ(status_of(get("/v1/models/fake%2Dmodel")), 200);
  EXPECT_EQ(status_of(get("/v1/models/other")), 404);
  EXPECT_EQ(body_of(get("/version")), R"({"version":"9.9.9"})");
  EXPECT_EQ(body_of(ask(post("/tokenize", R"({"prompt":"a<Path>","return_token_strs":true})"))),
            R"({"count":2,"max_model_len":4096,"tokens":[97,261],"token_strs":["a","<Path>"]})");
  EXPECT_EQ(body_of(ask(post("/tokenize", R"({"prompt":"<Path>","parse_special":false})"))),
            R"({"count":6,"max_model_len":4096,"tokens":[60,80,97,116,104,62]})");
  EXPECT_EQ(body_of(ask(post("/detokenize", R"({"tokens":[261,195,169]})"))), R"({"prompt":"<Path>é"})");
  EXPECT_EQ(status_of(ask(post("/detokenize", R"({"tokens":[-1]})"))), 400);
  const std::string rendered = body_of(ask(post("/v1/chat/completions/render", kLongChat)));
  EXPECT_NE(rendered.find(R"("prompt":"<|im_start|>user\nq<|im_end|>\n<|im_start|>assistant\n")"), std::string::npos);
}

TEST_F(Server, UnknownFieldsAreListedInAHeader) {
  start();
  EXPECT_EQ(field_of(ask(post(kChatPath, kChat + R"(,"zeta":1,"a\r\nX-Evil: 1":2})")), "X-Ignored-Params"),
            "a??X-Evil:?1, zeta");
}

TEST_F(Server, AFullQueueIs429BeforeTheStatusLineOfAStream) {
  start();
  refusal_ = Error{ErrorCode::kOverloaded, "256 requests wait already", "", "queue_full"};
  const std::string answer = ask(post(kChatPath, kStreamedChat));
  EXPECT_EQ(status_of(answer), 429);
  EXPECT_EQ(field_of(answer, "Retry-After"), "1");
  refusal_.reset();
  EXPECT_EQ(metric("multiverse_requests_rejected_total{model_name=\"fake-model\",reason=\"queue_full\"}"), 1.0);
}

TEST_F(Server, ASilentStreamIsKeptAliveByComments) {
  gap_ = milliseconds(400);
  text_ = "a";
  HttpOptions options;
  options.ping_interval = milliseconds(50);
  start(options);
  RawClient client(server_->port());
  client.send(post(kChatPath, kStreamedChat));
  client.read_until("\r\n\r\n");
  const std::string events = testing::dechunked(client.read_until("\r\n0\r\n\r\n"));
  std::size_t pings = 0;
  for (std::size_t at = events.find(": ping\n\n"); at != std::string::npos; at = events.find(": ping\n\n", at + 1))
    ++pings;
  EXPECT_GE(pings, 2U);
  EXPECT_NE(events.find("[DONE]"), std::string::npos);
}

// What goes wrong with one request, wherever, ends that one alone.
TEST_F(Server, AnExceptionEndsItsRequestAlone) {
  std::atomic<bool> in_handler = false;
  FakeEngine engine([&](const GenerateRequest& request) -> Result<testing::Script> {
    if (in_handler) throw std::runtime_error("a failure of the engine");
    testing::Script script = testing::text_script(request, "hello", milliseconds(20));
    if (request.max_tokens == 7) script[2].throws = true;
    return script;
  });
  HttpOptions options;
  options.port = 0;
  server_ = std::move(HttpServer::start(options)).value();
  server_->attach(testing::fake_model(), engine);
  RawClient neighbour(server_->port()), failing(server_->port());
  neighbour.send(post(kChatPath, kStreamedChat));
  failing.send(post(kChatPath, kChat + R"(,"stream":true,"max_tokens":7})"));
  const std::string cut = failing.read_all();
  EXPECT_EQ(status_of(cut), 200);
  EXPECT_EQ(cut.find("[DONE]"), std::string::npos);
  EXPECT_EQ(status_of(ask(post(kChatPath, kChat + R"(,"max_tokens":7})"))), 500);
  EXPECT_NE(neighbour.read_until("\r\n0\r\n\r\n").find("[DONE]"), std::string::npos);
  in_handler = true;
  EXPECT_EQ(status_of(ask(post(kChatPath, kLongChat))), 500);
  in_handler = false;
  EXPECT_EQ(status_of(ask(post(kChatPath, kLongChat))), 200);
  EXPECT_TRUE(server_->wait_idle(std::chrono::seconds(10)));
  EXPECT_EQ(metric("multiverse_requests_finished_total{model_name=\"fake-model\",finish_reason=\"error\"}"), 3.0);
  server_.reset();
}

// How a client may leave, and whether it asked for a stream.
struct Leaving {
  bool stream;
  bool reset;
};
class ServerCancel : public Server, public ::testing::WithParamInterface<Leaving> {};

TEST_P(ServerCancel, AClientThatLeavesCancelsItsRequest) {
  gap_ = std::chrono::seconds(60);  // queued or decoding: no event comes by itself
  start();
  RawClient client(server_->port());
  client.send(post(kChatPath, GetParam().stream ? kStreamedChat : kLongChat));
  if (GetParam().stream) {
    client.read_until("\"assistant\"");
  } else {
    while (engine_.records().empty()) std::this_thread::sleep_for(milliseconds(1));
  }
  if (GetParam().reset) {
    client.reset();
  } else {
    client.close();
  }
  EXPECT_TRUE(engine_.wait_for_cancel());
  EXPECT_TRUE(server_->wait_idle(std::chrono::seconds(10)));
  EXPECT_EQ(metric("multiverse_requests_aborted_total{model_name=\"fake-model\",cause=\"disconnect\"}"), 1.0);
  // Never sent, but counted so, also where a stream had begun with 200. Concluded once the connection's thread is done.
  const std::string line =
      "multiverse_http_requests_total{model_name=\"fake-model\",route=\"/v1/chat/"
      "completions\",method=\"POST\",code=\"499\"}";
  for (int tries = 0; tries < 1000 && metric(line) != 1.0; ++tries) std::this_thread::sleep_for(milliseconds(1));
  EXPECT_EQ(metric(line), 1.0);
}

INSTANTIATE_TEST_SUITE_P(All, ServerCancel,
                         ::testing::Values(Leaving{true, true}, Leaving{true, false}, Leaving{false, true},
                                           Leaving{false, false}));

TEST_F(Server, AHalfClosedClientGetsItsAnswer) {
  gap_ = milliseconds(60);
  start();
  for (const std::string& body : {kLongChat, kStreamedChat}) {
    RawClient client(server_->port());
    client.send(post(kChatPath, body));
    client.half_close();
    const std::string answer = client.read_all();
    EXPECT_NE(answer.find("HTTP/1.1 200 OK"), std::string::npos);
    EXPECT_NE(answer.find("\"finish_reason\":\"stop\""), std::string::npos) << answer;
    EXPECT_FALSE(engine_.records().back().cancelled);
  }
}

TEST_F(Server, IsNotReadyWithoutAModel) {
  HttpOptions options;
  options.port = 0;
  auto server = HttpServer::start(options);
  ASSERT_TRUE(server.ok());
  server_ = std::move(server).value();
  EXPECT_EQ(status_of(get("/livez")), 200);
  EXPECT_EQ(status_of(get("/readyz")), 503);
  EXPECT_EQ(status_of(get("/metrics")), 200);
  const std::string answer = ask(post(kChatPath, kLongChat));
  EXPECT_EQ(status_of(answer), 503);
  EXPECT_NE(field_of(answer, "Retry-After"), "");
}

TEST_F(Server, DrainLetsRunningRequestsFinishAndRefusesNewOnes) {
  gap_ = milliseconds(50);
  start();
  RawClient running(server_->port());
  running.send(post(kChatPath, kStreamedChat));
  running.read_until("\"assistant\"");
  server_->begin_drain();
  EXPECT_EQ(status_of(get("/readyz")), 503);
  EXPECT_EQ(status_of(get("/livez")), 200);
  const std::string refused = ask(post(kChatPath, kLongChat));
  EXPECT_EQ(status_of(refused), 503);
  EXPECT_NE(field_of(refused, "Retry-After"), "");
  EXPECT_NE(running.read_until("\r\n0\r\n\r\n").find("[DONE]"), std::string::npos);
  EXPECT_TRUE(server_->wait_idle(std::chrono::seconds(10)));
  server_->stop();
}

TEST_F(Server, StopEndsStreamsWithAnErrorEvent) {
  gap_ = std::chrono::seconds(60);
  start();
  RawClient running(server_->port()), silent(server_->port());
  running.send(post(kChatPath, kStreamedChat));
  running.read_until("\"assistant\"");
  silent.send(post(kChatPath, kLongChat));
  while (engine_.records().size() < 2) std::this_thread::sleep_for(milliseconds(1));
  EXPECT_FALSE(server_->wait_idle(milliseconds(20)));
  server_->stop();
  const std::string rest = running.read_all();
  EXPECT_NE(rest.find("data: {\"error\":"), std::string::npos);
  EXPECT_EQ(rest.find("[DONE]"), std::string::npos);
  EXPECT_EQ(status_of(silent.read_all()), 503);
}

TEST_F(Server, AStalledEngineIsNotAlive) {
  start();
  EngineStats stats;
  stats.last_step_age_seconds = 1000.0;
  engine_.set_stats(stats);
  EXPECT_EQ(status_of(get("/livez")), 200);  // idle
  stats.requests_running = 1;
  engine_.set_stats(stats);
  EXPECT_EQ(status_of(get("/livez")), 503);
}

TEST_F(Server, ConnectionsAreBounded) {
  HttpOptions options;
  options.max_connections = 2;
  start(options);
  RawClient first(server_->port()), second(server_->port());
  for (RawClient* client : {&first, &second}) {
    client->send("GET /livez HTTP/1.1\r\nHost: x\r\n\r\n");
    EXPECT_EQ(status_of(client->read_answer()), 200);
  }
  RawClient third(server_->port());
  EXPECT_EQ(status_of(third.read_all()), 503);
  first.close();
  // The freed thread serves the next one; until it is free, newcomers are told to come back.
  for (int status = 0; status != 200;) status = status_of(get("/livez"));
}

TEST_F(Server, APortInUseIsSaid) {
  start();
  HttpOptions options;
  options.port = server_->port();
  const auto second = HttpServer::start(options);
  ASSERT_FALSE(second.ok());
  EXPECT_NE(second.error().message.find("Address already in use"), std::string::npos);
  options.host = "no such host";
  const auto third = HttpServer::start(options);
  ASSERT_FALSE(third.ok());
  EXPECT_EQ(third.error().param, "host");
}

TEST_F(Server, MetricsCount) {
  start();
  EngineStats stats;
  stats.requests_waiting = 3;
  stats.pages_total = 8;
  stats.pages_used = 2;
  stats.prompt_tokens_total = 10;
  stats.cached_prompt_tokens_total = 4;
  engine_.set_stats(stats);
  EXPECT_EQ(status_of(ask(post(kChatPath, kLongChat))), 200);
  EXPECT_EQ(status_of(ask(post(kChatPath, "{}"))), 400);
  const std::string name = "{model_name=\"fake-model\"";
  EXPECT_EQ(metric("multiverse_requests_waiting" + name), 3.0);
  EXPECT_EQ(metric("multiverse_kv_cache_usage_ratio" + name), 0.25);
  EXPECT_EQ(metric("multiverse_prompt_tokens_total" + name + ",source=\"computed\"}"), 6.0);
  EXPECT_EQ(metric("multiverse_requests_received_total" + name), 2.0);
  EXPECT_EQ(metric("multiverse_requests_rejected_total" + name + ",reason=\"invalid\"}"), 1.0);
  EXPECT_EQ(metric("multiverse_requests_finished_total" + name + ",finish_reason=\"stop\"}"), 1.0);
  EXPECT_EQ(metric("multiverse_requests_in_flight" + name), 0.0);
  EXPECT_EQ(metric("multiverse_time_to_first_token_seconds_count" + name), 1.0);
  EXPECT_EQ(metric("multiverse_request_duration_seconds_bucket" + name + ",le=\"+Inf\"}"), 1.0);
  EXPECT_EQ(
      metric("multiverse_http_requests_total" + name + ",route=\"/v1/chat/completions\",method=\"POST\",code=\"400\"}"),
      1.0);
  EXPECT_NE(body_of(get("/metrics")).find("\nprocess_resident_memory_bytes "), std::string::npos);
}

}  // namespace
}  // namespace multiverse

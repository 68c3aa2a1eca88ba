// What /metrics promises: every request ends in exactly one count, and no client can make the page grow.
#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <random>
#include <thread>

#include "multiverse/base/log.h"
#include "multiverse/http/server.h"

#include "http/raw_client.h"
#include "support/fake_engine.h"
#include "support/fake_tokenizer.h"

namespace multiverse {
namespace {

using std::chrono::milliseconds;
using testing::body_of;
using testing::post;
using testing::RawClient;
using testing::status_of;

const std::string kChat = R"({"messages":[{"role":"user","content":"q"}])";

std::unique_ptr<HttpServer> start(testing::FakeEngine& engine) {
  set_log_level(LogLevel::kWarning);
  HttpOptions options;
  options.port = 0;
  options.version = "1";
  auto server = HttpServer::start(options);
  CHECK(server.ok(), server.error().message);
  server.value()->attach(testing::fake_model(), engine);
  return std::move(server).value();
}

std::string scrape(int port) {
  RawClient client(port);
  client.send("GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
  return body_of(client.read_all());
}

// The sum over a family's samples.
std::int64_t sum_of(const std::string& page, const std::string& name) {
  double sum = 0.0;
  for (std::size_t at = page.find("\n" + name + "{"); at != std::string::npos;
       at = page.find("\n" + name + "{", at + 1)) {
    sum += std::stod(page.substr(page.find("} ", at) + 2));
  }
  return static_cast<std::int64_t>(sum);
}

TEST(MetricsPage, EveryRequestEndsInOneCountAtEveryScrape) {
  testing::FakeEngine engine([](const GenerateRequest& request) -> Result<testing::Script> {
    if (request.seed % 5 == 0) return Error{ErrorCode::kOverloaded, "the queue is full", "", "queue_full"};
    return testing::text_script(request, "ab", milliseconds(static_cast<int>(request.seed % 7)));
  });
  const auto server = start(engine);
  std::atomic<int> sent = 0, clients_left = 4;
  std::vector<std::thread> clients;
  for (int client_number = 0; client_number < 4; ++client_number) {
    clients.emplace_back([&, client_number] {
      std::mt19937 random(static_cast<unsigned>(client_number));
      for (int i = 0; i < 60; ++i) {
        RawClient client(server->port());
        const bool stream = random() % 2 == 0, leaves = random() % 4 == 0, wrong = random() % 6 == 0;
        const std::string body = kChat + ",\"seed\":" + std::to_string(random() % 1000) +
                                 (stream ? ",\"stream\":true" : "") + (wrong ? ",\"n\":0}" : "}");
        client.send(post("/v1/chat/completions", body, "Connection: close\r\n"));
        sent += 1;
        if (leaves) {
          std::this_thread::sleep_for(milliseconds(random() % 5));
          client.reset();
        } else {
          client.read_all();
        }
      }
      clients_left -= 1;
    });
  }
  int scrapes = 0;
  std::string page;
  for (bool last = false; !last; ++scrapes) {
    last = clients_left == 0 && server->wait_idle(std::chrono::seconds(10));
    page = scrape(server->port());
    const std::int64_t ended = sum_of(page, "multiverse_requests_finished_total") +
                               sum_of(page, "multiverse_requests_rejected_total") +
                               sum_of(page, "multiverse_requests_aborted_total");
    EXPECT_EQ(sum_of(page, "multiverse_requests_received_total"),
              ended + sum_of(page, "multiverse_requests_in_flight"));
  }
  for (std::thread& client : clients) client.join();
  EXPECT_GT(scrapes, 10);
  EXPECT_EQ(sum_of(page, "multiverse_requests_in_flight"), 0);
  // A client that resets before its request is read was never heard.
  EXPECT_LE(sum_of(page, "multiverse_requests_received_total"), sent);
  EXPECT_GT(sum_of(page, "multiverse_requests_received_total"), sent / 2);
  for (const char* family : {"finished", "rejected", "aborted"}) {
    EXPECT_GT(sum_of(page, std::string("multiverse_requests_") + family + "_total"), 0) << family;
  }
}

TEST(MetricsPage, NoClientMakesItGrow) {
  testing::FakeEngine engine([](const GenerateRequest& request) { return testing::text_script(request, "a"); });
  const auto server = start(engine);
  const unsigned seed = 20'261;
  std::mt19937 random(seed);
  const std::vector<std::string> methods{"GET",   "POST",    "HEAD",  "PUT",    "DELETE",
                                         "PATCH", "OPTIONS", "TRACE", "CONNECT"};
  const std::vector<std::string> paths{"/livez",
                                       "/readyz",
                                       "/health",
                                       "/version",
                                       "/metrics",
                                       "/v1/models",
                                       "/tokenize",
                                       "/detokenize",
                                       "/v1/models/fake",
                                       "/v1/completions",
                                       "/v1/chat/completions",
                                       "/v1/chat/completions/render"};
  const std::vector<std::string> fields{"", "Content-Type: text/plain\r\n", "Content-Encoding: gzip\r\n",
                                        "X-Request-Timeout-Ms: x\r\n"};
  const auto word = [&] { return std::to_string(random()); };
  for (int i = 0; i < 3000; ++i) {
    const bool odd_path = random() % 3 == 0;
    const std::string path = odd_path ? "/" + word() + "/" + word() : paths[random() % paths.size()];
    const std::string body = random() % 2 == 0 ? kChat + ",\"model\":\"" + word() + "\"}" : word();
    RawClient client(server->port());
    client.send(methods[random() % methods.size()] + " " + path +
                " HTTP/1.1\r\nHost: x\r\nConnection: close\r\nX-Request-Id: " + word() + "\r\n" +
                fields[random() % fields.size()] + "Content-Length: " + std::to_string(body.size()) + "\r\n\r\n" +
                body);
    client.read_all();
  }
  const std::string page = scrape(server->port());
  std::size_t series = 0;
  for (std::size_t at = 0; at < page.size(); at = page.find('\n', at) + 1) series += page[at] != '#' ? 1U : 0U;
  EXPECT_LE(series, 500U) << "seed " << seed;
  EXPECT_EQ(sum_of(page, "multiverse_http_requests_total"), 3000);
}

}  // namespace
}  // namespace multiverse

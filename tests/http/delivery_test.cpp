// A generation on its way to a client that reads slowly or not at all: no thread, and a clock of the test's.
#include "http/delivery.h"

#include <gtest/gtest.h>
#include <sys/socket.h>
#include <unistd.h>

#include <array>
#include <optional>
#include <thread>

#include "http/raw_client.h"
#include "support/fake_engine.h"
#include "support/fake_tokenizer.h"

namespace multiverse {
namespace {

using std::chrono::seconds;

constexpr Delivery::Time kStart{std::chrono::hours(1)};

// One delivery over a pair of sockets that hold little, from an engine that says a text at once and ends 5 ms later, or
// in an hour.
class SlowReader : public ::testing::Test {
 protected:
  void start(std::size_t text_bytes, bool endless, std::size_t max_unsent_bytes = std::size_t{1} << 20) {
    text_ = std::string(text_bytes, 'x');
    endless_ = endless;
    std::array<int, 2> pair{};
    ASSERT_EQ(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, pair.data()), 0);
    const int little = 4096;
    ASSERT_EQ(setsockopt(pair[0], SOL_SOCKET, SO_SNDBUF, &little, sizeof little), 0);
    client_ = pair[1];
    connection_ = std::make_unique<Connection>(pair[0]);
    exchange_ = std::make_unique<Exchange>(*connection_, head_);
    exchange_->send_stream([] { return true; });
    const auto model = testing::fake_model();
    auto job = parse_completion_request(R"({"prompt":"a","stream":true})", *model);
    ASSERT_TRUE(job.ok()) << job.error().message;
    generation_ = std::move(Generation::start(std::move(job).value(), model, engine_, 0)).value();
    DeliveryOptions options;
    options.stream = true;
    options.max_unsent_bytes = max_unsent_bytes;
    options.aborting = &aborting_;
    delivery_.emplace(*exchange_, *generation_, ticket_, options);
    ASSERT_TRUE(delivery_->open(kStart));
  }
  ~SlowReader() override { close(client_); }

  // What has come, at most so much.
  std::string read(std::size_t bytes) const {
    std::string out(bytes, '\0');
    const ssize_t count = recv(client_, out.data(), bytes, 0);
    out.resize(count > 0 ? static_cast<std::size_t>(count) : 0);
    return out;
  }
  bool counted(const std::string& line) const {
    return metrics_.text("m", "v", nullptr).find(line) != std::string::npos;
  }

  std::string text_;
  bool endless_ = false;
  testing::FakeEngine engine_{[this](const GenerateRequest& request) -> Result<testing::Script> {
    testing::Script script;
    testing::append_text(script, 0, text_);
    script.push_back(
        {testing::sample_end(0, FinishReason::kLength, 1), std::chrono::milliseconds(endless_ ? 3'600'000 : 5)});
    script.push_back({testing::finished(request)});
    return script;
  }};
  const RequestHead head_ = std::get<RequestHead>(parse_head("POST / HTTP/1.1\r\nHost: x\r\n"));
  Metrics metrics_;
  GenerationTicket ticket_{metrics_};
  std::atomic<bool> aborting_ = false;
  int client_ = -1;
  std::unique_ptr<Connection> connection_;
  std::unique_ptr<Exchange> exchange_;
  std::unique_ptr<Generation> generation_;
  std::optional<Delivery> delivery_;
};

TEST_F(SlowReader, WhoTakesNothingIsGivenUp) {
  start(50'000, true);
  EXPECT_TRUE(delivery_->on_events(kStart));
  EXPECT_TRUE(delivery_->on_time(kStart + seconds(29)));
  EXPECT_FALSE(engine_.records().back().cancelled);
  EXPECT_FALSE(delivery_->on_time(kStart + seconds(30)));
  EXPECT_TRUE(engine_.records().back().cancelled);
  EXPECT_FALSE(delivery_->conclude());
  EXPECT_EQ(exchange_->status(), 499);
  EXPECT_TRUE(counted("multiverse_requests_aborted_total{model_name=\"m\",cause=\"slow_reader\"} 1"));
}

TEST_F(SlowReader, ALittleNowAndThenIsProgressWhileLittleWaits) {
  start(50'000, true);
  EXPECT_TRUE(delivery_->on_events(kStart));
  auto now = kStart;
  for (int reads = 0; reads < 3; ++reads) {
    now += seconds(29);
    EXPECT_FALSE(read(8192).empty());
    EXPECT_TRUE(delivery_->on_writable(now));
    EXPECT_TRUE(delivery_->on_time(now));
  }
  EXPECT_FALSE(delivery_->on_time(now + seconds(30)));
}

TEST_F(SlowReader, ALittleNowAndThenIsNoneFarBehind) {
  start(50'000, true, 1000);
  EXPECT_TRUE(delivery_->on_events(kStart));
  EXPECT_FALSE(read(8192).empty());
  EXPECT_TRUE(delivery_->on_writable(kStart + seconds(29)));
  EXPECT_FALSE(delivery_->on_time(kStart + seconds(30)));
}

// Also where the engine was done long before.
TEST_F(SlowReader, WhoDoesNotTakeTheEndIsLost) {
  start(50'000, false);
  std::this_thread::sleep_for(std::chrono::milliseconds(10));
  EXPECT_TRUE(delivery_->on_events(kStart));
  EXPECT_FALSE(delivery_->on_time(kStart + seconds(30)));
  EXPECT_FALSE(delivery_->conclude());
  EXPECT_TRUE(counted("multiverse_requests_aborted_total{model_name=\"m\",cause=\"slow_reader\"} 1"));
}

// Nothing is lost by waiting: the text goes on where it was, and the stream is whole.
TEST_F(SlowReader, WhoReadsAgainGetsItAll) {
  start(50'000, false, 1000);
  EXPECT_TRUE(delivery_->on_events(kStart));
  std::this_thread::sleep_for(std::chrono::milliseconds(10));
  EXPECT_TRUE(delivery_->on_events(kStart));  // the end, which has to wait
  std::string all;
  auto now = kStart;
  for (bool more = true; more;) {
    const std::string piece = read(4096);
    ASSERT_FALSE(piece.empty());
    all += piece;
    more = delivery_->on_writable(now += seconds(1));
  }
  for (std::string piece = read(4096); !piece.empty(); piece = read(4096)) all += piece;
  EXPECT_TRUE(delivery_->conclude());
  EXPECT_TRUE(counted("multiverse_requests_finished_total{model_name=\"m\",finish_reason=\"length\"} 1"));
  const std::string events = testing::dechunked(all + "0\r\n\r\n");
  EXPECT_NE(events.find("\"" + text_ + "\""), std::string::npos);
  EXPECT_EQ(events.substr(events.size() - 14), "data: [DONE]\n\n");
}

}  // namespace
}  // namespace multiverse

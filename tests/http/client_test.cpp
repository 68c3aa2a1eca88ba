// HttpClient against a peer that plays prepared bytes.
#include "multiverse/http/client.h"

#include <arpa/inet.h>
#include <gtest/gtest.h>
#include <sys/socket.h>
#include <unistd.h>

#include <chrono>
#include <future>
#include <string>
#include <thread>
#include <vector>

#include "multiverse/base/check.h"

namespace multiverse {
namespace {

// Accepts one connection, reads a request whose body ends with '}', answers, and closes (or first waits for the client
// to do so).
class Peer {
 public:
  explicit Peer(std::vector<std::string> pieces, bool wait_for_close = false) {
    listener_ = socket(AF_INET, SOCK_STREAM, 0);
    sockaddr_in address = {};
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    EXPECT_EQ(bind(listener_, reinterpret_cast<sockaddr*>(&address), sizeof address), 0);
    EXPECT_EQ(listen(listener_, 1), 0);
    socklen_t size = sizeof address;
    getsockname(listener_, reinterpret_cast<sockaddr*>(&address), &size);
    port = ntohs(address.sin_port);
    thread_ = std::thread([this, pieces = std::move(pieces), wait_for_close] { serve(pieces, wait_for_close); });
  }
  ~Peer() {
    thread_.join();
    close(listener_);
  }

  int port = 0;
  std::string received;  // once the answer is there
  bool saw_close = false;

 private:
  void serve(const std::vector<std::string>& pieces, bool wait_for_close) {
    const int connection = accept(listener_, nullptr, nullptr);
    char bytes[4096];
    while (received.empty() || received.back() != '}') {
      const ssize_t count = recv(connection, bytes, sizeof bytes, 0);
      if (count <= 0) break;
      received.append(bytes, static_cast<std::size_t>(count));
    }
    for (const std::string& piece : pieces) {
      send(connection, piece.data(), piece.size(), MSG_NOSIGNAL);
      std::this_thread::sleep_for(std::chrono::milliseconds(5));  // so that they come as pieces
    }
    if (wait_for_close) saw_close = recv(connection, bytes, sizeof bytes, 0) <= 0;
    close(connection);
  }

  int listener_ = -1;
  std::thread thread_;
};

std::unique_ptr<HttpClient> client_for(const Peer& peer, const std::string& prefix = "") {
  auto client = HttpClient::open(concat("http://127.0.0.1:", peer.port, prefix));
  EXPECT_TRUE(client.ok());
  return std::move(client).value();
}

const HttpPost kPost{"/v1/x", "{\"a\": 1}", {{"Content-Type", "application/json"}, {"Authorization", "Bearer k"}}};

TEST(HttpClient, HandsOnTheBytesOfAChunkedAnswer) {
  Peer peer({"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nab", "c\r\n", "2\r\nde\r\n0\r\n\r\n"});
  std::string body;
  const auto answer = client_for(peer, "/under/")->post(kPost, [&](std::string_view bytes) { body += bytes; });
  ASSERT_TRUE(answer.ok()) << answer.error().message;
  EXPECT_EQ(answer.value().status, 200);
  EXPECT_EQ(body, "abcde");
  EXPECT_EQ(peer.received.substr(0, 27), "POST /under/v1/x HTTP/1.1\r\n") << peer.received;
  for (const std::string& wanted : {concat("Host: 127.0.0.1:", peer.port), std::string("Authorization: Bearer k"),
                                    std::string("Content-Type: application/json"), std::string("Content-Length: 8"),
                                    std::string("\r\n\r\n{\"a\": 1}")}) {
    EXPECT_NE(peer.received.find(wanted), std::string::npos) << wanted << " in " << peer.received;
  }
}

TEST(HttpClient, KeepsTheBodyOfAnError) {
  Peer peer({"HTTP/1.1 429 Too Many Requests\r\nRetry-After: 7\r\nContent-Length: 4\r\n\r\nfull"});
  const auto answer = client_for(peer)->post(kPost, [](std::string_view) { FAIL() << "an error is no answer"; });
  ASSERT_TRUE(answer.ok());
  EXPECT_EQ(answer.value().status, 429);
  EXPECT_EQ(answer.value().error_body, "full");
  EXPECT_EQ(answer.value().retry_after, "7");
}

TEST(HttpClient, AnAnswerCutShortIsAnError) {
  for (const char* bytes : {"", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nab",
                            "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nab", "nonsense\r\n\r\n"}) {
    Peer peer({bytes});
    const auto answer = client_for(peer)->post(kPost, [](std::string_view) {});
    ASSERT_FALSE(answer.ok()) << bytes;
    EXPECT_NE(answer.error().message.find("lost before the answer was whole"), std::string::npos);
  }
}

TEST(HttpClient, CancelClosesTheConnection) {
  Peer peer({"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n"}, /*wait_for_close=*/true);
  const auto client = client_for(peer);
  std::promise<void> begun;
  std::thread canceller([&] {
    begun.get_future().wait();
    client->cancel();
  });
  const auto answer = client->post(kPost, [&](std::string_view) { begun.set_value(); });
  canceller.join();
  ASSERT_FALSE(answer.ok());
  EXPECT_EQ(answer.error().code, ErrorCode::kCancelled);
  EXPECT_EQ(client->post(kPost, [](std::string_view) {}).error().code, ErrorCode::kCancelled);
}

TEST(HttpClient, NobodyListens) {
  int port = 0;
  {
    const int taken = socket(AF_INET, SOCK_STREAM, 0);  // bound, but not listening
    sockaddr_in address = {};
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    ASSERT_EQ(bind(taken, reinterpret_cast<sockaddr*>(&address), sizeof address), 0);
    socklen_t size = sizeof address;
    getsockname(taken, reinterpret_cast<sockaddr*>(&address), &size);
    port = ntohs(address.sin_port);
    close(taken);
  }
  auto client = HttpClient::open(concat("127.0.0.1:", port));
  ASSERT_TRUE(client.ok());
  const auto answer = client.value()->post(kPost, [](std::string_view) {});
  ASSERT_FALSE(answer.ok());
  EXPECT_EQ(answer.error().code, ErrorCode::kUnavailable);
  EXPECT_EQ(answer.error().message, concat("can't connect to http://127.0.0.1:", port, ": is a server running there?"));
}

TEST(HttpClient, RefusesAddressesThatAreNone) {
  for (const char* url : {"", "http://", "https://example.com", "ftp://x", "http://x:0", "http://x:99999", "http://x:y",
                          "http://:80", "http://a b", "http://x\r\ny", "http://user@x"}) {
    const auto client = HttpClient::open(url);
    ASSERT_FALSE(client.ok()) << url;
    EXPECT_EQ(client.error().code, ErrorCode::kInvalidArgument);
  }
  EXPECT_NE(HttpClient::open("https://x").error().message.find("https"), std::string::npos);
  EXPECT_EQ(HttpClient::open("localhost:80/").value()->url(), "http://localhost:80");
  EXPECT_TRUE(HttpClient::open("http://[::1]:8000").ok());
}

TEST(HttpClient, AHeaderWithALineOfItsOwnIsRefused) {
  auto client = HttpClient::open("http://127.0.0.1:9");
  HttpPost post = kPost;
  post.headers.emplace_back("Authorization", "Bearer a\r\nX: y");
  EXPECT_EQ(client.value()->post(post, [](std::string_view) {}).error().code, ErrorCode::kInvalidArgument);
}

}  // namespace
}  // namespace multiverse

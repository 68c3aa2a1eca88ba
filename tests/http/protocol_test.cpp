// What HTTP itself says, and what the library under the server would do otherwise.
#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/resource.h>
#include <unistd.h>

#include "multiverse/http/server.h"

#include "http/raw_client.h"
#include "support/fake_engine.h"
#include "support/fake_tokenizer.h"

namespace multiverse {
namespace {

using testing::body_of;
using testing::field_of;
using testing::post;
using testing::RawClient;
using testing::status_of;

const std::string kHello = R"({"prompt":"hello"})";
const std::string kTokens = R"({"count":5,"max_model_len":4096,"tokens":[104,101,108,108,111]})";
const std::string kStreamedChat = R"({"messages":[{"role":"user","content":"q"}],"stream":true})";

std::string get(std::string_view path, std::string_view fields = "") {
  return concat("GET ", path, " HTTP/1.1\r\nHost: x\r\n", fields, "\r\n");
}

std::string post_chunked(std::string_view chunks) {
  return concat("POST /tokenize HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n", chunks);
}

class Protocol : public ::testing::Test {
 protected:
  Protocol() : engine_([](const GenerateRequest& request) { return testing::text_script(request, "hello"); }) {
    start({});
  }

  void start(HttpOptions options) {
    options.port = 0;
    options.version = "1";
    auto server = HttpServer::start(std::move(options));
    CHECK(server.ok(), server.error().message);
    server_ = std::move(server).value();
    server_->attach(testing::fake_model(), engine_);
  }
  std::string ask(std::string_view bytes) const {
    RawClient client(server_->port());
    client.send(bytes);
    return client.read_answer();
  }

  testing::FakeEngine engine_;
  std::unique_ptr<HttpServer> server_;
};

TEST_F(Protocol, RangesAreNotServed) {
  for (const char* range : {"bytes=0-3", "bytes=0-3, 5-6", "bytes=100000-", "bytes=-2", "nonsense", "bytes=3-1"}) {
    const std::string answer = ask(get("/version", concat("Range: ", range, "\r\n")));
    EXPECT_EQ(status_of(answer), 200) << range;
    EXPECT_EQ(body_of(answer), R"({"version":"1"})") << range;
    EXPECT_EQ(answer.find("Range"), std::string::npos) << answer;
  }
  EXPECT_EQ(body_of(ask(post("/tokenize", kHello, "Range: bytes=0-3\r\n"))), kTokens);
}

TEST_F(Protocol, NothingIsCompressed) {
  const std::string wish = "Accept-Encoding: gzip, deflate, br\r\n";
  for (const std::string& request :
       {get("/version", wish), get("/metrics", wish), post("/tokenize", kHello, wish), get("/nothing", wish)}) {
    const std::string answer = ask(request);
    EXPECT_EQ(field_of(answer, "Content-Encoding"), "") << request;
    EXPECT_NE(field_of(answer, "Content-Length"), "") << request;
  }
  RawClient client(server_->port());
  client.send(post("/v1/chat/completions", kStreamedChat, wish));
  EXPECT_EQ(field_of(client.read_until("\r\n\r\n"), "Content-Encoding"), "");
  EXPECT_NE(client.read_until("\r\n0\r\n\r\n").find("data: [DONE]\n\n"), std::string::npos);
}

TEST_F(Protocol, CompressedAndMultipartBodiesAreRefused) {
  for (const char* encoding : {"gzip", "br", "deflate", "identity, gzip"}) {
    EXPECT_EQ(status_of(ask(post("/tokenize", kHello, concat("Content-Encoding: ", encoding, "\r\n")))), 415);
  }
  for (const char* type :
       {"multipart/form-data; boundary=x", "application/x-www-form-urlencoded", "application/jsonx"}) {
    const std::string request = concat("POST /tokenize HTTP/1.1\r\nHost: x\r\nContent-Type: ", type,
                                       "\r\nContent-Length: ", kHello.size(), "\r\n\r\n", kHello);
    EXPECT_EQ(status_of(ask(request)), 415) << type;
  }
}

TEST_F(Protocol, HeadIsGetWithoutABody) {
  RawClient client(server_->port());
  for (const char* path : {"/version", "/v1/models", "/nothing", "/tokenize"}) {
    client.send(get(path));
    const std::string whole = client.read_answer();
    client.send(concat("HEAD ", path, " HTTP/1.1\r\nHost: x\r\n\r\n"));
    const std::string head = client.read_until("\r\n\r\n");
    EXPECT_EQ(status_of(head), status_of(whole)) << path;
    EXPECT_EQ(field_of(head, "Content-Length"), std::to_string(body_of(whole).size())) << path;
    EXPECT_EQ(field_of(head, "Content-Type"), field_of(whole, "Content-Type")) << path;
    EXPECT_EQ(field_of(head, "Accept-Ranges"), "") << path;
  }
  // No byte of a body was between them.
  client.send(get("/version"));
  EXPECT_EQ(body_of(client.read_answer()), R"({"version":"1"})");
}

TEST_F(Protocol, OtherMethodsAreNotAllowed) {
  for (const char* method : {"PUT", "DELETE", "OPTIONS", "PATCH", "TRACE", "CONNECT"}) {
    const std::string answer = ask(concat(method, " /tokenize HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n{}"));
    EXPECT_EQ(status_of(answer), 405) << method;
    EXPECT_EQ(field_of(answer, "Allow"), "POST") << method;
    EXPECT_EQ(field_of(answer, "Connection"), "close") << method;  // its body was not read
    EXPECT_EQ(body_of(answer).substr(0, 21), R"({"error":{"message":")") << method;
  }
  EXPECT_EQ(field_of(ask(post("/version", "")), "Allow"), "GET, HEAD");
}

TEST_F(Protocol, MethodsThatHttpLacksAreNotImplemented) {
  for (const char* method : {"BREW", "get", "PRI", "GETGET"}) {
    const std::string answer = ask(concat(method, " /version HTTP/1.1\r\nHost: x\r\n\r\n"));
    EXPECT_EQ(status_of(answer), 501) << method;
    EXPECT_EQ(body_of(answer).substr(0, 21), R"({"error":{"message":")") << method;
  }
}

TEST_F(Protocol, PathsAreTakenAsSent) {
  // httplib would decode them, and run a regular expression over them.
  EXPECT_EQ(status_of(ask(get("/vers%69on"))), 404);
  EXPECT_EQ(status_of(ask(get("/version?a=%zz&&=#x"))), 200);
  EXPECT_EQ(status_of(ask(get("/version?a?b"))), 200);
  EXPECT_EQ(status_of(ask(get("/" + std::string(8 * 1024 - 14, 'a')))), 404);
  EXPECT_EQ(status_of(ask(get("/" + std::string(8 * 1024 - 13, 'a')))), 414);
}

TEST_F(Protocol, PipelinedRequestsOfAllKindsAreKeptApart) {
  RawClient client(server_->port());
  const std::string round =
      get("/version") +
      post_chunked("5\r\n" + kHello.substr(0, 5) + "\r\nd;x=\"y\"\r\n" + kHello.substr(5) + "\r\n0\r\nT: 1\r\n\r\n") +
      post("/tokenize", kHello) + "HEAD /version HTTP/1.1\r\nHost: x\r\n\r\n" +
      post("/v1/chat/completions", kStreamedChat);
  client.send(round + round + round);
  for (int i = 0; i < 3; ++i) {
    EXPECT_EQ(body_of(client.read_answer()), R"({"version":"1"})");
    EXPECT_EQ(body_of(client.read_answer()), kTokens);
    EXPECT_EQ(body_of(client.read_answer()), kTokens);
    EXPECT_EQ(status_of(client.read_until("\r\n\r\n")), 200);
    EXPECT_EQ(field_of(client.read_until("\r\n\r\n"), "Transfer-Encoding"), "chunked");
    EXPECT_NE(testing::dechunked(client.read_until("\r\n0\r\n\r\n")).find("[DONE]"), std::string::npos);
  }
}

TEST_F(Protocol, ChunkSizesAreHexadecimalDigitsAlone) {
  for (const char* size : {"-2", "-0", "+12", "0x12", " 12", "12 ;", "fffffffffffffffff", "ffffffffffffffff",
                           "fffffffffffffffe", "00000000000000012", "12g", ";12", "1 2"}) {
    const std::string answer = ask(post_chunked(concat(size, "\r\n", kHello, "\r\n0\r\n\r\n")));
    if (std::string_view(size) == "12 ;") {  // white space before an extension is RFC 9112's "BWS"
      EXPECT_EQ(status_of(answer), 200) << size;
    } else {
      EXPECT_EQ(status_of(answer), 400) << size;
      EXPECT_EQ(field_of(answer, "Connection"), "close") << size;
    }
  }
  for (const std::string& chunks :
       {"12\r\n" + kHello + "0\r\n\r\n", "12\n" + kHello + "\n0\n\n", "12\r\n" + kHello + "\r\n0\r\nno-crlf\n\n",
        "12\r\n" + kHello + "\r\nx\r\n0\r\n\r\n"}) {
    EXPECT_EQ(status_of(ask(post_chunked(chunks))), 400) << chunks;
  }
  std::string trailers;
  for (int i = 0; i < 1000; ++i) trailers += "T: 1\r\n";
  EXPECT_EQ(status_of(ask(post_chunked("12\r\n" + kHello + "\r\n0\r\n" + trailers + "\r\n"))), 400);
}

TEST_F(Protocol, BytesMayComeOneByOne) {
  std::string chunks;
  for (const char c : kHello) chunks += concat("1\r\n", std::string_view(&c, 1), "\r\n");
  for (const std::string& request :
       {post_chunked(chunks + "0\r\n\r\n"), post("/tokenize", kHello), get("/version") + "\r\n"}) {
    RawClient client(server_->port());
    for (const char c : request) client.send({&c, 1});
    EXPECT_EQ(status_of(client.read_answer()), 200) << request;
  }
}

TEST_F(Protocol, ABodyThatIsNotWantedIsNotAskedFor) {
  HttpOptions options;
  options.api_keys = {"secret"};
  options.max_body_bytes = 100;
  start(options);
  const std::string key = "Authorization: Bearer secret\r\n";
  const auto expect = [&](int status, std::string_view fields, std::string_view path) {
    const std::string answer =
        ask(concat("POST ", path, " HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\n", fields, "\r\n"));
    EXPECT_EQ(status_of(answer), status) << answer;
    EXPECT_EQ(field_of(answer, "Connection"), "close");
  };
  expect(401, "Content-Length: 10\r\n", "/tokenize");
  expect(404, key + "Content-Length: 10\r\n", "/nothing");
  expect(413, key + "Content-Length: 101\r\n", "/tokenize");
  expect(413, key + "Content-Length: 18446744073709551615\r\n", "/tokenize");
  expect(415, key + "Content-Length: 10\r\nContent-Type: text/plain\r\n", "/tokenize");
}

TEST_F(Protocol, APostWithoutALengthHasNoBody) {
  RawClient client(server_->port());
  client.send("POST /tokenize HTTP/1.1\r\nHost: x\r\n\r\n" + get("/version"));
  EXPECT_EQ(status_of(client.read_answer()), 400);
  EXPECT_EQ(body_of(client.read_answer()), R"({"version":"1"})");
}

TEST_F(Protocol, ABodyThatBreaksOffIsRefused) {
  for (const std::string& request : {post("/tokenize", kHello), post_chunked("12\r\n" + kHello)}) {
    RawClient client(server_->port());
    client.send(request.substr(0, request.size() - 1));
    client.half_close();
    EXPECT_EQ(status_of(client.read_all()), 400) << request;
  }
}

TEST_F(Protocol, Http10ClosesUnlessAskedToStay) {
  RawClient closed(server_->port());
  closed.send("GET /version HTTP/1.0\r\n\r\n");
  const std::string answer = closed.read_all();
  EXPECT_EQ(field_of(answer, "Connection"), "close");
  EXPECT_EQ(body_of(answer), R"({"version":"1"})");
  RawClient kept(server_->port());
  for (int i = 0; i < 3; ++i) {
    kept.send("GET /version HTTP/1.0\r\nConnection: keep-alive\r\n\r\n");
    EXPECT_EQ(field_of(kept.read_answer(), "Connection"), "keep-alive");
  }
}

TEST_F(Protocol, AConnectionServesAThousandRequests) {
  RawClient client(server_->port());
  for (int i = 0; i < 1000; ++i) {
    client.send(i % 2 == 0 ? get("/version") : post("/tokenize", kHello));
    const std::string answer = client.read_answer();
    ASSERT_EQ(status_of(answer), 200) << i;
    ASSERT_EQ(field_of(answer, "Connection"), "") << i;
  }
}

TEST_F(Protocol, AnEndlessHeaderLineIsCutOff) {
  RawClient client(server_->port());
  client.send("GET / HTTP/1.1\r\nHost: x\r\nX: ");
  const std::string part(1 << 20, 'a');
  for (int i = 0; i < 64; ++i) client.send(part);  // stops where the server has closed
  const std::string answer = client.read_all();
  EXPECT_TRUE(answer.empty() || status_of(answer) == 431) << answer;  // a reset may overtake the answer
  EXPECT_EQ(status_of(ask(get("/livez"))), 200);
}

// select() could not take these; httplib answers 500 where it was built for it.
TEST_F(Protocol, DescriptorsMayBeLarge) {
  rlimit limit{};
  ASSERT_EQ(getrlimit(RLIMIT_NOFILE, &limit), 0);
  if (limit.rlim_max < 2048) GTEST_SKIP() << "at most " << limit.rlim_max << " open files are allowed here";
  const rlimit before = limit;
  limit.rlim_cur = std::max<rlim_t>(limit.rlim_cur, 2048);
  ASSERT_EQ(setrlimit(RLIMIT_NOFILE, &limit), 0);
  std::vector<int> taken;
  while (taken.empty() || taken.back() < 1100) taken.push_back(open("/dev/null", O_RDONLY | O_CLOEXEC));
  EXPECT_EQ(status_of(ask(get("/livez"))), 200);
  EXPECT_EQ(body_of(ask(post("/tokenize", kHello))), kTokens);
  for (const int fd : taken) close(fd);
  ASSERT_EQ(setrlimit(RLIMIT_NOFILE, &before), 0);
}

}  // namespace
}  // namespace multiverse

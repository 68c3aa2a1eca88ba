// What the prefix index finds again, and for whom.
#include <gtest/gtest.h>

#include "multiverse/scheduler/scheduler.h"

#include "tests/support/event_text.h"
#include "tests/support/fake_dialect.h"
#include "tests/support/fake_executor.h"
#include "tests/support/manual_clock.h"
#include "tests/support/run_scheduler.h"

namespace multiverse::testing {
namespace {

struct Server {
  explicit Server(std::int32_t pages = 2000) : executor(pages, structured_policy(Habits{.block = 0.06})) {
    config.tree = {1 << 20, 1'000'000, {kEndOfText}, 0};
    scheduler = std::make_unique<Scheduler>(executor, &dialect, config, clock);
  }
  std::vector<Event> run(GenerateRequest request) {
    scheduler->add(++id, std::move(request));
    return run_all(*scheduler).at(id);
  }
  static std::int64_t cached(const std::vector<Event>& events) {
    return std::get<FinishedEvent>(events.back()).cached_tokens;
  }

  const Dialect dialect = fake_dialect();
  FakeExecutor executor;
  const ManualClock clock;
  SchedulerConfig config;
  std::unique_ptr<Scheduler> scheduler;
  RequestId id = 0;
};

GenerateRequest request_of(std::vector<TokenId> prompt, std::int32_t max_tokens = 8000) {
  GenerateRequest request;
  request.prompt = std::move(prompt);
  request.max_tokens = max_tokens;
  return request;
}

// A prompt whose answer has blocks and at least 2,000 tokens.
GenerateRequest long_structured_request(Server& server, std::vector<TokenId>& text) {
  for (std::uint64_t seed = 0; seed < 1000; ++seed) {
    GenerateRequest request = request_of({40, 41, 42, 43, 44});
    request.seed = seed;
    request.min_tokens = 1900;
    const CanonicalSample sample = canonical_sample(server.run(request), 0);
    if (sample.ends[0].reason != FinishReason::kStop || sample.ends[0].parallel.paths < 10) continue;
    text = request.prompt;
    for (const TokenEvent& token : sample.tokens) text.push_back(token.token);
    if (text.size() >= 2000) return request;
  }
  CHECK(false, "no seed makes a long answer");
  return {};
}

TEST(PrefixIndex, ASecondTurnFindsAllFullPagesOfAStructuredHistory) {
  Server server(20'000);
  std::vector<TokenId> text;
  const GenerateRequest first = long_structured_request(server, text);
  const std::size_t history = text.size();
  for (TokenId word = 0; word < 20; ++word) text.push_back(kWord + word);
  GenerateRequest second = request_of(text, 50);
  second.limits = first.limits;
  const Structure structure = read_structure(text, server.dialect, second.limits);
  ASSERT_GT(structure.segments.size(), 10U);
  std::int64_t full = 0;
  for (const TextSegment& segment : structure.segments) {
    const std::int32_t end = std::min(segment.end, static_cast<std::int32_t>(history));
    full += (end - segment.begin) / kPageTokens * kPageTokens;
  }
  EXPECT_EQ(Server::cached(server.run(second)), full);
  EXPECT_GT(full, 1000);
}

TEST(PrefixIndex, IsSharedOnlyByRequestsOfTheSameSalt) {
  Server server;
  GenerateRequest request = request_of(std::vector<TokenId>(200, 40), 4);
  request.cache_salt = "a";
  EXPECT_EQ(Server::cached(server.run(request)), 0);
  EXPECT_EQ(Server::cached(server.run(request)), 192);
  request.cache_salt = "b";
  EXPECT_EQ(Server::cached(server.run(request)), 0);
  request.cache_salt = "";
  EXPECT_EQ(Server::cached(server.run(request)), 0);
  const SchedulerCounters& counters = server.scheduler->counters();
  EXPECT_EQ(counters.prefix_query_tokens, 4 * 200);
  EXPECT_EQ(counters.cached_prompt_tokens, 192);
}

TEST(PrefixIndex, ForgetsTheTailOfWhatWasUsedLongestAgo) {
  Server server(20);
  const auto prompt = [](TokenId word, std::size_t pages) {
    return std::vector<TokenId>(pages * kPageTokens + 1, word);
  };
  server.run(request_of(prompt(40, 8), 1));
  server.run(request_of(prompt(41, 8), 1));
  EXPECT_EQ(server.scheduler->evictions(), 0);
  EXPECT_EQ(Server::cached(server.run(request_of(prompt(40, 8), 1))), 8 * kPageTokens);  // used last now
  server.run(request_of(prompt(42, 7), 1));
  EXPECT_EQ(server.scheduler->evictions(), 4);
  // Of the second prompt the head is left.
  EXPECT_EQ(Server::cached(server.run(request_of(prompt(41, 8), 1))), 4 * kPageTokens);
}

}  // namespace
}  // namespace multiverse::testing

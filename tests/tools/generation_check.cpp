// Generates what it is told to draw, for the oracle in Python to judge. A line in: JSON with the draws of each branch
// by its address (end-of-text where they run out), and the request's limits. A line out: JSON with the text in
// canonical order, who wrote each token, and what each draw really saw in the executor's pages.
#include <iostream>
#include <map>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "multiverse/scheduler/scheduler.h"

#include "tests/support/event_text.h"
#include "tests/support/fake_dialect.h"
#include "tests/support/fake_executor.h"
#include "tests/support/manual_clock.h"
#include "tests/support/run_scheduler.h"

namespace multiverse::testing {
namespace {

using Json = nlohmann::json;

BranchAddress address_of(const std::string& text) {
  BranchAddress address;
  for (std::size_t begin = 0; begin < text.size();) {
    const std::size_t end = std::min(text.find_first_of("./", begin), text.size());
    address.push_back(std::stoi(text.substr(begin, end - begin)));
    begin = end + 1;
  }
  return address;
}

struct Script {
  std::vector<TokenId> draws;
  std::vector<Json> seen;  // of each draw so far: [token, position] pairs
};

const char* name_of(FinishReason reason) {
  switch (reason) {
    case FinishReason::kStop:
      return "stop";
    case FinishReason::kLength:
      return "length";
    case FinishReason::kCancelled:
      return "cancelled";
    case FinishReason::kError:
      return "error";
  }
  return "";
}

GenerateRequest request_of(const Json& line) {
  GenerateRequest request;
  request.prompt = line.at("prompt").get<std::vector<TokenId>>();
  request.max_tokens = line.value("max_tokens", 0);
  request.stop_tokens = line.value("stop_tokens", std::vector<TokenId>());
  request.limits.max_paths = line.value("max_paths", request.limits.max_paths);
  request.limits.max_depth = line.value("max_depth", request.limits.max_depth);
  request.limits.max_total_paths = line.value("max_total_paths", request.limits.max_total_paths);
  request.limits.max_path_tokens = line.value("max_path_tokens", 0);
  request.limits.max_running_paths = line.value("max_running_paths", 0);
  return request;
}

Json tokens_of(const CanonicalSample& sample, std::map<std::int32_t, Script*>& scripts) {
  std::map<std::int32_t, std::size_t> drawn;
  Json tokens = Json::array();
  for (const TokenEvent& token : sample.tokens) {
    Json described = {{"token", token.token}, {"branch", token.branch}, {"forced", token.forced}};
    if (!token.forced) described["seen"] = scripts.at(token.branch)->seen.at(drawn[token.branch]++);
    tokens.push_back(std::move(described));
  }
  return tokens;
}

Json generate(const Json& line) {
  const Dialect dialect = line.value("flat", false) ? flat_dialect() : fake_dialect();
  std::map<std::uint64_t, Script> by_key;
  const auto script_of = [&by_key](const BranchAddress& address) -> Script& {
    return by_key[branch_random_key(0, address)];
  };
  for (const auto& [address, draws] : line.at("draws").items()) {
    script_of(address_of(address)).draws = draws.get<std::vector<TokenId>>();
  }
  FakeExecutor executor(4000, [&by_key](const std::vector<SeenToken>& seen, const RandomKey& key) {
    Script& script = by_key[key.branch];
    const std::size_t next = script.seen.size();
    Json& pairs = script.seen.emplace_back(Json::array());
    for (const SeenToken& slot : seen) pairs.push_back({slot.token, slot.position});
    return next < script.draws.size() ? script.draws[next] : TokenId{kEndOfText};
  });
  SchedulerConfig config;
  config.tree = {line.value("max_model_len", 100'000), line.value("max_request_tokens", 100'000), {kEndOfText}, 0};
  const ManualClock clock;
  Scheduler scheduler(executor, &dialect, config, clock);
  scheduler.add(1, request_of(line));
  const std::vector<Event> events = run_all(scheduler).at(1);
  std::map<std::int32_t, Script*> scripts = {{0, &script_of({})}};
  for (const Event& event : events) {
    const auto* fork = std::get_if<ForkEvent>(&event);
    if (fork == nullptr) continue;
    for (const ForkEvent::Child& child : fork->children) scripts[child.branch] = &script_of(child.address);
  }
  const CanonicalSample sample = canonical_sample(events, 0);
  const SampleEndEvent& end = sample.ends.at(0);
  return {{"tokens", tokens_of(sample, scripts)},
          {"well_ordered", sample.well_ordered},
          {"reason", name_of(end.reason)},
          {"completion_tokens", end.completion_tokens},
          {"malformed", end.parallel.malformed},
          {"paths", end.parallel.paths},
          {"max_depth", end.parallel.max_depth},
          {"steps", end.parallel.steps},
          {"critical_path_tokens", end.parallel.critical_path_tokens}};
}

}  // namespace
}  // namespace multiverse::testing

int main() {
  for (std::string line; std::getline(std::cin, line);) {
    std::cout << multiverse::testing::generate(nlohmann::json::parse(line)).dump() << "\n";
  }
}

// An engine that plays scripts: what a request's events are, and when they come.
#pragma once

#include <condition_variable>
#include <functional>
#include <memory>
#include <mutex>
#include <set>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "multiverse/engine/engine.h"

namespace multiverse::testing {

class FakeStream;

struct TimedEvent {
  Event event;
  std::chrono::milliseconds after{0};  // the one before
  bool throws = false;                 // instead of handing it out
};
using Script = std::vector<TimedEvent>;

// What a fake request went through, for tests to look at. Any thread.
struct RequestRecord {
  GenerateRequest request;
  bool cancelled = false;
  std::vector<std::pair<std::int32_t, std::int32_t>> cuts;  // sample, branch
};

class FakeEngine final : public Engine {
 public:
  using Player = std::function<Result<Script>(const GenerateRequest&)>;
  explicit FakeEngine(Player player);
  ~FakeEngine() override;

  Result<std::unique_ptr<RequestStream>> submit(GenerateRequest request) override;
  void stop() override {}  // the thread only tells who asked to be told
  EngineStats stats() const override;
  const ExecutorInfo& executor_info() const override { return info_; }
  const EngineConfig& config() const override { return config_; }

  void set_stats(const EngineStats& stats);
  std::vector<RequestRecord> records() const;
  // Waits, 10 s at most, until the newest request is cancelled; false otherwise.
  bool wait_for_cancel() const;

 private:
  friend class FakeStream;
  struct State {  // outlives the engine where a stream does
    mutable std::mutex mutex;
    mutable std::condition_variable changed;
    std::vector<RequestRecord> records;
    EngineStats stats;
    std::set<FakeStream*> told;  // that have someone to be told
    bool stopping = false;
  };
  void tell();
  const Player player_;
  const std::shared_ptr<State> state_ = std::make_shared<State>();
  ExecutorInfo info_;
  EngineConfig config_;
  std::thread teller_;  // last: it uses all of the above
};

// Events of a sample that says `text`, byte by byte, `gap` apart, and ends as told.
Script text_script(const GenerateRequest& request, std::string_view text, std::chrono::milliseconds gap = {},
                   FinishReason reason = FinishReason::kStop);
// One sample's events without the request's end.
void append_text(Script& script, std::int32_t sample, std::string_view text, std::chrono::milliseconds gap = {});
TokenEvent token_event(std::int32_t sample, std::int32_t branch, TokenId token, bool forced = false);
SampleEndEvent sample_end(std::int32_t sample, FinishReason reason, std::int64_t tokens);
FinishedEvent finished(const GenerateRequest& request);

// A block of two paths, the second of which is done before the first: "A" <Parallel> … </Parallel> "Z".
Script two_paths_script(const GenerateRequest& request, std::chrono::milliseconds gap = {});
// Its canonical text.
std::string two_paths_text();

}  // namespace multiverse::testing

// Carries a generation to its client: waits for tokens, watches the client, keeps a silent stream alive.
#pragma once

#include <atomic>
#include <chrono>

#include "multiverse/api/generation.h"

#include "http/exchange.h"
#include "http/metrics.h"

namespace multiverse {

struct LoopOptions {
  std::chrono::milliseconds ping_interval;
  std::chrono::milliseconds first_token_timeout;  // 0: none
  const std::atomic<bool>* aborting;              // ends it with an error
};

class GenerationLoop {
 public:
  GenerationLoop(Exchange& exchange, Generation& generation, GenerationTicket& ticket, LoopOptions options)
      : exchange_(exchange), generation_(generation), ticket_(ticket), options_(options) {}

  // Returns when the stream is written, the answer decided, or the client gone.
  void run(bool stream);

 private:
  using Time = std::chrono::steady_clock::time_point;

  bool pump(bool stream);
  void lose_client();
  void count_end();
  bool client_is_there(bool stream);
  bool first_token_is_late() const;
  // Ends a generation that still runs with an error of ours.
  void give_up(bool stream, Error error, AbortCause cause);
  bool send_events();
  void observe_tokens();
  void observe_end();
  void finish(bool stream);

  Exchange& exchange_;
  Generation& generation_;
  GenerationTicket& ticket_;
  const LoopOptions options_;
  bool complete_ = false;  // it ended well
  bool probed_ = false;
  int looks_left_ = 0;  // after a probe, sooner than usual
  std::int64_t seen_tokens_ = 0;
  double first_token_seconds_ = 0.0;
  Nanoseconds token_gap_{0};  // between the last two arrivals
  Time last_tokens_{}, last_write_{};
};

}  // namespace multiverse

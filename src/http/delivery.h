// One generation on its way to its client: what its events, the client's socket and the clock lead to.
#pragma once

#include <atomic>
#include <chrono>
#include <string>
#include <string_view>

#include "multiverse/api/generation.h"

#include "http/exchange.h"
#include "http/metrics.h"

namespace multiverse {

// Of an answer: the versions of the weights that drew it.
inline constexpr const char* kWeightsField = "X-Weights-Version";

struct DeliveryOptions {
  bool stream = false;  // else one answer at the end
  std::chrono::milliseconds ping_interval{15'000};
  std::chrono::milliseconds first_token_timeout{0};     // 0: none
  std::chrono::milliseconds write_timeout{30'000};      // how long a client may take nothing, or lag too far behind
  std::size_t max_unsent_bytes = std::size_t{1} << 20;  // further behind than this no events are added
  const std::atomic<bool>* aborting = nullptr;          // ends it with an error
};

// Never waits. Made, and concluded, by the connection's thread, which does nothing with the connection in between: then
// a DeliveryLoop's thread calls the rest.
class Delivery {
 public:
  using Time = std::chrono::steady_clock::time_point;

  Delivery(Exchange& exchange, Generation& generation, GenerationTicket& ticket, DeliveryOptions options)
      : exchange_(exchange), generation_(generation), ticket_(ticket), options_(options) {}

  Connection& connection() { return exchange_.connection(); }
  Generation& generation() { return generation_; }

  // These say false when nothing is left to do: all is written or the client is gone.
  bool open(Time now);         // once, before the others
  bool on_events(Time now);    // the engine has sent something
  bool on_writable(Time now);  // the socket takes bytes again
  // The client sends no more. It may still be reading, or have closed: only writing tells, so something harmless is
  // written once. One that has closed resets the connection, and is gone.
  bool on_half_close(Time now);
  bool on_gone();
  bool on_time(Time now);  // now and then

  // Afterwards: counts it, and decides the answer that is no stream. True where a stream came to its end.
  bool conclude();

 private:
  bool write_on(Time now);
  bool flush(Time now);
  void append(std::string_view events, Time now);
  bool lose_client(AbortCause cause);
  bool give_up(Error error, AbortCause cause, Time now);
  void count_end();
  bool first_token_is_late() const;
  void observe_tokens(Time now);
  void observe_end();

  Exchange& exchange_;
  Generation& generation_;
  GenerationTicket& ticket_;
  const DeliveryOptions options_;
  bool running_ = true;    // the generation
  bool complete_ = false;  // it ended well
  bool said_all_ = false;  // the stream's last events are in unsent_, or sent
  bool lost_ = false;      // the client
  bool probed_ = false;
  std::string unsent_;    // whole chunks but for the first
  Time last_progress_{};  // where something is unsent: since when the client has been too slow
  Time last_write_{};
  std::int64_t seen_tokens_ = 0;
  double first_token_seconds_ = 0.0;
  Time last_tokens_{};
};

}  // namespace multiverse

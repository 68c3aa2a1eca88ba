#include "http/generation_loop.h"

#include <algorithm>

#include "multiverse/api/error_body.h"

namespace multiverse {
namespace {

using std::chrono::steady_clock;

// How long a client may be gone unnoticed, beyond the time between two tokens: each token is a look too, and one before
// the next would double the times that the thread wakes.
constexpr std::chrono::milliseconds kLookInterval{30};
constexpr std::chrono::milliseconds kMostGap{60};
// After a probe the answer of a peer that has closed takes one round trip.
constexpr std::chrono::milliseconds kProbeInterval{5};
constexpr int kProbeLooks = 8;

}  // namespace

void GenerationLoop::run(bool stream) {
  last_write_ = steady_clock::now();
  if (stream && !send_events()) {
    lose_client();
  } else {
    while (pump(stream)) {
    }
  }
  observe_end();
  exchange_.prompt_tokens = generation_.prompt_tokens();
  exchange_.completion_tokens = generation_.completion_tokens();
}

// One wait and what follows from it; false at the end.
bool GenerationLoop::pump(bool stream) {
  const auto look = kLookInterval + std::min<Nanoseconds>(token_gap_, kMostGap);
  const bool more = generation_.wait(looks_left_ > 0 ? kProbeInterval : look);
  if (looks_left_ > 0) --looks_left_;
  observe_tokens();
  if (!client_is_there(stream)) {
    lose_client();
    return false;
  }
  if (more && options_.aborting->load()) {
    give_up(stream, {ErrorCode::kUnavailable, "the server is shutting down", "", "draining"}, AbortCause::kDrain);
    return false;
  }
  if (more && first_token_is_late()) {
    give_up(
        stream,
        {ErrorCode::kDeadline, "no token was generated in the time that the server allows; try again later", "", ""},
        AbortCause::kDeadline);
    return false;
  }
  if (!more) {
    count_end();
    finish(stream);
    return false;
  }
  if (stream && !send_events()) {
    lose_client();
    return false;
  }
  return true;
}

void GenerationLoop::lose_client() {
  generation_.cancel();
  exchange_.abandon();
  ticket_.abort(exchange_.slow_reader() ? AbortCause::kSlowReader : AbortCause::kDisconnect);
}

bool GenerationLoop::first_token_is_late() const {
  const auto limit = options_.first_token_timeout;
  return limit.count() > 0 && seen_tokens_ == 0 && exchange_.age() > limit;
}

void GenerationLoop::give_up(bool stream, Error error, AbortCause cause) {
  generation_.fail(std::move(error));
  ticket_.abort(cause);
  finish(stream);
}

void GenerationLoop::count_end() {
  complete_ = !generation_.error();
  if (complete_) {
    ticket_.finish(generation_.finish_reason());
  } else if (generation_.error()->code == ErrorCode::kDeadline) {
    ticket_.abort(AbortCause::kDeadline);
  } else {
    ticket_.finish("error");
  }
}

// A client that sends no more may still be reading. Only an answer to something that we write tells: one that has
// closed resets the connection, which the next look sees.
bool GenerationLoop::client_is_there(bool stream) {
  switch (exchange_.peer()) {
    case Connection::Peer::kOpen:
      return true;
    case Connection::Peer::kGone:
      return false;
    case Connection::Peer::kHalfClosed:
      break;
  }
  if (probed_) return true;
  probed_ = true;
  looks_left_ = kProbeLooks;
  return stream ? exchange_.chunk(": ping\n\n") : exchange_.probe();
}

bool GenerationLoop::send_events() {
  std::string events = generation_.take_events();
  const auto now = steady_clock::now();
  const bool silent = options_.ping_interval.count() > 0 && now - last_write_ >= options_.ping_interval;
  if (events.empty() && silent) events = ": ping\n\n";
  if (events.empty()) return true;
  last_write_ = now;
  return exchange_.chunk(events);
}

void GenerationLoop::finish(bool stream) {
  if (stream) {
    if (generation_.error()) exchange_.close_after();
    if (send_events()) exchange_.end_stream();
    return;
  }
  if (!generation_.error()) return exchange_.send(200, generation_.body());
  exchange_.send_error(*generation_.error());
}

void GenerationLoop::observe_end() {
  Metrics& metrics = ticket_.metrics();
  const double seconds = exchange_.age().count();
  metrics.request_duration.observe(seconds);
  if (!complete_ || seen_tokens_ == 0) return;
  const double queued = std::chrono::duration<double>(generation_.queued()).count();
  metrics.request_queue.observe(queued);
  metrics.request_prefill.observe(std::max(0.0, first_token_seconds_ - queued));
  metrics.request_decode.observe(seconds - first_token_seconds_);
  metrics.request_prompt_tokens.observe(static_cast<double>(generation_.prompt_tokens()));
  metrics.request_generation_tokens.observe(static_cast<double>(generation_.completion_tokens()));
  metrics.request_critical_path_tokens.observe(static_cast<double>(generation_.parallel().critical_path_tokens));
}

void GenerationLoop::observe_tokens() {
  const std::int64_t tokens = generation_.completion_tokens();
  if (tokens == seen_tokens_) return;
  ticket_.metrics().observe(generation_.take_branch_facts());
  const auto now = steady_clock::now();
  if (seen_tokens_ == 0) {
    first_token_seconds_ = exchange_.age().count();
    ticket_.metrics().time_to_first_token.observe(first_token_seconds_);
  } else {
    token_gap_ = now - last_tokens_;
    ticket_.metrics().inter_token_latency.observe(std::chrono::duration<double>(token_gap_).count());
  }
  seen_tokens_ = tokens;
  last_tokens_ = now;
}

}  // namespace multiverse

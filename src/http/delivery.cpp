#include "http/delivery.h"

#include <algorithm>
#include <array>
#include <charconv>

#include "multiverse/api/error_body.h"

namespace multiverse {

namespace {
constexpr std::string_view kPing = ": ping\n\n";

// "3, 4"
std::string list_of(const std::vector<std::uint64_t>& versions) {
  std::string list;
  for (const std::uint64_t version : versions) list += concat(list.empty() ? "" : ", ", version);
  return list;
}

}  // namespace

bool Delivery::open(Time now) {
  last_write_ = now;
  return write_on(now);
}

bool Delivery::on_events(Time now) {
  if (!running_) return true;  // told of events that a look before found
  running_ = generation_.wait(Nanoseconds::zero());
  observe_tokens(now);
  return write_on(now);
}

bool Delivery::on_writable(Time now) {
  return unsent_.empty() || write_on(now);
}

bool Delivery::on_half_close(Time now) {
  if (probed_ || !running_) return true;
  probed_ = true;
  if (options_.stream) {
    append(kPing, now);
  } else if (exchange_.head().http_1_0) {
    return lose_client(AbortCause::kDisconnect);  // the protocol has nothing harmless
  } else {
    unsent_ += "HTTP/1.1 100 Continue\r\n\r\n";  // RFC 9110 lets a server send it at any time
    last_progress_ = now;
  }
  return flush(now);
}

bool Delivery::on_gone() {
  return lose_client(AbortCause::kDisconnect);
}

bool Delivery::on_time(Time now) {
  if (!unsent_.empty() && now - last_progress_ >= options_.write_timeout) return lose_client(AbortCause::kSlowReader);
  if (!running_) return true;
  if (options_.aborting->load()) {
    return give_up({ErrorCode::kUnavailable, "the server is shutting down", "", "draining"}, AbortCause::kDrain, now);
  }
  if (first_token_is_late()) {
    return give_up(
        {ErrorCode::kDeadline, "no token was generated in the time that the server allows; try again later", "", ""},
        AbortCause::kDeadline, now);
  }
  const bool silent = options_.ping_interval.count() > 0 && now - last_write_ >= options_.ping_interval;
  if (!options_.stream || !silent || !unsent_.empty()) return true;
  append(kPing, now);
  return flush(now);
}

bool Delivery::conclude() {
  if (!lost_) count_end();
  observe_end();
  exchange_.prompt_tokens = generation_.prompt_tokens();
  exchange_.completion_tokens = generation_.completion_tokens();
  exchange_.weights_versions = list_of(generation_.weights_versions());
  if (lost_) exchange_.abandon();
  if (lost_ || options_.stream) {
    if (generation_.error()) exchange_.close_after();
    return !lost_;
  }
  exchange_.connection().write(unsent_);
  if (generation_.error()) {
    exchange_.send_error(*generation_.error());
  } else {
    exchange_.add_field(kWeightsField, exchange_.weights_versions);
    exchange_.send(200, generation_.body());
  }
  return true;
}

// Adds what the generation has to say, unless the client is too far behind, and sends what the socket takes.
bool Delivery::write_on(Time now) {
  if (!unsent_.empty() && !flush(now)) return false;
  if (!options_.stream) return running_;
  if (!said_all_ && unsent_.size() <= options_.max_unsent_bytes) {
    said_all_ = !running_;
    append(generation_.take_events(), now);
    if (!flush(now)) return false;
  }
  return !said_all_ || !unsent_.empty();
}

bool Delivery::flush(Time now) {
  const std::size_t before = unsent_.size();
  if (!exchange_.connection().send_some(unsent_)) return lose_client(AbortCause::kDisconnect);
  // A client that takes a little now and then, and so falls ever further behind, makes no progress.
  if (unsent_.size() < before && unsent_.size() <= options_.max_unsent_bytes) last_progress_ = now;
  return true;
}

// As a chunk, where the protocol has them.
void Delivery::append(std::string_view events, Time now) {
  if (events.empty()) return;
  if (unsent_.empty()) last_progress_ = now;
  last_write_ = now;
  if (exchange_.head().http_1_0) {
    unsent_ += events;
    return;
  }
  std::array<char, 16> size;
  const auto end = std::to_chars(size.begin(), size.end(), events.size(), 16).ptr;
  unsent_.append(size.begin(), end);
  unsent_ += "\r\n";
  unsent_ += events;
  unsent_ += "\r\n";
}

bool Delivery::lose_client(AbortCause cause) {
  lost_ = true;
  running_ = false;
  generation_.cancel();
  ticket_.abort(cause);
  return false;
}

// Ends a generation that still runs with an error of ours.
bool Delivery::give_up(Error error, AbortCause cause, Time now) {
  running_ = false;
  generation_.fail(std::move(error));
  ticket_.abort(cause);
  return write_on(now);
}

// Only now: a client that did not get the end of its answer counts as lost. Where we gave up, that is counted.
void Delivery::count_end() {
  complete_ = !generation_.error();
  if (complete_) {
    ticket_.finish(generation_.finish_reason());
  } else if (generation_.error()->code == ErrorCode::kDeadline) {
    ticket_.abort(AbortCause::kDeadline);
  } else {
    ticket_.finish("error");
  }
}

bool Delivery::first_token_is_late() const {
  const auto limit = options_.first_token_timeout;
  return limit.count() > 0 && seen_tokens_ == 0 && exchange_.age() > limit;
}

void Delivery::observe_tokens(Time now) {
  const std::int64_t tokens = generation_.completion_tokens();
  if (tokens == seen_tokens_) return;
  ticket_.metrics().observe(generation_.take_branch_facts());
  if (seen_tokens_ == 0) {
    first_token_seconds_ = exchange_.age().count();
    ticket_.metrics().time_to_first_token.observe(first_token_seconds_);
  } else {
    ticket_.metrics().inter_token_latency.observe(std::chrono::duration<double>(now - last_tokens_).count());
  }
  seen_tokens_ = tokens;
  last_tokens_ = now;
}

void Delivery::observe_end() {
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

}  // namespace multiverse

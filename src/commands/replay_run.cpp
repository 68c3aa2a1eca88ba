#include "commands/replay_run.h"

#include <chrono>
#include <cmath>
#include <limits>
#include <map>
#include <utility>

namespace multiverse {
namespace {

using SteadyTime = std::chrono::steady_clock::time_point;

double seconds_between(SteadyTime begin, SteadyTime end) {
  return std::chrono::duration<double>(end - begin).count();
}

// Takes the events of one request, and knows where in the text each token stands.
class Listener {
 public:
  // `forced`: the tokens that come are the recording's.
  Listener(const Recording& recording, bool forced, ReplayRun& run)
      : recording_(recording), forced_(forced), run_(run) {
    branches_[0].written = first_own_index();
  }

  void take(const Event& event) {
    if (const auto* token = std::get_if<TokenEvent>(&event)) {
      take_token(*token);
    } else if (const auto* fork = std::get_if<ForkEvent>(&event)) {
      for (const ForkEvent::Child& child : fork->children) branches_[child.branch] = {child.address, 0};
    } else if (const auto* prompt = std::get_if<PromptEvent>(&event)) {
      for (std::size_t i = 0; i < prompt->logprobs.size(); ++i) {
        if (prompt->logprobs[i]) run_.logprobs[i] = prompt->logprobs[i]->logprob;
      }
    } else if (const auto* end = std::get_if<SampleEndEvent>(&event)) {
      reason_ = end->reason;
      written_ = end->completion_tokens;
    } else if (const auto* finished = std::get_if<FinishedEvent>(&event)) {
      cached_tokens_ = finished->cached_tokens;
      error_ = finished->error;
    }
  }

  bool drew() const { return drew_; }
  FinishReason reason() const { return reason_; }
  std::int64_t written() const { return written_; }
  std::int64_t cached_tokens() const { return cached_tokens_; }
  const std::optional<Error>& error() const { return error_; }

 private:
  struct Branch {
    BranchAddress address;
    std::int32_t written = 0;
  };

  // Among the root's own tokens, of the answer's first.
  std::int32_t first_own_index() const {
    std::int32_t index = 0;
    while (true) {
      const std::int32_t place = recording_.text_index({}, index);
      if (place < 0 || place >= recording_.prompt_tokens()) return index;
      ++index;
    }
  }

  void take_token(const TokenEvent& token) {
    drew_ = true;
    if (!forced_) return;
    Branch& branch = branches_[token.branch];
    const std::int32_t place = recording_.text_index(branch.address, branch.written++);
    if (place >= 0 && !token.forced) run_.logprobs[static_cast<std::size_t>(place)] = token.logprob;
  }

  const Recording& recording_;
  const bool forced_;
  ReplayRun& run_;
  std::map<std::int32_t, Branch> branches_;
  bool drew_ = false;
  FinishReason reason_ = FinishReason::kError;
  std::int64_t written_ = 0, cached_tokens_ = 0;
  std::optional<Error> error_;
};

}  // namespace

GenerateRequest Replayer::forced(const std::shared_ptr<const Recording>& recording, Mode mode,
                                 const std::string& cache_salt) const {
  GenerateRequest request;
  const auto answer = recording->text().begin() + recording->prompt_tokens();
  request.prompt.assign(recording->text().begin(), answer);
  request.max_tokens = static_cast<std::int32_t>(recording->text().end() - answer);
  request.ignore_eos = true;
  request.mode = mode;
  request.top_logprobs = 0;
  request.cache_salt = cache_salt;
  request.recording = recording;
  request.limits = limits_;
  return request;
}

Result<ReplayRun> Replayer::force(const std::shared_ptr<const Recording>& recording, Mode mode,
                                  const std::string& cache_salt) {
  return run(forced(recording, mode, cache_salt), *recording);
}

std::int64_t Replayer::pages() const {
  return engine_.executor_info().num_pages;
}

std::int64_t Replayer::pages_needed(const Recording& recording, std::int32_t count) const {
  const auto tokens = static_cast<std::int64_t>(recording.text().size());
  // Each path and each part between blocks begins a page of its own.
  const std::int64_t segments = recording.statistics().paths + 2 * recording.statistics().blocks + 2;
  return count * ((tokens + kPageTokens - 1) / kPageTokens + segments);
}

Result<double> Replayer::force_batch(const std::shared_ptr<const Recording>& recording, Mode mode, std::int32_t count) {
  const auto salt = [](std::int32_t index) { return concat("batch ", index); };
  for (std::int32_t i = 0; i < count; ++i) {  // prefixes into the cache, one by one
    GenerateRequest prefix = forced(recording, mode, salt(i));
    prefix.recording = nullptr;
    prefix.max_tokens = 1;
    auto done = run(std::move(prefix), *recording);
    if (!done.ok()) return done.error();
  }
  struct Running {
    std::unique_ptr<RequestStream> stream;
    ReplayRun run;
    std::optional<Listener> listener;
    bool ended = false;
  };
  std::vector<Running> all(static_cast<std::size_t>(count));
  for (std::int32_t i = 0; i < count; ++i) {
    Running& one = all[static_cast<std::size_t>(i)];
    one.run.logprobs.assign(recording->text().size(), std::numeric_limits<float>::quiet_NaN());
    one.listener.emplace(*recording, /*forced=*/true, one.run);
    auto stream = engine_.submit(forced(recording, mode, salt(i)));
    if (!stream.ok()) return stream.error();
    one.stream = std::move(stream).value();
  }
  std::optional<SteadyTime> first_draw;
  std::vector<Event> events;
  for (std::size_t left = all.size(); left > 0;) {
    for (Running& one : all) {
      if (one.ended) continue;
      one.ended = !one.stream->wait(std::chrono::microseconds(100), events);
      for (const Event& event : events) one.listener->take(event);
      events.clear();
      if (!first_draw && one.listener->drew()) first_draw = std::chrono::steady_clock::now();
      if (!one.ended) continue;
      --left;
      if (one.listener->error()) return *one.listener->error();
      if (one.listener->reason() != FinishReason::kLength) {
        return invalid_argument("the engine left the recording: the context or the cache is too small for it");
      }
    }
  }
  return first_draw ? seconds_between(*first_draw, std::chrono::steady_clock::now()) : 0.0;
}

Result<ReplayRun> Replayer::prefill(const Recording& recording) {
  GenerateRequest request;
  request.prompt = recording.text();
  request.max_tokens = 1;
  request.prompt_top_logprobs = 0;
  request.cache_salt = "prefill";
  return run(std::move(request), recording);
}

Result<ReplayRun> Replayer::run(GenerateRequest request, const Recording& recording) {
  request.limits = limits_;
  const auto prompt = static_cast<std::int64_t>(request.prompt.size());
  const bool forced = request.recording != nullptr;
  const std::int64_t wanted = request.max_tokens;
  ReplayRun run;
  run.logprobs.assign(recording.text().size(), std::numeric_limits<float>::quiet_NaN());
  const std::int64_t passes_before = engine_.stats().steps_total;
  const SteadyTime begin = std::chrono::steady_clock::now();
  auto stream = engine_.submit(std::move(request));
  if (!stream.ok()) return stream.error();
  Listener listener(recording, forced, run);
  std::optional<SteadyTime> first_draw;
  std::vector<Event> events;
  for (bool more = true; more;) {
    more = stream.value()->wait(std::chrono::seconds(1), events);
    for (const Event& event : events) listener.take(event);
    if (!first_draw && listener.drew()) first_draw = std::chrono::steady_clock::now();
    events.clear();
  }
  const SteadyTime end = std::chrono::steady_clock::now();
  if (listener.error()) return *listener.error();
  if (forced && (listener.reason() != FinishReason::kLength || listener.written() != wanted)) {
    return invalid_argument(concat("the engine followed the recording for ", listener.written(), " of ", wanted,
                                   " tokens: the context or the cache is too small for it"));
  }
  run.passes = engine_.stats().steps_total - passes_before;
  const std::int64_t most = engine_.config().max_prefill_tokens;
  run.prefill_passes = (prompt - listener.cached_tokens() + most - 1) / most;
  run.all_seconds = seconds_between(begin, end);
  run.seconds = first_draw ? seconds_between(*first_draw, end) : 0;
  return run;
}

Difference difference(const ReplayRun& one, const ReplayRun& other) {
  Difference found;
  for (std::size_t i = 0; i < one.logprobs.size(); ++i) {
    if (std::isnan(one.logprobs[i]) || std::isnan(other.logprobs[i])) continue;
    ++found.compared;
    const double apart = std::abs(static_cast<double>(one.logprobs[i]) - static_cast<double>(other.logprobs[i]));
    if (found.token >= 0 && apart <= found.maximum) continue;
    found.maximum = apart;
    found.token = static_cast<std::int32_t>(i);
  }
  return found;
}

std::vector<TextRange> forking_blocks(const std::vector<TokenId>& text, const Dialect& dialect,
                                      const StructureLimits& limits) {
  const auto size = static_cast<std::int32_t>(text.size());
  const Structure structure = read_structure(text, dialect, limits);
  std::vector<TextRange> blocks;
  std::int32_t last_fork = 0, paths_end = 0;
  for (const TextPath& path : structure.paths) {
    if (path.address.size() != 2) continue;
    if (path.address.front() != last_fork) {
      last_fork = path.address.front();
      TextRange block{path.begin, size};
      while (block.begin > 0 && !dialect.opens_block(text[static_cast<std::size_t>(block.begin)])) --block.begin;
      blocks.push_back(block);
    }
    paths_end = path.end;
    int open = 1;  // blocks; those of the conclusion close before this one
    std::int32_t end = paths_end;
    for (; end < size && open > 0; ++end) {
      const TokenId token = text[static_cast<std::size_t>(end)];
      if (dialect.opens_block(token)) ++open;
      if (dialect.closes_block(token)) --open;
    }
    blocks.back().end = end;
  }
  return blocks;
}

}  // namespace multiverse

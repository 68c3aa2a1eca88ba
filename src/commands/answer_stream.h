// A chat answer on its way: a thread reads it, the caller takes its events when it likes.
#pragma once

#include <chrono>
#include <condition_variable>
#include <mutex>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "multiverse/base/status.h"
#include "multiverse/chat/answer_event.h"
#include "multiverse/http/client.h"
#include "multiverse/http/sse.h"

namespace multiverse {

// Used by one thread. Destroying it ends a request that still runs, and the client with it.
class AnswerStream {
 public:
  // `client` outlives it.
  AnswerStream(HttpClient& client, HttpPost request);
  ~AnswerStream();
  AnswerStream(const AnswerStream&) = delete;
  AnswerStream& operator=(const AnswerStream&) = delete;

  // Appends the events that came since the last call. Waits until the answer has ended, or `wait` is over, or, where
  // `at_once`, until there is an event. False once the answer has ended and all its events are taken.
  bool take(std::vector<AnswerEvent>& events, std::chrono::milliseconds wait, bool at_once);

  // After take() returned false: whether the answer came whole. The error is a sentence for the user.
  const Status& outcome() const { return *outcome_; }

 private:
  void read(const HttpPost& request);
  void handle_event(std::string_view data);

  HttpClient& client_;
  SseSplitter splitter_;  // the thread's
  std::string failure_;   // the thread's: what is wrong with the stream
  bool whole_ = false;    // the thread's: [DONE] came
  std::mutex mutex_;
  std::condition_variable changed_;
  std::vector<AnswerEvent> events_;
  std::optional<Status> outcome_;
  std::thread thread_;
};

}  // namespace multiverse

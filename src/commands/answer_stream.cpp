#include "commands/answer_stream.h"

#include <utility>

namespace multiverse {
namespace {

// What a user can do about an answer that is no answer.
std::string remedy(const HttpAnswer& answer) {
  switch (answer.status) {
    case 401:
    case 403:
      return "\ngive a key that the server knows: --api-key KEY, or the environment variable OPENAI_API_KEY";
    case 404:
    case 405:
      return "\nis --url the address of a Multiverse server?";
    case 429:
    case 503:
      return answer.retry_after.empty() ? "\ntry again later" : concat("\ntry again in ", answer.retry_after, " s");
    default:
      return answer.status >= 500 ? "\nthe server's log may say more" : "";
  }
}

Error failed(std::string message) {
  return {ErrorCode::kInternal, std::move(message), "", ""};
}

}  // namespace

AnswerStream::AnswerStream(HttpClient& client, HttpPost request)
    : client_(client), thread_([this, request = std::move(request)] { read(request); }) {}

AnswerStream::~AnswerStream() {
  std::unique_lock lock(mutex_);
  // Again and again, as it may be about to connect.
  while (!outcome_) {
    lock.unlock();
    client_.cancel();
    lock.lock();
    changed_.wait_for(lock, std::chrono::milliseconds(20), [this] { return outcome_.has_value(); });
  }
  lock.unlock();
  thread_.join();
}

bool AnswerStream::take(std::vector<AnswerEvent>& events, std::chrono::milliseconds wait, bool at_once) {
  std::unique_lock lock(mutex_);
  changed_.wait_for(lock, wait, [&] { return outcome_.has_value() || (at_once && !events_.empty()); });
  for (AnswerEvent& event : events_) events.push_back(std::move(event));
  events_.clear();
  return !outcome_;
}

void AnswerStream::read(const HttpPost& request) {
  const Result<HttpAnswer> answer = client_.post(request, [this](std::string_view bytes) {
    if (!failure_.empty()) return;
    const Status added = splitter_.add(bytes, [this](std::string_view data) { handle_event(data); });
    if (!added.ok()) failure_ = added.error().message;
  });
  Status outcome = ok_status();
  if (!failure_.empty()) {
    outcome = failed(std::move(failure_));
  } else if (!answer.ok()) {
    outcome = answer.error();
  } else if (answer.value().status != 200) {
    outcome = failed(concat("the server answered ", answer.value().status, ": ",
                            read_error_message(answer.value().error_body), remedy(answer.value())));
  } else if (!whole_) {
    outcome = failed("the server's answer ended before it was whole");
  }
  const std::lock_guard lock(mutex_);
  outcome_ = std::move(outcome);
  changed_.notify_all();
}

void AnswerStream::handle_event(std::string_view data) {
  if (whole_ || !failure_.empty()) return;
  if (data == "[DONE]") {
    whole_ = true;
    return;
  }
  Result<AnswerEvent> event = read_answer_event(data);
  if (!event.ok() || !event.value().error.empty()) {
    failure_ = event.ok() ? concat("the answer failed: ", event.value().error) : event.error().message;
    return;
  }
  const std::lock_guard lock(mutex_);
  events_.push_back(std::move(event).value());
  changed_.notify_all();
}

}  // namespace multiverse

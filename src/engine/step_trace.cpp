#include "multiverse/engine/step_trace.h"

#include <array>
#include <cerrno>
#include <cstring>

#include "multiverse/base/log.h"

namespace multiverse {
namespace {

// For the closing bracket and what precedes it.
constexpr std::int64_t kRoomToClose = 64;

template <class... Values>
void append(std::string& out, const char* format, Values... values) {
  std::array<char, 512> text;
  const int size = std::snprintf(text.data(), text.size(), format, values...);
  CHECK(size > 0 && size < static_cast<int>(text.size()), "a trace event of ", size, " bytes");
  out.append(text.data(), static_cast<std::size_t>(size));
}

double microseconds(Nanoseconds time) {
  return std::chrono::duration<double, std::micro>(time).count();
}

}  // namespace

Result<std::shared_ptr<StepTrace>> StepTrace::open(const std::string& file, std::int64_t max_bytes) {
  std::FILE* opened = std::fopen(file.c_str(), "w");
  if (opened == nullptr) {
    return invalid_argument(concat("can't write the trace to ", file, ": ", std::strerror(errno)), "trace_file");
  }
  std::setvbuf(opened, nullptr, _IONBF, 0);  // its flushes would cut events in two
  auto trace = std::shared_ptr<StepTrace>(new StepTrace(opened, max_bytes - kRoomToClose));
  trace->events_ = R"([{"ph":"M","pid":1,"tid":1,"name":"thread_name","args":{"name":"engine"}})";
  trace->left_ -= static_cast<std::int64_t>(trace->events_.size());
  trace->flush();
  return trace;
}

StepTrace::~StepTrace() {
  flush();
  if (file_ != nullptr) end(nullptr);
}

void StepTrace::add(const StepRecord& step) {
  if (file_ == nullptr) return;
  const double at = microseconds(step.begin);
  const std::size_t before = events_.size();
  append(events_,
         ",\n{\"ph\":\"X\",\"pid\":1,\"tid\":1,\"name\":\"step\",\"ts\":%.1f,\"dur\":%.1f,\"args\":{\"rows\":%lld,"
         "\"draws\":%lld,"
         "\"forks\":%lld,\"joins\":%lld,\"execution_us\":%.1f}}",
         at, microseconds(step.duration), static_cast<long long>(step.rows), static_cast<long long>(step.draws),
         static_cast<long long>(step.forks), static_cast<long long>(step.joins), microseconds(step.execution));
  append(events_,
         ",\n{\"ph\":\"C\",\"pid\":1,\"name\":\"pages\",\"ts\":%.1f,\"args\":{\"used\":%d,\"cached\":%d,\"free\":%d}}",
         at, step.pages.referenced, step.pages.cached, step.pages.free);
  append(events_,
         ",\n{\"ph\":\"C\",\"pid\":1,\"name\":\"requests\",\"ts\":%.1f,\"args\":{\"running\":%lld,\"waiting\":%lld}}",
         at, static_cast<long long>(step.requests_running), static_cast<long long>(step.requests_waiting));
  for (const RequestId id : step.preempted) {
    append(events_,
           ",\n{\"ph\":\"i\",\"pid\":1,\"tid\":1,\"s\":\"t\",\"name\":\"preempted\",\"ts\":%.1f,\"args\":{\"request\":%"
           "llu}}",
           at, static_cast<unsigned long long>(id));
  }
  left_ -= static_cast<std::int64_t>(events_.size() - before);
  if (left_ < 0) {
    events_.resize(before);
    flush();
    if (file_ != nullptr) end("the trace file has reached its size; it ends here");
  } else if (events_.size() >= kFlushBytes || step.begin - flushed_ >= std::chrono::seconds(1)) {
    flushed_ = step.begin;
    flush();
  }
}

void StepTrace::flush() {
  if (file_ == nullptr) return;
  const bool written = std::fwrite(events_.data(), 1, events_.size(), file_) == events_.size();
  events_.clear();
  if (!written) end("the trace file can't be written any more; it ends here");
}

// `why`: null where that is no news.
void StepTrace::end(const char* why) {
  if (why != nullptr) log(LogLevel::kWarning, why);
  std::fputs("\n]\n", file_);
  std::fclose(file_);
  file_ = nullptr;
}

}  // namespace multiverse

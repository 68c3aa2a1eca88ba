#include "multiverse/chat/answer_event.h"

#include <nlohmann/json.hpp>

namespace multiverse {
namespace {

using Json = nlohmann::json;

// The member, or null where there is none.
const Json& member(const Json& object, const char* name) {
  static const Json kNone;
  if (!object.is_object()) return kNone;
  const auto found = object.find(name);
  return found == object.end() ? kNone : *found;
}

std::string text_of(const Json& object, const char* name) {
  const Json& value = member(object, name);
  return value.is_string() ? value.get<std::string>() : std::string();
}

std::int64_t number_of(const Json& object, const char* name) {
  const Json& value = member(object, name);
  return value.is_number_integer() ? value.get<std::int64_t>() : 0;
}

std::optional<BranchUpdate> read_branch(const Json& branch) {
  if (!branch.is_object() || !member(branch, "id").is_string()) return std::nullopt;
  BranchUpdate update;
  const std::string event = text_of(branch, "event");
  if (event == "fork") {
    update.kind = BranchUpdate::Kind::kFork;
  } else if (event == "end") {
    update.kind = BranchUpdate::Kind::kEnd;
  } else if (event == "join") {
    update.kind = BranchUpdate::Kind::kJoin;
  } else if (event != "token") {
    return std::nullopt;
  }
  update.id = text_of(branch, "id");
  update.label = text_of(branch, "label");
  update.text = text_of(branch, "text");
  update.tokens = number_of(branch, "tokens");
  return update;
}

}  // namespace

Result<AnswerEvent> read_answer_event(std::string_view data) {
  const Json event = Json::parse(data, nullptr, /*allow_exceptions=*/false);
  if (!event.is_object()) return invalid_argument("the server's stream holds an event that is not a JSON object");
  AnswerEvent out;
  if (event.contains("error")) {
    out.error = read_error_message(data);
    return out;
  }
  const Json& choices = member(event, "choices");
  if (choices.is_array() && !choices.empty()) {
    out.content = text_of(member(choices.front(), "delta"), "content");
    out.finish_reason = text_of(choices.front(), "finish_reason");
  }
  out.branch = read_branch(member(event, "branch"));
  const Json& usage = member(event, "usage");
  if (usage.is_object()) {
    const Json& parallel = member(member(usage, "completion_tokens_details"), "parallel");
    out.counts = AnswerCounts{number_of(usage, "completion_tokens"), number_of(parallel, "critical_path_tokens"),
                              number_of(parallel, "steps"), number_of(parallel, "paths")};
  }
  return out;
}

std::string read_error_message(std::string_view body) {
  const Json parsed = Json::parse(body, nullptr, /*allow_exceptions=*/false);
  const Json& error = member(parsed, "error");
  std::string message = error.is_string() ? error.get<std::string>() : text_of(error, "message");
  if (!message.empty()) return message;
  constexpr std::size_t kMostBytes = 300;
  const std::string_view line = body.substr(0, body.find_first_of("\r\n"));
  return line.empty() ? "(no message)" : std::string(line.substr(0, kMostBytes));
}

}  // namespace multiverse

#include <algorithm>

#include "multiverse/base/entropy.h"

#include "api/reply_reader.h"

namespace multiverse {
namespace {

constexpr std::string_view kSpace = " \t\r\n";
constexpr std::size_t kMaxSpace = 64;  // in a row, within a head or a tail

// Reads what a call is made of, from the start of a text that may go on.
class Scan {
 public:
  explicit Scan(std::string_view text) : text_(text) {}

  enum class Fit { kNo, kMaybe, kYes };  // kMaybe: more text decides
  Fit fit() const { return fit_; }
  std::size_t at() const { return at_; }

  Scan& space(std::string_view characters = kSpace) {
    if (fit_ != Fit::kYes) return *this;
    const std::size_t begin = at_;
    at_ = std::min(text_.find_first_not_of(characters, at_), text_.size());
    if (at_ - begin > kMaxSpace) fit_ = Fit::kNo;
    return *this;
  }
  Scan& literal(std::string_view wanted) {
    if (fit_ != Fit::kYes) return *this;
    const std::string_view rest = text_.substr(at_);
    if (rest.substr(0, wanted.size()) == wanted) {
      at_ += wanted.size();
    } else {
      fit_ = wanted.substr(0, rest.size()) == rest ? Fit::kMaybe : Fit::kNo;
    }
    return *this;
  }
  // `"type": "function",`, which some models say first.
  Scan& type_if_there() {
    if (fit_ != Fit::kYes || text_.substr(at_, 2) == "\"n") return *this;
    return literal("\"type\"").space().literal(":").space().literal("\"function\"").space().literal(",").space();
  }
  // One of the names, in quotes.
  Scan& name(const std::vector<std::string>& names, std::string& found) {
    if (fit_ != Fit::kYes) return *this;
    Fit best = Fit::kNo;
    for (const std::string& name : names) {
      Scan one(text_.substr(at_));
      one.literal("\"").literal(name).literal("\"");
      if (one.fit() == Fit::kYes) {
        found = name;
        at_ += one.at();
        return *this;
      }
      if (one.fit() == Fit::kMaybe) best = Fit::kMaybe;
    }
    fit_ = best;
    return *this;
  }

 private:
  std::string_view text_;
  std::size_t at_ = 0;
  Fit fit_ = Fit::kYes;
};

Scan scan_head(std::string_view text, const ToolReading& reading, std::string& name) {
  Scan scan(text);
  if (reading.format == ToolFormat::kQwen) {
    scan.space().literal("<tool_call>").space();
  } else {
    scan.space(" \t\r\n;");
  }
  scan.literal("{").space().type_if_there().literal("\"name\"").space().literal(":").space();
  scan.name(reading.names, name).space().literal(",").space();
  scan.literal(reading.format == ToolFormat::kQwen ? "\"arguments\"" : "\"parameters\"").space().literal(":").space();
  return scan.literal("{");
}

}  // namespace

void ToolCallReader::append(std::string_view text, ChoicePart& out) {
  held_ += text;
  bool more = true;
  while (more && !held_.empty()) {
    switch (state_) {
      case State::kText:
        more = read_text(out);
        break;
      case State::kArguments:
        more = read_arguments(out);
        break;
      case State::kTail:
        more = read_tail();
        break;
    }
  }
}

// Everything up to a head, and that head.
bool ToolCallReader::read_text(ChoicePart& out) {
  const bool anywhere = reading_.format == ToolFormat::kQwen;
  std::size_t at = 0;
  while (at < held_.size()) {
    if (anywhere) at = std::min(held_.find_first_of(" \t\r\n<", at), held_.size());
    if (at == held_.size() || reading_.format == ToolFormat::kNone || (!anywhere && (at > 0 || !may_begin_))) break;
    std::string name;
    const Scan head = scan_head(std::string_view(held_).substr(at), reading_, name);
    if (head.fit() == Scan::Fit::kNo) {
      ++at;
      continue;
    }
    say(std::string_view(held_).substr(0, at), out);
    if (head.fit() == Scan::Fit::kMaybe) {
      held_.erase(0, at);
      return false;
    }
    held_.erase(0, at + head.at() - 1);  // but for the arguments' brace
    begin_call(std::move(name), out);
    return true;
  }
  say(held_, out);
  held_.clear();
  return true;
}

void ToolCallReader::say(std::string_view text, ChoicePart& out) {
  if (text.empty()) return;
  out.text += text;
  may_begin_ = false;
}

void ToolCallReader::begin_call(std::string name, ChoicePart& out) {
  state_ = State::kArguments;
  depth_ = 0;
  in_string_ = escaped_ = false;
  if (calls_++ >= reading_.most) return;
  out.tool_calls.push_back({calls_ - 1, "call_" + random_id(), std::move(name), ""});
}

// Those of calls beyond the most that were asked for are left out.
void ToolCallReader::add_arguments(std::string_view text, ChoicePart& out) {
  if (text.empty() || calls_ > reading_.most) return;
  if (out.tool_calls.empty() || out.tool_calls.back().index != calls_ - 1) {
    out.tool_calls.push_back({calls_ - 1, "", "", ""});
  }
  out.tool_calls.back().arguments += text;
}

bool ToolCallReader::read_arguments(ChoicePart& out) {
  std::size_t at = 0;
  do {
    const char c = held_[at++];
    if (in_string_) {
      in_string_ = escaped_ || c != '"';
      escaped_ = !escaped_ && c == '\\';
    } else if (c == '"') {
      in_string_ = true;
    } else if (c == '{' || c == '[') {
      ++depth_;
    } else if (c == '}' || c == ']') {
      --depth_;
    }
  } while (depth_ > 0 && at < held_.size());
  add_arguments(std::string_view(held_).substr(0, at), out);
  held_.erase(0, at);
  if (depth_ == 0) state_ = State::kTail;
  return true;
}

bool ToolCallReader::read_tail() {
  Scan tail(held_);
  tail.space().literal("}");
  if (reading_.format == ToolFormat::kQwen) tail.space().literal("</tool_call>");
  if (tail.fit() == Scan::Fit::kMaybe) return false;
  if (tail.fit() == Scan::Fit::kYes) held_.erase(0, tail.at());
  state_ = State::kText;
  may_begin_ = tail.fit() == Scan::Fit::kYes;
  return true;
}

// Half a tail says nothing, nor does white space around calls; half a head was text.
void ToolCallReader::finish(ChoicePart& out) {
  const bool only_space = held_.find_first_not_of(kSpace) == std::string::npos;
  if (state_ == State::kText && !(calls_ > 0 && only_space)) say(held_, out);
  held_.clear();
}

}  // namespace multiverse

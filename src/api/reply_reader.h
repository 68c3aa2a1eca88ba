// A chat reply's canonical text, taken apart: thoughts, answer, tool calls. However the text is cut into pieces, the
// parts joined are the same.
#pragma once

#include <cstddef>
#include <cstdint>
#include <deque>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "multiverse/api/job.h"

#include "api/answer.h"

namespace multiverse {

// Finds the thoughts by their tokens, so that a tag that was spelt out in letters opens and closes nothing. Thoughts
// stand at the start of the reply: it opens with the tag, or the prompt did. One thread.
class ThoughtSplitter {
 public:
  enum class Kind { kThought, kTag, kAnswer };
  using Pieces = std::vector<std::pair<Kind, std::string>>;

  // `thinking`: the prompt has opened the thoughts.
  ThoughtSplitter(const ServedModel& model, bool thinking);

  // The next part of the canonical text and the tokens that came with it.
  Pieces append(std::string_view text, const std::vector<CanonicalToken>& tokens);
  Pieces finish();

 private:
  struct Mark {          // a tag's token
    std::size_t offset;  // code points of the reply before it
    bool opens;
  };
  void note(const CanonicalToken& token);
  void emit(Pieces& pieces, Kind kind, std::size_t bytes);

  const std::int32_t open_, close_;  // tokens; -1: the model has none
  const std::string open_tag_, close_tag_;
  Kind kind_;
  bool begun_ = false, closed_ = false;
  std::deque<Mark> marks_;
  std::string held_;
  std::size_t position_ = 0;  // code points before held_
};

// Finds tool calls. A call begins once its head is whole, up to the arguments' brace, and names one of the tools; what
// is not such a head stays text. The arguments are the text from that brace to the one that closes it. Holds back what
// may be a head. One thread.
class ToolCallReader {
 public:
  explicit ToolCallReader(const ToolReading& reading) : reading_(reading) {}

  void append(std::string_view text, ChoicePart& out);
  void finish(ChoicePart& out);
  bool found_calls() const { return calls_ > 0; }

 private:
  enum class State { kText, kArguments, kTail };
  // Each moves on by what it can decide; false where more text is needed.
  bool read_text(ChoicePart& out);
  bool read_arguments(ChoicePart& out);
  bool read_tail();
  void say(std::string_view text, ChoicePart& out);
  void begin_call(std::string name, ChoicePart& out);
  void add_arguments(std::string_view text, ChoicePart& out);

  const ToolReading& reading_;
  State state_ = State::kText;
  std::string held_;
  std::int32_t calls_ = 0;
  bool may_begin_ = true;  // kLlama: nothing but calls so far
  int depth_ = 0;          // of the arguments' braces and brackets
  bool in_string_ = false, escaped_ = false;
};

// Both, as the job wants them. What it doesn't want taken apart stays in the content.
class ReplyReader {
 public:
  // `job` outlives it.
  ReplyReader(const Job& job, const ServedModel& model, const std::vector<TokenId>& prompt);

  void append(std::string_view text, const std::vector<CanonicalToken>& tokens, ChoicePart& out);
  void finish(ChoicePart& out);
  bool found_calls() const { return calls_.found_calls(); }

 private:
  void sort(const ThoughtSplitter::Pieces& pieces, ChoicePart& out);

  const Job& job_;
  ThoughtSplitter thoughts_;
  ToolCallReader calls_;
};

// Whether generation goes on within thoughts that the prompt's last turn has opened.
bool opens_thoughts(const ServedModel& model, const std::vector<TokenId>& prompt);

}  // namespace multiverse

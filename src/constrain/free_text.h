// A reply that may say anything, and hold calls that are governed once they have begun.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "multiverse/constrain/compiler.h"

#include "constrain/automaton.h"

namespace multiverse {

// The tokens that can complete a trigger: only these can be wrong where the text is free. Immutable.
class TriggerTokens {
 public:
  TriggerTokens(const std::string& trigger, const Vocabulary& vocabulary);
  const std::vector<std::int32_t>& tokens() const { return tokens_; }
  bool has_whole() const { return has_whole_; }  // one of them has the whole trigger

 private:
  std::vector<std::int32_t> tokens_;
  bool has_whole_ = false;
};

// `shared` runs the syntax of add_text_with_tool_calls(), and has triggers. The thoughts at the reply's start are free
// throughout; control tokens are part of free text, and nothing that stands before one completes a trigger.
std::shared_ptr<const Constraint> free_text_constraint(std::shared_ptr<SharedAutomaton> shared, ThinkTokens think,
                                                       bool thinking);

}  // namespace multiverse

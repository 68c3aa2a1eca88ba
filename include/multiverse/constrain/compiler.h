// Makes constraints: what a client asks for becomes an automaton over the model's tokens.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "multiverse/base/status.h"
#include "multiverse/constrain/constraint.h"
#include "multiverse/tokenizer/tokenizer.h"

namespace multiverse {

struct ConstraintSpec {
  enum class Kind {
    kJsonObject,  // any JSON object; `text` is empty
    kJsonSchema,  // documents of the JSON Schema `text`
    kRegex,       // texts that the regular expression `text` matches as a whole
    kChoice,      // one of the texts of `text`, a JSON array of strings, none empty
    kToolCalls,   // calls of tools and nothing else; `text` is tool_calls_text()
    // Any text, with calls of tools where it likes: once one has begun, up to its name's quote, it goes on as one.
    kTextWithToolCalls,
  };
  Kind kind = Kind::kJsonObject;
  std::string text;
};

// The tokens that a reply's thoughts stand between; -1 where the model has none.
struct ThinkTokens {
  std::int32_t open = -1, close = -1;
};

// Any thread.
class ConstraintCompiler {
 public:
  // `hidden`, sorted: tokens that constrained text never has (control tokens; special ones never are). `ends`:
  // end-of-text tokens. `vocab_size`: tokens that the model draws from.
  static std::shared_ptr<const ConstraintCompiler> make(const Tokenizer& tokenizer,
                                                        const std::vector<std::int32_t>& hidden,
                                                        std::vector<std::int32_t> ends, std::int32_t vocab_size,
                                                        ThinkTokens think);
  virtual ~ConstraintCompiler() = default;

  // A constraint governs the text after the thoughts where the reply opens with them, else the whole reply. `thinking`:
  // the prompt has opened them already. The same specification is compiled once while it is among the last ones asked
  // for. Work and memory are bounded by the specification's own bounds. The error's param is empty.
  virtual Result<std::shared_ptr<const Constraint>> compile(const ConstraintSpec& spec, bool thinking) const = 0;
};

// The text of ConstraintSpec::Kind::kToolCalls. `before` and `after` stand around each call, which is
// {"name": NAME, ARGUMENTS_KEY: {…}}; from one to `most` calls, a new line between two.
struct ToolSyntax {
  std::string before, arguments_key, after;
  std::int32_t most = 1;
  struct Tool {
    std::string name;
    std::string schema;    // of the arguments, JSON
    bool lenient = false;  // a schema that can't be kept is any JSON object, not an error
  };
  std::vector<Tool> tools;
};
std::string tool_calls_text(const ToolSyntax& syntax);

}  // namespace multiverse

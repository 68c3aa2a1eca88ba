// What goes wrong inside a template, and what keeps a template from running away.
#pragma once

#include <cstddef>
#include <cstdint>
#include <stdexcept>
#include <string>

namespace multiverse::jinja {

// Thrown and caught inside the interpreter only: ChatTemplate turns it into an Error. `line` is 0 until the statement
// or expression at fault is known.
struct TemplateError : std::runtime_error {
  enum class Kind {
    kSyntax,       // the template is not Jinja
    kUnsupported,  // Jinja that this interpreter does not have
    kRuntime,      // what Python would raise as TypeError, UndefinedError, …
    kRaised,       // raise_exception() of the template
    kLimit,        // one of the bounds below
  };

  TemplateError(Kind error_kind, const std::string& message, int error_line = 0)
      : std::runtime_error(message), kind(error_kind), line(error_line) {}

  Kind kind;
  int line;
};

[[noreturn]] inline void fail(const std::string& message) {
  throw TemplateError(TemplateError::Kind::kRuntime, message);
}

// Brackets and blocks inside each other, while parsing: a level costs about 15 stack frames. CPython stops near 100
// too.
inline constexpr int kMaxNesting = 100;
// Depth of an expression tree; chains (`a + b + c …`) grow it without nesting.
inline constexpr int kMaxTreeDepth = 400;
// eval() and exec() frames at once: with sanitizers a frame takes up to 4 KiB, a thread's stack 8 MiB.
inline constexpr int kMaxEvalDepth = 800;
// Lists in lists: bounds the recursion of printing, comparing and destroying.
inline constexpr int kMaxValueDepth = 128;
// As Jinja's sandbox.
inline constexpr std::int64_t kMaxRange = 100'000;
// A template's source; the longest published ones are below 64 KiB.
inline constexpr std::size_t kMaxTemplateBytes = std::size_t{1} << 20;

// Work that one render may do. The base covers every published template many times over (about 100 steps a message);
// what depends on the input grows with it, so that a long conversation is no attack.
inline constexpr std::int64_t kBaseSteps = 1'000'000;
inline constexpr std::int64_t kStepsPerInputValue = 2'000;
inline constexpr std::int64_t kMaxSteps = 50'000'000;  // some seconds: the end of patience
inline constexpr std::int64_t kBaseBytes = std::int64_t{32} << 20;
inline constexpr std::int64_t kBytesPerInputByte = 32;  // a template copies a message a few times (strip, split, +)

class Budget {
 public:
  Budget(std::int64_t steps, std::int64_t bytes) : steps_(steps), bytes_(bytes) {}

  void steps(std::size_t count) {
    if (count > static_cast<std::size_t>(steps_)) {
      throw TemplateError(TemplateError::Kind::kLimit, "the template does too much work for this input");
    }
    steps_ -= static_cast<std::int64_t>(count);
  }
  // Bytes of strings made, kept or not. Call before making them.
  void bytes(std::size_t count) {
    if (count > static_cast<std::size_t>(bytes_)) {
      throw TemplateError(TemplateError::Kind::kLimit, "the template makes too much text for this input");
    }
    bytes_ -= static_cast<std::int64_t>(count);
  }

 private:
  std::int64_t steps_, bytes_;  // left; never negative
};

}  // namespace multiverse::jinja

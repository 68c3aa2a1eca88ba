// Scoped helpers of the interpreter's two source files.
#pragma once

#include "multiverse/base/check.h"

#include "tokenizer/jinja_interpreter.h"

namespace multiverse::jinja {

// A scope below `parent` for as long as this lives.
class Interpreter::InnerScope {
 public:
  InnerScope(Interpreter& interpreter, Scope& parent) : interpreter_(interpreter) {
    auto& free = interpreter_.free_scopes_;
    if (free.empty()) {
      scope_ = &interpreter_.scopes_.emplace_back();
    } else {
      scope_ = free.back();
      free.pop_back();
    }
    scope_->parent = &parent;
  }
  ~InnerScope() {
    if (scope_->kept) return;
    scope_->variables.clear();
    interpreter_.free_scopes_.push_back(scope_);
  }
  InnerScope(const InnerScope&) = delete;
  InnerScope& operator=(const InnerScope&) = delete;

  Scope& operator*() const { return *scope_; }

 private:
  Interpreter& interpreter_;
  Scope* scope_;
};

// One more level of recursion, and one step of work.
class Interpreter::Deeper {
 public:
  explicit Deeper(Interpreter& interpreter) : interpreter_(interpreter) {
    interpreter_.budget_.steps(1);
    if (interpreter_.depth_ >= kMaxEvalDepth) {
      throw TemplateError(TemplateError::Kind::kLimit,
                          concat("macros call each other more deeply than ", kMaxEvalDepth, " levels"));
    }
    ++interpreter_.depth_;
  }
  ~Deeper() { --interpreter_.depth_; }
  Deeper(const Deeper&) = delete;
  Deeper& operator=(const Deeper&) = delete;

 private:
  Interpreter& interpreter_;
};

}  // namespace multiverse::jinja

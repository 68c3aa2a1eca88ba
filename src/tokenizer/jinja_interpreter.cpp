// Statements and variables.
#include "tokenizer/jinja_interpreter.h"

#include <algorithm>

#include "multiverse/base/check.h"

#include "tokenizer/jinja_scope.h"

namespace multiverse::jinja {

Interpreter::Interpreter(const Template& program, Budget& budget) : program_(program), budget_(budget) {
  root_.parent = &globals_;
  define("range", Function::kRange);
  define("namespace", Function::kNamespace);
  define("dict", Function::kDict);
  define("raise_exception", Function::kRaiseException);
  define("strftime_now", Function::kStrftimeNow);
}

void Interpreter::define(std::string_view name, Value value) {
  const auto found = std::find(program_.names.begin(), program_.names.end(), name);
  if (found != program_.names.end()) {
    set(globals_, static_cast<int>(found - program_.names.begin()), std::move(value));
  }
}

Text Interpreter::run() {
  Text out;
  exec(program_.body, root_, out);
  return out;
}

const Value* Interpreter::lookup(const Scope& scope, int name) const {
  for (const Scope* at = &scope; at != nullptr; at = at->parent) {
    for (const auto& [number, value] : at->variables) {
      if (number == name) return &value;
    }
  }
  return nullptr;
}

void Interpreter::set(Scope& scope, int name, Value value) {
  for (auto& [number, present] : scope.variables) {
    if (number == name) {
      present = std::move(value);
      return;
    }
  }
  scope.variables.emplace_back(name, std::move(value));
}

void Interpreter::keep(Scope* scope) {
  for (; scope != nullptr && !scope->kept; scope = scope->parent) scope->kept = true;
}

void Interpreter::assign(const Target& target, const Value& value, Scope& scope) {
  if (target.is_tuple) {
    const std::vector<Value> items = items_of(budget_, value);
    if (items.size() != target.items.size()) {
      fail(concat("cannot unpack ", items.size(), " values into ", target.items.size(), " names"));
    }
    for (std::size_t i = 0; i < items.size(); ++i) assign(target.items[i], items[i], scope);
  } else if (target.attribute.empty()) {
    set(scope, target.name, value);
  } else {
    const Value* object = lookup(scope, target.name);
    if (object == nullptr || !object->is<Namespace*>()) fail("cannot assign attribute on non-namespace object");
    object->as<Namespace*>()->attributes.insert_or_assign(target.attribute, value);
  }
}

void Interpreter::print(const Value& value, Text& out) {
  if (const Text* text = value.text()) {
    budget_.bytes(text->size() + 16 * text->num_runs());
    out.append(*text);
  } else {
    const Text text_of_value = to_text(budget_, value);
    budget_.bytes(text_of_value.size());
    out.append(text_of_value);
  }
}

Interpreter::Flow Interpreter::exec(const Block& block, Scope& scope, Text& out) {
  const Deeper deeper(*this);
  for (const Statement& statement : block) {
    try {
      budget_.steps(1);
      const Flow flow = std::visit([&](const auto& node) { return exec_node(node, scope, out); }, statement.node);
      if (flow != Flow::kNormal) return flow;
    } catch (TemplateError& error) {
      if (error.line == 0) error.line = statement.line;
      throw;
    }
  }
  return Flow::kNormal;
}

Interpreter::Flow Interpreter::exec_node(const TextNode& node, Scope&, Text& out) {
  budget_.bytes(node.text->size());
  out.append(*node.text);
  return Flow::kNormal;
}

Interpreter::Flow Interpreter::exec_node(const PrintNode& node, Scope& scope, Text& out) {
  for (const ExprPtr& value : node.values) print(eval(*value, scope), out);
  return Flow::kNormal;
}

Interpreter::Flow Interpreter::exec_node(const IfNode& node, Scope& scope, Text& out) {
  for (const auto& [condition, body] : node.branches) {
    if (truthy(eval(*condition, scope))) return exec(body, scope, out);
  }
  return exec(node.otherwise, scope, out);
}

Interpreter::Flow Interpreter::exec_node(const ForNode& node, Scope& scope, Text& out) {
  const std::vector<Value> items = items_of(budget_, eval(*node.iterable, scope));
  const auto loop = std::make_shared<Loop>();
  std::size_t at = 0;
  loop->pull = [&]() -> std::optional<Value> {
    while (at < items.size()) {
      const Value& item = items[at++];
      if (node.condition == nullptr) return item;
      const InnerScope inner(*this, scope);
      assign(node.target, item, *inner);
      if (truthy(eval(*node.condition, *inner))) return item;
    }
    return std::nullopt;
  };
  // A template may keep `loop` in a namespace: left behind, it holds nothing, so that no chain of loops comes to be.
  struct Ending {
    Loop& loop;
    ~Ending() {
      loop.pull = nullptr;
      loop.ahead.clear();
      loop.current = loop.previous = Value();
    }
  } const ending{*loop};

  while (loop->advance()) {
    const InnerScope inner(*this, scope);
    set(*inner, program_.loop, loop);
    assign(node.target, loop->current, *inner);
    if (exec(node.body, *inner, out) == Flow::kBreak) return Flow::kNormal;
  }
  if (loop->index0 < 0) return exec(node.otherwise, scope, out);
  return Flow::kNormal;
}

Interpreter::Flow Interpreter::exec_node(const SetNode& node, Scope& scope, Text&) {
  assign(node.target, eval(*node.value, scope), scope);
  return Flow::kNormal;
}

Interpreter::Flow Interpreter::exec_node(const CaptureNode& node, Scope& scope, Text& out) {
  const InnerScope inner(*this, scope);
  Text body;
  const Flow flow = exec(node.body, *inner, body);
  if (flow != Flow::kNormal) return flow;
  set(*inner, program_.capture, make_text(budget_, std::move(body)));
  const Value value = eval(*node.value, *inner);
  if (node.prints) {
    print(value, out);
  } else {
    assign(node.target, value, scope);
  }
  return Flow::kNormal;
}

Interpreter::Flow Interpreter::exec_node(const DefineNode& node, Scope& scope, Text&) {
  keep(&scope);
  set(scope, node.macro->name, Macro{node.macro.get(), &scope});
  return Flow::kNormal;
}

Interpreter::Flow Interpreter::exec_node(const CallBlockNode& node, Scope& scope, Text& out) {
  keep(&scope);  // the called macro may put its caller into a namespace
  const Macro caller{node.caller.get(), &scope};
  const auto& called = std::get<CallNode>(node.call->node);
  const Value callee = eval(*called.callee, scope);
  print(call(callee, arguments(called.arguments, scope), &caller), out);
  return Flow::kNormal;
}

Interpreter::Flow Interpreter::exec_node(const WithNode& node, Scope& scope, Text& out) {
  const InnerScope inner(*this, scope);
  // All values before any name, in the scope outside.
  std::vector<Value> values;
  for (const auto& [target, value] : node.values) values.push_back(eval(*value, scope));
  for (std::size_t i = 0; i < values.size(); ++i) assign(node.values[i].first, values[i], *inner);
  return exec(node.body, *inner, out);
}

Interpreter::Flow Interpreter::exec_node(const GenerationNode& node, Scope& scope, Text& out) {
  const InnerScope inner(*this, scope);
  return exec(node.body, *inner, out);
}

}  // namespace multiverse::jinja

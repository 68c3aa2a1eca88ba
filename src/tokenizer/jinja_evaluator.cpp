// Expressions, calls and the global functions.
#include <algorithm>
#include <ctime>

#include "multiverse/base/check.h"

#include "tokenizer/jinja_interpreter.h"
#include "tokenizer/jinja_scope.h"

namespace multiverse::jinja {

Value Interpreter::eval(const Expr& expr, Scope& scope) {
  const Deeper deeper(*this);
  try {
    return std::visit([&](const auto& node) { return eval_node(node, scope); }, expr.node);
  } catch (TemplateError& error) {
    if (error.line == 0) error.line = expr.line;
    throw;
  }
}

Value Interpreter::eval_node(const NameNode& node, Scope& scope) {
  if (const Value* found = lookup(scope, node.name)) return *found;
  return undefined(concat("'", program_.names[static_cast<std::size_t>(node.name)], "' is undefined"));
}

Value Interpreter::eval_node(const AttributeNode& node, Scope& scope) {
  return get_attribute(budget_, eval(*node.object, scope), node.name);
}

Value Interpreter::eval_node(const ItemNode& node, Scope& scope) {
  const Value object = eval(*node.object, scope);
  return get_item(budget_, object, eval(*node.key, scope));
}

Value Interpreter::eval_node(const SliceNode& node, Scope& scope) {
  const Value object = eval(*node.object, scope);
  const auto bound = [&](const ExprPtr& expr) { return expr == nullptr ? Value(None{}) : eval(*expr, scope); };
  const Value start = bound(node.start), stop = bound(node.stop), step = bound(node.step);
  return get_slice(budget_, object, start, stop, step);
}

Value Interpreter::eval_node(const CallNode& node, Scope& scope) {
  const Value callee = eval(*node.callee, scope);
  return call(callee, arguments(node.arguments, scope), nullptr);
}

Value Interpreter::eval_node(const FilterNode& node, Scope& scope) {
  const Value input = eval(*node.input, scope);
  return node.filter(budget_, input, arguments(node.arguments, scope));
}

Value Interpreter::eval_node(const TestNode& node, Scope& scope) {
  const Value input = eval(*node.input, scope);
  return node.test(budget_, input, arguments(node.arguments, scope));
}

Value Interpreter::eval_node(const UnaryNode& node, Scope& scope) {
  Value operand = eval(*node.operand, scope);
  switch (node.op) {
    case UnaryOp::kNot:
      return !truthy(operand);
    case UnaryOp::kNegate:
      return negate(operand);
    case UnaryOp::kPlus:
      return negate(negate(operand));
  }
  return operand;
}

Value Interpreter::eval_node(const BinaryNode& node, Scope& scope) {
  const Value left = eval(*node.left, scope);
  return binary(budget_, node.op, left, eval(*node.right, scope));
}

Value Interpreter::eval_node(const LogicalNode& node, Scope& scope) {
  Value left = eval(*node.left, scope);
  return truthy(left) == node.is_or ? left : eval(*node.right, scope);
}

Value Interpreter::eval_node(const ConcatNode& node, Scope& scope) {
  Text out;
  for (const ExprPtr& part : node.parts) print(eval(*part, scope), out);
  return make_text(budget_, std::move(out));
}

bool Interpreter::compare(CompareOp op, const Value& a, const Value& b) {
  switch (op) {
    case CompareOp::kEqual:
      return equal(budget_, a, b);
    case CompareOp::kNotEqual:
      return !equal(budget_, a, b);
    case CompareOp::kLess:
      return less(budget_, a, b);
    case CompareOp::kLessEqual:
      return less(budget_, a, b) || equal(budget_, a, b);
    case CompareOp::kGreater:
      return less(budget_, b, a);
    case CompareOp::kGreaterEqual:
      return less(budget_, b, a) || equal(budget_, a, b);
    case CompareOp::kIn:
      return contains(budget_, b, a);
    case CompareOp::kNotIn:
      return !contains(budget_, b, a);
  }
  return false;
}

Value Interpreter::eval_node(const CompareNode& node, Scope& scope) {
  Value left = eval(*node.first, scope);
  for (const auto& [op, expr] : node.rest) {
    Value right = eval(*expr, scope);
    if (!compare(op, left, right)) return false;
    left = std::move(right);
  }
  return true;
}

Value Interpreter::eval_node(const ConditionalNode& node, Scope& scope) {
  if (truthy(eval(*node.condition, scope))) return eval(*node.then, scope);
  if (node.otherwise != nullptr) return eval(*node.otherwise, scope);
  return undefined("the inline if-expression evaluated to false and no else section was defined.");
}

Value Interpreter::eval_node(const SequenceNode& node, Scope& scope) {
  std::vector<Value> items;
  items.reserve(node.items.size());
  for (const ExprPtr& item : node.items) items.push_back(eval(*item, scope));
  return make_sequence(node.kind, std::move(items));
}

Value Interpreter::eval_node(const DictNode& node, Scope& scope) {
  std::vector<std::pair<Value, Value>> entries;
  for (const auto& [key_node, value_node] : node.entries) {
    Value key = eval(*key_node, scope);
    entries.emplace_back(std::move(key), eval(*value_node, scope));
  }
  return make_dict(std::move(entries));
}

Arguments Interpreter::arguments(const ArgumentNodes& nodes, Scope& scope) {
  Arguments out;
  for (const ExprPtr& expr : nodes.positional) out.positional.push_back(eval(*expr, scope));
  for (const auto& [name, expr] : nodes.named) out.named.emplace_back(name, eval(*expr, scope));
  if (nodes.star != nullptr) {
    for (Value& item : items_of(budget_, eval(*nodes.star, scope))) out.positional.push_back(std::move(item));
  }
  if (nodes.double_star != nullptr) {
    const Value named = eval(*nodes.double_star, scope);
    if (named.dict() == nullptr) fail(concat("argument after ** must be a mapping, not ", type_name(named)));
    budget_.steps(named.dict()->entries.size());
    for (const auto& [key, value] : named.dict()->entries) {
      if (key.text() == nullptr) fail("keywords must be strings");
      out.named.emplace_back(key.text()->bytes(), value);
    }
  }
  return out;
}

Value Interpreter::call(const Value& callee, const Arguments& given, const Macro* caller) {
  if (callee.is<Macro>()) return call_macro(callee.as<Macro>(), given, caller);
  if (caller != nullptr) fail("a call block must call a macro");
  if (callee.is<Function>()) return call_function(callee.as<Function>(), given);
  if (callee.is<std::shared_ptr<const Method>>()) {
    const Method& method = *callee.as<std::shared_ptr<const Method>>();
    return method.function(budget_, method.self, given);
  }
  if (callee.is<Undefined>()) fail(*callee.as<Undefined>().why);
  fail(concat("'", type_name(callee), "' object is not callable"));
}

// The given arguments, then the defaults of the others, which may name parameters before them.
void Interpreter::bind_parameters(const Macro& macro, const Arguments& given, Scope& inner) {
  const MacroNode& node = *macro.node;
  const std::string& name = program_.names[static_cast<std::size_t>(node.name)];
  const std::size_t count = node.parameters.size();
  std::vector<Value> varargs;
  for (std::size_t i = 0; i < given.positional.size(); ++i) {
    if (i < count) {
      set(inner, node.parameters[i], given.positional[i]);
    } else {
      varargs.push_back(given.positional[i]);
    }
  }
  if (!varargs.empty() && !node.uses_varargs) {
    fail(concat("macro '", name, "' takes not more than ", count, " argument(s)"));
  }
  std::vector<std::pair<Value, Value>> kwargs;
  for (const auto& [key, value] : given.named) {
    const auto parameter = std::find_if(node.parameters.begin(), node.parameters.end(), [&, &wanted = key](int number) {
      return program_.names[static_cast<std::size_t>(number)] == wanted;
    });
    if (parameter != node.parameters.end()) {
      set(inner, *parameter, value);
    } else if (node.uses_kwargs) {
      kwargs.emplace_back(make_text(budget_, key, Trust::kAll), value);
    } else {
      fail(concat("macro '", name, "' takes no keyword argument '", key, "'"));
    }
  }
  if (node.uses_varargs) set(inner, program_.varargs, make_sequence(SequenceKind::kTuple, std::move(varargs)));
  if (node.uses_kwargs) set(inner, program_.kwargs, make_dict(std::move(kwargs)));
  const std::size_t first_default = count - node.defaults.size();
  for (std::size_t i = 0; i < count; ++i) {
    const int parameter = node.parameters[i];
    const auto bound = std::find_if(inner.variables.begin(), inner.variables.end(),
                                    [&](const auto& variable) { return variable.first == parameter; });
    if (bound != inner.variables.end()) continue;
    set(inner, parameter,
        i >= first_default ? eval(*node.defaults[i - first_default], inner)
                           : undefined(concat("parameter '", program_.names[static_cast<std::size_t>(parameter)],
                                              "' was not provided")));
  }
}

Value Interpreter::call_macro(const Macro& macro, const Arguments& given, const Macro* caller) {
  const Deeper deeper(*this);
  const InnerScope inner(*this, *macro.scope);
  if (macro.node->uses_caller) {
    set(*inner, program_.caller, caller != nullptr ? Value(*caller) : undefined("No caller defined"));
  } else if (caller != nullptr) {
    fail("a call block calls a macro that does not use 'caller'");
  }
  bind_parameters(macro, given, *inner);
  Text out;
  exec(macro.node->body, *inner, out);
  return make_text(budget_, std::move(out));
}

Value Interpreter::make_namespace(const Arguments& given) {
  Namespace& made = namespaces_.emplace_back();
  for (const Value& initial : given.positional) {
    if (initial.dict() == nullptr || given.positional.size() > 1) fail("namespace() takes names and values, or a dict");
    for (const auto& [key, value] : initial.dict()->entries) {
      budget_.steps(1);
      if (key.text() == nullptr) fail("namespace(): a key that is no string");
      made.attributes.insert_or_assign(key.text()->bytes(), value);
    }
  }
  for (const auto& [name, value] : given.named) made.attributes.insert_or_assign(name, value);
  return &made;
}

namespace {

Value make_range(Budget& budget, const Arguments& given) {
  const BoundArguments bound("range", given, {"start", "stop", "step"});
  std::int64_t start = 0, stop = to_integer(bound.require(0), "range()"), step = 1;
  if (bound.get(1) != nullptr) start = std::exchange(stop, to_integer(*bound.get(1), "range()"));
  if (bound.get(2) != nullptr) step = to_integer(*bound.get(2), "range()");
  if (step == 0) fail("range() arg 3 must not be zero");
  std::vector<Value> items;
  for (std::int64_t at = start; step > 0 ? at < stop : at > stop;) {
    if (static_cast<std::int64_t>(items.size()) >= kMaxRange) {
      fail(concat("Range too big. The sandbox blocks ranges larger than MAX_RANGE (", kMaxRange, ")."));
    }
    items.emplace_back(std::int64_t{at});
    if (__builtin_add_overflow(at, step, &at)) break;
  }
  budget.steps(items.size());
  const std::string text =
      step == 1 ? concat("range(", start, ", ", stop, ")") : concat("range(", start, ", ", stop, ", ", step, ")");
  return make_sequence(SequenceKind::kRange, std::move(items), text);
}

Value make_dict_of(Budget& budget, const Arguments& given) {
  std::vector<std::pair<Value, Value>> entries;
  for (const Value& initial : given.positional) {
    if (initial.dict() == nullptr || given.positional.size() > 1) fail("dict() takes names and values, or a dict");
    budget.steps(initial.dict()->entries.size());
    entries = initial.dict()->entries;
  }
  for (const auto& [name, value] : given.named) entries.emplace_back(make_text(budget, name, Trust::kAll), value);
  return make_dict(std::move(entries));
}

// Local time, as datetime.now().strftime().
Value strftime_now(Budget& budget, const Arguments& given) {
  const BoundArguments bound("strftime_now", given, {"format"});
  if (bound.require(0).text() == nullptr) fail("strftime_now() wants a format string");
  const Text& format = *bound.require(0).text();
  if (format.size() > 256) fail("strftime_now(): a format of more than 256 bytes");
  if (format.empty()) return make_text(budget, Text());
  const std::time_t now = std::time(nullptr);
  std::tm local{};
  localtime_r(&now, &local);
  char buffer[8192];  // no directive writes more than 32 bytes
  const std::size_t size = std::strftime(buffer, sizeof buffer, format.bytes().c_str(), &local);
  return make_text(budget, std::string_view(buffer, size), format.trust_at(0));
}

}  // namespace

Value Interpreter::call_function(Function function, const Arguments& given) {
  switch (function) {
    case Function::kRange:
      return make_range(budget_, given);
    case Function::kNamespace:
      return make_namespace(given);
    case Function::kDict:
      return make_dict_of(budget_, given);
    case Function::kRaiseException: {
      const BoundArguments bound("raise_exception", given, {"message"});
      throw TemplateError(TemplateError::Kind::kRaised, to_text(budget_, bound.require(0)).bytes());
    }
    case Function::kStrftimeNow:
      return strftime_now(budget_, given);
  }
  return None{};
}

}  // namespace multiverse::jinja

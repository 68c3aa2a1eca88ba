// Runs a parsed template. One Interpreter renders once, on one thread; the Template may be shared.
#pragma once

#include <deque>
#include <string_view>
#include <utility>
#include <vector>

#include "tokenizer/jinja_ast.h"
#include "tokenizer/jinja_value.h"

namespace multiverse::jinja {

// Variables of a loop's pass, a macro's call, and the like. `kept`: a macro was defined in it or below, which may be
// called after the scope was left, so it lives until the render's end.
struct Scope {
  Scope* parent = nullptr;
  std::vector<std::pair<int, Value>> variables;
  bool kept = false;
};

class Interpreter {
 public:
  Interpreter(const Template& program, Budget& budget);
  Interpreter(const Interpreter&) = delete;
  Interpreter& operator=(const Interpreter&) = delete;

  // A variable for the template to read; of no effect where it reads none of this name.
  void define(std::string_view name, Value value);
  // The rendered text. Throws TemplateError with the line.
  Text run();

 private:
  enum class Flow { kNormal, kBreak, kContinue };
  class InnerScope;
  class Deeper;

  Flow exec(const Block& block, Scope& scope, Text& out);
  Flow exec_node(const TextNode& node, Scope& scope, Text& out);
  Flow exec_node(const PrintNode& node, Scope& scope, Text& out);
  Flow exec_node(const IfNode& node, Scope& scope, Text& out);
  Flow exec_node(const ForNode& node, Scope& scope, Text& out);
  Flow exec_node(const SetNode& node, Scope& scope, Text& out);
  Flow exec_node(const CaptureNode& node, Scope& scope, Text& out);
  Flow exec_node(const DefineNode& node, Scope& scope, Text& out);
  Flow exec_node(const CallBlockNode& node, Scope& scope, Text& out);
  Flow exec_node(const WithNode& node, Scope& scope, Text& out);
  Flow exec_node(const GenerationNode& node, Scope& scope, Text& out);
  Flow exec_node(const BreakNode&, Scope&, Text&) { return Flow::kBreak; }
  Flow exec_node(const ContinueNode&, Scope&, Text&) { return Flow::kContinue; }

  Value eval(const Expr& expr, Scope& scope);
  Value eval_node(const Literal& node, Scope&) { return node.value; }
  Value eval_node(const NameNode& node, Scope& scope);
  Value eval_node(const AttributeNode& node, Scope& scope);
  Value eval_node(const ItemNode& node, Scope& scope);
  Value eval_node(const SliceNode& node, Scope& scope);
  Value eval_node(const CallNode& node, Scope& scope);
  Value eval_node(const FilterNode& node, Scope& scope);
  Value eval_node(const TestNode& node, Scope& scope);
  Value eval_node(const UnaryNode& node, Scope& scope);
  Value eval_node(const BinaryNode& node, Scope& scope);
  Value eval_node(const LogicalNode& node, Scope& scope);
  Value eval_node(const ConcatNode& node, Scope& scope);
  Value eval_node(const CompareNode& node, Scope& scope);
  Value eval_node(const ConditionalNode& node, Scope& scope);
  Value eval_node(const SequenceNode& node, Scope& scope);
  Value eval_node(const DictNode& node, Scope& scope);
  bool compare(CompareOp op, const Value& a, const Value& b);

  Arguments arguments(const ArgumentNodes& nodes, Scope& scope);
  Value call(const Value& callee, const Arguments& given, const Macro* caller);
  Value call_macro(const Macro& macro, const Arguments& given, const Macro* caller);
  void bind_parameters(const Macro& macro, const Arguments& given, Scope& inner);
  Value call_function(Function function, const Arguments& given);
  Value make_namespace(const Arguments& given);

  void print(const Value& value, Text& out);
  void assign(const Target& target, const Value& value, Scope& scope);
  static void set(Scope& scope, int name, Value value);
  const Value* lookup(const Scope& scope, int name) const;
  static void keep(Scope* scope);

  const Template& program_;
  Budget& budget_;
  std::deque<Namespace> namespaces_;
  std::deque<Scope> scopes_;
  std::vector<Scope*> free_scopes_;
  Scope globals_, root_;
  int depth_ = 0;
};

}  // namespace multiverse::jinja

// A parsed template. Immutable; names are numbers into Template::names.
#pragma once

#include <memory>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "tokenizer/jinja_filters.h"
#include "tokenizer/jinja_ops.h"
#include "tokenizer/jinja_value.h"

namespace multiverse::jinja {

struct Expr;
using ExprPtr = std::unique_ptr<const Expr>;

struct ArgumentNodes {
  std::vector<ExprPtr> positional;
  std::vector<std::pair<std::string, ExprPtr>> named;
  ExprPtr star, double_star;  // f(*list, **dict); null where there is none
};

struct Literal {
  Value value;
};
struct NameNode {
  int name;
};
struct AttributeNode {
  ExprPtr object;
  std::string name;
};
struct ItemNode {
  ExprPtr object, key;
};
struct SliceNode {
  ExprPtr object, start, stop, step;  // the bounds: null where left out
};
struct CallNode {
  ExprPtr callee;
  ArgumentNodes arguments;
};
struct FilterNode {
  ExprPtr input;
  FilterFunction filter;
  ArgumentNodes arguments;
};
struct TestNode {
  ExprPtr input;
  TestFunction test;
  ArgumentNodes arguments;
};
enum class UnaryOp { kNot, kNegate, kPlus };
struct UnaryNode {
  UnaryOp op;
  ExprPtr operand;
};
struct BinaryNode {
  BinaryOp op;
  ExprPtr left, right;
};
struct LogicalNode {
  bool is_or;
  ExprPtr left, right;
};
struct ConcatNode {  // a ~ b ~ c
  std::vector<ExprPtr> parts;
};
enum class CompareOp { kEqual, kNotEqual, kLess, kLessEqual, kGreater, kGreaterEqual, kIn, kNotIn };
struct CompareNode {  // a < b < c
  ExprPtr first;
  std::vector<std::pair<CompareOp, ExprPtr>> rest;
};
struct ConditionalNode {
  ExprPtr condition, then, otherwise;  // otherwise: null where left out
};
struct SequenceNode {
  SequenceKind kind;
  std::vector<ExprPtr> items;
};
struct DictNode {
  std::vector<std::pair<ExprPtr, ExprPtr>> entries;
};

struct Expr {
  using Node =
      std::variant<Literal, NameNode, AttributeNode, ItemNode, SliceNode, CallNode, FilterNode, TestNode, UnaryNode,
                   BinaryNode, LogicalNode, ConcatNode, CompareNode, ConditionalNode, SequenceNode, DictNode>;
  Node node;
  int line;
  int depth;  // of the tree below, at most kMaxTreeDepth
};

struct Statement;
using Block = std::vector<Statement>;

// What `set`, `for` and `with` write to: a name, an attribute of a namespace, or several.
struct Target {
  int name = -1;
  std::string attribute;  // "" where it is the name itself
  std::vector<Target> items;
  bool is_tuple = false;
};

// What a call of a macro or of a call block's body runs.
struct MacroNode {
  int name = -1;
  std::vector<int> parameters;
  std::vector<ExprPtr> defaults;  // of the last parameters
  Block body;
  bool uses_caller = false, uses_varargs = false, uses_kwargs = false;
};

struct TextNode {
  TextPtr text;
};
struct PrintNode {
  std::vector<ExprPtr> values;
};
struct IfNode {
  std::vector<std::pair<ExprPtr, Block>> branches;
  Block otherwise;
};
struct ForNode {
  Target target;
  ExprPtr iterable, condition;  // condition: null where there is none
  Block body, otherwise;
};
struct SetNode {
  Target target;
  ExprPtr value;
};
// {% set x %}…{% endset %} and {% filter f %}…{% endfilter %}: the body's text is the value of `capture`, a name that
// no template can write; `value` is that name with filters around it.
struct CaptureNode {
  bool prints;    // filter block
  Target target;  // set block
  ExprPtr value;
  Block body;
};
struct DefineNode {
  std::shared_ptr<const MacroNode> macro;
};
struct CallBlockNode {
  ExprPtr call;
  std::shared_ptr<const MacroNode> caller;
};
struct WithNode {
  std::vector<std::pair<Target, ExprPtr>> values;
  Block body;
};
struct GenerationNode {  // {% generation %}: only a scope of its own
  Block body;
};
struct BreakNode {};
struct ContinueNode {};

struct Statement {
  using Node = std::variant<TextNode, PrintNode, IfNode, ForNode, SetNode, CaptureNode, DefineNode, CallBlockNode,
                            WithNode, GenerationNode, BreakNode, ContinueNode>;
  Node node;
  int line;
};

struct Template {
  Block body;
  std::vector<std::string> names;
  // Numbers of the names that the interpreter itself binds.
  int loop = 0, capture = 0, caller = 0, varargs = 0, kwargs = 0;
};

}  // namespace multiverse::jinja

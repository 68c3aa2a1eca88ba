// The expression parser's tools: tokens, errors and nodes.
#include <algorithm>

#include "multiverse/base/check.h"

#include "tokenizer/jinja_expression_parser.h"

namespace multiverse::jinja {
namespace {

// The greatest depth of the children of a node.
struct ChildDepth {
  int depth = 0;

  void see(const ExprPtr& child) {
    if (child != nullptr) depth = std::max(depth, child->depth);
  }
  void see(const ArgumentNodes& arguments) {
    for (const auto& child : arguments.positional) see(child);
    for (const auto& [name, child] : arguments.named) see(child);
    see(arguments.star), see(arguments.double_star);
  }

  void operator()(const Literal&) {}
  void operator()(const NameNode&) {}
  void operator()(const AttributeNode& node) { see(node.object); }
  void operator()(const ItemNode& node) { see(node.object), see(node.key); }
  void operator()(const SliceNode& node) { see(node.object), see(node.start), see(node.stop), see(node.step); }
  void operator()(const CallNode& node) { see(node.callee), see(node.arguments); }
  void operator()(const FilterNode& node) { see(node.input), see(node.arguments); }
  void operator()(const TestNode& node) { see(node.input), see(node.arguments); }
  void operator()(const UnaryNode& node) { see(node.operand); }
  void operator()(const BinaryNode& node) { see(node.left), see(node.right); }
  void operator()(const LogicalNode& node) { see(node.left), see(node.right); }
  void operator()(const ConcatNode& node) {
    for (const auto& child : node.parts) see(child);
  }
  void operator()(const CompareNode& node) {
    see(node.first);
    for (const auto& [op, child] : node.rest) see(child);
  }
  void operator()(const ConditionalNode& node) { see(node.condition), see(node.then), see(node.otherwise); }
  void operator()(const SequenceNode& node) {
    for (const auto& child : node.items) see(child);
  }
  void operator()(const DictNode& node) {
    for (const auto& [key, value] : node.entries) see(key), see(value);
  }
};

}  // namespace

std::string ExpressionParser::describe(const Token& token) {
  switch (token.kind) {
    case TokenKind::kData:
      return "text";
    case TokenKind::kVariableBegin:
      return "{{";
    case TokenKind::kVariableEnd:
      return "}}";
    case TokenKind::kBlockBegin:
      return "{%";
    case TokenKind::kBlockEnd:
      return "%}";
    case TokenKind::kString:
      return "string";
    case TokenKind::kEnd:
      return "end of template";
    case TokenKind::kName:
    case TokenKind::kInteger:
    case TokenKind::kFloat:
    case TokenKind::kOperator:
      return token.text;
  }
  return token.text;
}

ExpressionParser::Nested::Nested(ExpressionParser& parser) : parser_(parser) {
  if (++parser.nesting_ > kMaxNesting) {
    --parser.nesting_;  // no destructor runs after a throw here
    throw TemplateError(TemplateError::Kind::kLimit, concat("nested more than ", kMaxNesting, " deep"),
                        parser.current().line);
  }
}

bool ExpressionParser::at_operator(std::string_view text) const {
  return current().kind == TokenKind::kOperator && current().text == text;
}

bool ExpressionParser::at_name(std::string_view text) const {
  return current().kind == TokenKind::kName && current().text == text;
}

bool ExpressionParser::skip_operator(std::string_view text) {
  if (!at_operator(text)) return false;
  advance();
  return true;
}

bool ExpressionParser::skip_name(std::string_view text) {
  if (!at_name(text)) return false;
  advance();
  return true;
}

void ExpressionParser::expect_operator(std::string_view text) {
  if (!skip_operator(text)) fail_unexpected(text);
}

void ExpressionParser::expect_name(std::string_view text) {
  if (!skip_name(text)) fail_unexpected(text);
}

void ExpressionParser::expect(TokenKind kind, const char* what) {
  if (current().kind != kind) fail_unexpected(what);
  advance();
}

std::string ExpressionParser::take_name(const char* what) {
  if (current().kind != TokenKind::kName) fail_unexpected(what);
  std::string name = current().text;
  advance();
  return name;
}

void ExpressionParser::fail_here(const std::string& message) const {
  throw TemplateError(TemplateError::Kind::kSyntax, message, current().line);
}

void ExpressionParser::fail_unexpected(std::string_view wanted) const {
  fail_here(concat("expected '", wanted, "', got '", describe(current()), "'"));
}

void ExpressionParser::fail_unsupported(const std::string& what, int line) {
  throw TemplateError(TemplateError::Kind::kUnsupported, what + " is not supported", line);
}

int ExpressionParser::intern(const std::string& name) {
  const auto [found, added] = numbers_.emplace(name, static_cast<int>(names_.size()));
  if (added) names_.push_back(name);
  return found->second;
}

ExprPtr ExpressionParser::make(int line, Expr::Node node) const {
  ChildDepth children;
  std::visit(children, node);
  if (children.depth >= kMaxTreeDepth) {
    throw TemplateError(TemplateError::Kind::kLimit, concat("an expression of more than ", kMaxTreeDepth, " levels"),
                        line);
  }
  return std::make_unique<const Expr>(Expr{std::move(node), line, children.depth + 1});
}

}  // namespace multiverse::jinja

#include "tokenizer/jinja_expression_parser.h"

#include <algorithm>
#include <charconv>
#include <cstdlib>

#include "multiverse/base/check.h"

namespace multiverse::jinja {
namespace {

Value text_literal(std::string_view bytes) {
  return std::make_shared<const Text>(bytes, Trust::kAll);
}

}  // namespace

ExprPtr ExpressionParser::expression() {
  const Nested nested(*this);
  return conditional();
}

ExprPtr ExpressionParser::expression_without_condition() {
  const Nested nested(*this);
  return logical_or();
}

ExprPtr ExpressionParser::expression_list(bool with_condition, std::string_view end_name) {
  const int line = current().line;
  const auto at_end = [&] {
    const TokenKind kind = current().kind;
    return kind == TokenKind::kVariableEnd || kind == TokenKind::kBlockEnd || at_operator(")") ||
           (!end_name.empty() && at_name(end_name));
  };
  std::vector<ExprPtr> items;
  bool is_tuple = false;
  while (!at_end()) {
    items.push_back(with_condition ? expression() : expression_without_condition());
    if (!skip_operator(",")) break;
    is_tuple = true;
  }
  if (is_tuple) return make(line, SequenceNode{SequenceKind::kTuple, std::move(items)});
  if (items.empty()) fail_here(concat("expected an expression, got '", describe(current()), "'"));
  return std::move(items.front());
}

ExprPtr ExpressionParser::conditional() {
  const int line = current().line;
  ExprPtr value = logical_or();
  while (skip_name("if")) {
    ExprPtr condition = logical_or();
    ExprPtr otherwise;
    if (skip_name("else")) otherwise = expression();
    value = make(line, ConditionalNode{std::move(condition), std::move(value), std::move(otherwise)});
  }
  return value;
}

ExprPtr ExpressionParser::logical_or() {
  const int line = current().line;
  ExprPtr left = logical_and();
  while (skip_name("or")) left = make(line, LogicalNode{true, std::move(left), logical_and()});
  return left;
}

ExprPtr ExpressionParser::logical_and() {
  const int line = current().line;
  ExprPtr left = logical_not();
  while (skip_name("and")) left = make(line, LogicalNode{false, std::move(left), logical_not()});
  return left;
}

ExprPtr ExpressionParser::logical_not() {
  const int line = current().line;
  if (!skip_name("not")) return comparison();
  const Nested nested(*this);
  return make(line, UnaryNode{UnaryOp::kNot, logical_not()});
}

ExprPtr ExpressionParser::comparison() {
  static const std::map<std::string_view, CompareOp> operators = {
      {"==", CompareOp::kEqual},     {"!=", CompareOp::kNotEqual}, {"<", CompareOp::kLess},
      {"<=", CompareOp::kLessEqual}, {">", CompareOp::kGreater},   {">=", CompareOp::kGreaterEqual}};
  const int line = current().line;
  CompareNode node;
  node.first = sum();
  while (true) {
    const auto found = current().kind == TokenKind::kOperator ? operators.find(current().text) : operators.end();
    if (found != operators.end()) {
      advance();
      node.rest.emplace_back(found->second, sum());
    } else if (skip_name("in")) {
      node.rest.emplace_back(CompareOp::kIn, sum());
    } else if (at_name("not") && next().kind == TokenKind::kName && next().text == "in") {
      advance();
      advance();
      node.rest.emplace_back(CompareOp::kNotIn, sum());
    } else {
      break;
    }
  }
  if (node.rest.empty()) return std::move(node.first);
  return make(line, std::move(node));
}

ExprPtr ExpressionParser::sum() {
  const int line = current().line;
  ExprPtr left = concatenation();
  while (at_operator("+") || at_operator("-")) {
    const BinaryOp op = at_operator("+") ? BinaryOp::kAdd : BinaryOp::kSubtract;
    advance();
    left = make(line, BinaryNode{op, std::move(left), concatenation()});
  }
  return left;
}

ExprPtr ExpressionParser::concatenation() {
  const int line = current().line;
  ConcatNode node;
  node.parts.push_back(product());
  while (skip_operator("~")) node.parts.push_back(product());
  if (node.parts.size() == 1) return std::move(node.parts.front());
  return make(line, std::move(node));
}

ExprPtr ExpressionParser::product() {
  static const std::map<std::string_view, BinaryOp> operators = {
      {"*", BinaryOp::kMultiply}, {"/", BinaryOp::kDivide}, {"//", BinaryOp::kFloorDivide}, {"%", BinaryOp::kModulo}};
  const int line = current().line;
  ExprPtr left = power();
  while (current().kind == TokenKind::kOperator) {
    const auto found = operators.find(current().text);
    if (found == operators.end()) break;
    advance();
    left = make(line, BinaryNode{found->second, std::move(left), power()});
  }
  return left;
}

// To the left, as jinja2 has it and Python hasn't.
ExprPtr ExpressionParser::power() {
  const int line = current().line;
  ExprPtr left = unary(true);
  while (skip_operator("**")) left = make(line, BinaryNode{BinaryOp::kPower, std::move(left), unary(true)});
  return left;
}

ExprPtr ExpressionParser::unary(bool with_filters) {
  const Nested nested(*this);
  const int line = current().line;
  ExprPtr value;
  if (skip_operator("-")) {
    value = make(line, UnaryNode{UnaryOp::kNegate, unary(false)});
  } else if (skip_operator("+")) {
    value = make(line, UnaryNode{UnaryOp::kPlus, unary(false)});
  } else {
    value = primary();
  }
  value = postfix(std::move(value));
  while (with_filters) {
    if (at_operator("|")) {
      value = filter(std::move(value));
    } else if (at_name("is")) {
      value = test(std::move(value));
    } else if (at_operator("(")) {
      value = call(std::move(value));
    } else {
      break;
    }
  }
  return value;
}

ExprPtr ExpressionParser::primary() {
  const Token& token = current();
  switch (token.kind) {
    case TokenKind::kName:
      return name();
    case TokenKind::kString: {
      const int line = token.line;
      std::string text;
      for (; current().kind == TokenKind::kString; advance()) text += current().text;
      return make(line, Literal{text_literal(text)});
    }
    case TokenKind::kInteger: {
      std::int64_t value = 0;
      const char* end = token.text.data() + token.text.size();
      if (std::from_chars(token.text.data(), end, value).ec != std::errc()) fail_here("an integer beyond 64 bits");
      advance();
      return make(token.line, Literal{value});
    }
    case TokenKind::kFloat: {
      const double value = std::strtod(token.text.c_str(), nullptr);
      advance();
      return make(token.line, Literal{value});
    }
    default:
      break;
  }
  if (at_operator("(")) return parenthesised();
  if (at_operator("[")) return list();
  if (at_operator("{")) return dict();
  fail_here(concat("unexpected '", describe(token), "'"));
}

ExprPtr ExpressionParser::name() {
  const int line = current().line;
  const std::string text = take_name("name");
  if (text == "true" || text == "True") return make(line, Literal{true});
  if (text == "false" || text == "False") return make(line, Literal{false});
  if (text == "none" || text == "None") return make(line, Literal{None{}});
  if (text == "cycler" || text == "joiner" || text == "lipsum" || text == "self" || text == "super") {
    fail_unsupported(concat("'", text, "'"), line);
  }
  on_name(text);
  return make(line, NameNode{intern(text)});
}

ExprPtr ExpressionParser::parenthesised() {
  const int line = current().line;
  expect_operator("(");
  if (skip_operator(")")) return make(line, SequenceNode{SequenceKind::kTuple, {}});
  ExprPtr value = expression_list(true);
  expect_operator(")");
  return value;
}

ExprPtr ExpressionParser::list() {
  const int line = current().line;
  SequenceNode node{SequenceKind::kList, {}};
  expect_operator("[");
  while (!skip_operator("]")) {
    if (!node.items.empty()) {
      expect_operator(",");
      if (skip_operator("]")) break;
    }
    node.items.push_back(expression());
  }
  return make(line, std::move(node));
}

ExprPtr ExpressionParser::dict() {
  const int line = current().line;
  DictNode node;
  expect_operator("{");
  while (!skip_operator("}")) {
    if (!node.entries.empty()) {
      expect_operator(",");
      if (skip_operator("}")) break;
    }
    ExprPtr key = expression();
    expect_operator(":");
    node.entries.emplace_back(std::move(key), expression());
  }
  return make(line, std::move(node));
}

ExprPtr ExpressionParser::postfix(ExprPtr expr) {
  while (true) {
    if (at_operator(".") || at_operator("[")) {
      expr = subscript(std::move(expr));
    } else if (at_operator("(")) {
      expr = call(std::move(expr));
    } else {
      return expr;
    }
  }
}

ExprPtr ExpressionParser::subscript(ExprPtr object) {
  const int line = current().line;
  if (skip_operator(".")) {
    if (current().kind == TokenKind::kInteger) return make(line, ItemNode{std::move(object), primary()});
    return make(line, AttributeNode{std::move(object), take_name("attribute")});
  }
  expect_operator("[");
  ExprPtr start, stop, step;
  if (!at_operator(":")) {
    start = expression();
    if (at_operator(",")) fail_unsupported("a tuple as an index", line);
    if (skip_operator("]")) return make(line, ItemNode{std::move(object), std::move(start)});
  }
  expect_operator(":");
  if (!at_operator(":") && !at_operator("]")) stop = expression();
  if (skip_operator(":") && !at_operator("]")) step = expression();
  expect_operator("]");
  return make(line, SliceNode{std::move(object), std::move(start), std::move(stop), std::move(step)});
}

ArgumentNodes ExpressionParser::arguments() {
  ArgumentNodes out;
  expect_operator("(");
  bool first = true;
  while (!skip_operator(")")) {
    if (!first) {
      expect_operator(",");
      if (skip_operator(")")) break;
    }
    first = false;
    if (out.double_star != nullptr) fail_here("an argument after **");
    if (out.star == nullptr && skip_operator("*")) {
      out.star = expression();
      continue;
    }
    if (skip_operator("**")) {
      out.double_star = expression();
      continue;
    }
    if (current().kind == TokenKind::kName && next().kind == TokenKind::kOperator && next().text == "=") {
      std::string name = take_name("name");
      advance();
      out.named.emplace_back(std::move(name), expression());
    } else {
      if (!out.named.empty() || out.star != nullptr) fail_here("a positional argument after a named one");
      out.positional.push_back(expression());
    }
  }
  return out;
}

ExprPtr ExpressionParser::call(ExprPtr callee) {
  const int line = current().line;
  const auto* attribute = std::get_if<AttributeNode>(&callee->node);
  if (attribute != nullptr && !is_method_name(attribute->name)) {
    fail_unsupported(concat("the method '", attribute->name, "()'"), line);
  }
  return make(line, CallNode{std::move(callee), arguments()});
}

// Names of filters and tests inside map(), select() and the like are strings; where they are literal, they are known.
void ExpressionParser::check_names_in(const std::string& filter, const ArgumentNodes& arguments, int line) const {
  const bool by_attribute = filter == "selectattr" || filter == "rejectattr";
  const bool takes_test = by_attribute || filter == "select" || filter == "reject";
  if (filter != "map" && !takes_test) return;
  const std::size_t index = by_attribute ? 1 : 0;
  if (arguments.positional.size() <= index) return;
  const auto* literal = std::get_if<Literal>(&arguments.positional[index]->node);
  if (literal == nullptr || literal->value.text() == nullptr) return;
  const std::string& name = literal->value.text()->bytes();
  if (takes_test && find_test(name) == nullptr) fail_unsupported(concat("the test '", name, "'"), line);
  if (!takes_test && find_filter(name) == nullptr) fail_unsupported(concat("the filter '", name, "'"), line);
}

ExprPtr ExpressionParser::filter(ExprPtr input) {
  while (skip_operator("|")) {
    const int line = current().line;
    const std::string name = take_name("filter");
    const FilterFunction function = find_filter(name);
    if (function == nullptr) fail_unsupported(concat("the filter '", name, "'"), line);
    ArgumentNodes given;
    if (at_operator("(")) given = arguments();
    check_names_in(name, given, line);
    input = make(line, FilterNode{std::move(input), function, std::move(given)});
  }
  return input;
}

ExprPtr ExpressionParser::test(ExprPtr input) {
  const int line = current().line;
  expect_name("is");
  const bool negated = skip_name("not");
  const std::string name = take_name("test");
  const TestFunction function = find_test(name);
  if (function == nullptr) fail_unsupported(concat("the test '", name, "'"), line);
  ArgumentNodes given;
  const TokenKind kind = current().kind;
  const bool operand = kind == TokenKind::kName || kind == TokenKind::kString || kind == TokenKind::kInteger ||
                       kind == TokenKind::kFloat || at_operator("[") || at_operator("{");
  if (at_operator("(")) {
    given = arguments();
  } else if (operand && !at_name("else") && !at_name("or") && !at_name("and")) {
    if (at_name("is")) fail_here("tests cannot be chained with 'is'");
    given.positional.push_back(postfix(primary()));
  }
  ExprPtr value = make(line, TestNode{std::move(input), function, std::move(given)});
  return negated ? make(line, UnaryNode{UnaryOp::kNot, std::move(value)}) : std::move(value);
}

}  // namespace multiverse::jinja

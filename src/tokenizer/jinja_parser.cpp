#include "tokenizer/jinja_parser.h"

#include <algorithm>

#include "multiverse/base/check.h"

#include "tokenizer/jinja_expression_parser.h"

namespace multiverse::jinja {
namespace {

// No template can write this name.
constexpr const char* kCapture = "<captured text>";

class Parser final : public ExpressionParser {
 public:
  using ExpressionParser::ExpressionParser;

  Template run() {
    Template out;
    out.body = block({});
    out.loop = intern("loop");
    out.capture = intern(kCapture);
    out.caller = intern("caller");
    out.varargs = intern("varargs");
    out.kwargs = intern("kwargs");
    out.names = std::move(names_);
    return out;
  }

 private:
  using EndNames = std::vector<std::string_view>;

  void on_name(const std::string& name) override {
    if (macros_.empty()) return;
    MacroNode& macro = *macros_.back();
    macro.uses_caller |= name == "caller";
    macro.uses_varargs |= name == "varargs";
    macro.uses_kwargs |= name == "kwargs";
  }

  // Statements up to (not including) a tag of one of `ends`, or to the template's end where that is empty.
  Block block(const EndNames& ends) {
    const Nested nested(*this);
    const int opened = current().line;
    Block out;
    while (true) {
      const Token& token = current();
      if (token.kind == TokenKind::kEnd) {
        if (ends.empty()) return out;
        throw TemplateError(TemplateError::Kind::kSyntax, concat("no '", ends.back(), "' before the template's end"),
                            opened);
      }
      if (token.kind == TokenKind::kData) {
        out.push_back({TextNode{std::make_shared<const Text>(token.text, Trust::kAll)}, token.line});
        advance();
      } else if (token.kind == TokenKind::kVariableBegin) {
        advance();
        PrintNode print;
        print.values.push_back(expression_list(true));
        out.push_back({std::move(print), token.line});
        expect(TokenKind::kVariableEnd, "}}");
      } else {
        expect(TokenKind::kBlockBegin, "{%");
        if (std::any_of(ends.begin(), ends.end(), [&](std::string_view end) { return at_name(end); })) return out;
        const int line = current().line;
        out.push_back({statement(), line});
        expect(TokenKind::kBlockEnd, "%}");
      }
    }
  }

  // The rest of a tag, its body, and the end tag up to its `%}`.
  Block body_until(std::string_view end) {
    begin_body();
    Block out = block({end});
    advance();
    return out;
  }
  void begin_body() {
    skip_operator(":");
    expect(TokenKind::kBlockEnd, "%}");
  }
  // A body that `break` and `continue` of a loop around it cannot leave.
  Block closed_body_until(std::string_view end) {
    const int loops = std::exchange(loops_, 0);
    Block out = body_until(end);
    loops_ = loops;
    return out;
  }

  Statement::Node statement() {
    const int line = current().line;
    const std::string name = take_name("tag name");
    if (name == "if") return if_statement();
    if (name == "for") return for_statement();
    if (name == "set") return set_statement();
    if (name == "macro") return macro_statement();
    if (name == "call") return call_statement();
    if (name == "filter") return filter_statement();
    if (name == "with") return with_statement();
    if (name == "print") return print_statement();
    if (name == "generation") return GenerationNode{closed_body_until("endgeneration")};
    if (name == "break" || name == "continue") {
      if (loops_ == 0) fail_here(concat("'", name, "' outside of a loop"));
      if (name == "break") return BreakNode{};
      return ContinueNode{};
    }
    static constexpr std::string_view kKnown[] = {"autoescape", "block",   "do",    "extends", "from",
                                                  "import",     "include", "trans", "debug"};
    if (std::find(std::begin(kKnown), std::end(kKnown), name) != std::end(kKnown)) {
      fail_unsupported(concat("the statement '", name, "'"), line);
    }
    throw TemplateError(TemplateError::Kind::kSyntax, concat("unknown tag '", name, "'"), line);
  }

  IfNode if_statement() {
    IfNode node;
    do {
      ExprPtr condition = expression_list(false);
      begin_body();
      Block body = block({"elif", "else", "endif"});
      node.branches.emplace_back(std::move(condition), std::move(body));
    } while (skip_name("elif"));
    if (skip_name("else")) {
      node.otherwise = body_until("endif");
    } else {
      expect_name("endif");
    }
    return node;
  }

  ForNode for_statement() {
    ForNode node;
    node.target = target(false, "in");
    expect_name("in");
    node.iterable = expression_list(false, "recursive");
    if (skip_name("if")) node.condition = expression();
    if (at_name("recursive")) fail_unsupported("a recursive loop", current().line);
    ++loops_;
    begin_body();
    node.body = block({"else", "endfor"});
    --loops_;
    if (skip_name("else")) {
      node.otherwise = body_until("endfor");
    } else {
      expect_name("endfor");
    }
    return node;
  }

  Statement::Node set_statement() {
    Target destination = target(true, "");
    if (skip_operator("=")) return SetNode{std::move(destination), expression_list(true)};
    const int line = current().line;
    ExprPtr value = filter(make(line, NameNode{intern(kCapture)}));
    return CaptureNode{false, std::move(destination), std::move(value), body_until("endset")};
  }

  CaptureNode filter_statement() {
    const int line = current().line;
    // The first filter stands without its bar.
    const std::string name = take_name("filter");
    const FilterFunction function = find_filter(name);
    if (function == nullptr) fail_unsupported(concat("the filter '", name, "'"), line);
    ArgumentNodes given;
    if (at_operator("(")) given = arguments();
    ExprPtr value = make(line, FilterNode{make(line, NameNode{intern(kCapture)}), function, std::move(given)});
    value = filter(std::move(value));
    return {true, {}, std::move(value), body_until("endfilter")};
  }

  DefineNode macro_statement() {
    auto macro = std::make_shared<MacroNode>();
    macro->name = intern(take_name("macro name"));
    signature(*macro);
    macro_body(*macro, "endmacro");
    return {std::move(macro)};
  }

  CallBlockNode call_statement() {
    auto caller = std::make_shared<MacroNode>();
    caller->name = intern("caller");
    if (at_operator("(")) signature(*caller);
    const int line = current().line;
    ExprPtr call = expression();
    if (!std::holds_alternative<CallNode>(call->node)) {
      throw TemplateError(TemplateError::Kind::kSyntax, "expected a call", line);
    }
    macro_body(*caller, "endcall");
    return {std::move(call), std::move(caller)};
  }

  void signature(MacroNode& macro) {
    expect_operator("(");
    while (!skip_operator(")")) {
      if (!macro.parameters.empty()) expect_operator(",");
      macro.parameters.push_back(intern(take_name("parameter name")));
      if (skip_operator("=")) {
        macro.defaults.push_back(expression());
      } else if (!macro.defaults.empty()) {
        fail_here("a parameter without default after one with a default");
      }
    }
  }

  void macro_body(MacroNode& macro, std::string_view end) {
    macros_.push_back(&macro);
    macro.body = closed_body_until(end);
    macros_.pop_back();
  }

  WithNode with_statement() {
    WithNode node;
    while (current().kind != TokenKind::kBlockEnd) {
      if (!node.values.empty()) expect_operator(",");
      Target destination = target(false, "");
      expect_operator("=");
      node.values.emplace_back(std::move(destination), expression());
    }
    node.body = body_until("endwith");
    return node;
  }

  PrintNode print_statement() {
    PrintNode node;
    while (current().kind != TokenKind::kBlockEnd) {
      if (!node.values.empty()) expect_operator(",");
      node.values.push_back(expression());
    }
    return node;
  }

  // Names to write to, separated by commas, up to `=`, the tag's end or the name `end`.
  Target target(bool with_namespace, std::string_view end) {
    Target out;
    bool is_tuple = false;
    const auto at_end = [&] {
      return at_operator("=") || at_operator(")") || current().kind == TokenKind::kBlockEnd ||
             (!end.empty() && at_name(end));
    };
    std::vector<Target> items;
    while (!at_end()) {
      items.push_back(single_target(with_namespace));
      if (!skip_operator(",")) break;
      is_tuple = true;
    }
    if (items.empty()) fail_here("expected a name to assign to");
    if (!is_tuple) return std::move(items.front());
    out.items = std::move(items);
    out.is_tuple = true;
    return out;
  }

  Target single_target(bool with_namespace) {
    const Nested nested(*this);
    if (skip_operator("(")) {
      Target inner = target(with_namespace, "");
      expect_operator(")");
      return inner;
    }
    const int line = current().line;
    const std::string name = take_name("name");
    static constexpr std::string_view kConstants[] = {"true", "True", "false", "False", "none", "None"};
    if (std::find(std::begin(kConstants), std::end(kConstants), name) != std::end(kConstants)) {
      throw TemplateError(TemplateError::Kind::kSyntax, concat("can't assign to '", name, "'"), line);
    }
    Target out;
    out.name = intern(name);
    if (with_namespace && skip_operator(".")) out.attribute = take_name("attribute");
    return out;
  }

  std::vector<MacroNode*> macros_;  // whose body is being parsed, innermost last
  int loops_ = 0;                   // around this place, that `break` may leave
};

}  // namespace

std::unique_ptr<const Template> parse_template(std::string_view source) {
  if (source.size() > kMaxTemplateBytes) {
    throw TemplateError(TemplateError::Kind::kLimit,
                        concat("a template of ", source.size(), " bytes; the limit is ", kMaxTemplateBytes));
  }
  return std::make_unique<const Template>(Parser(tokenize(source)).run());
}

}  // namespace multiverse::jinja

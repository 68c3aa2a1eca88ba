// The expression half of the parser; the statements derive from it.
#pragma once

#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "tokenizer/jinja_ast.h"
#include "tokenizer/jinja_lexer.h"

namespace multiverse::jinja {

class ExpressionParser {
 public:
  explicit ExpressionParser(std::vector<Token> tokens) : tokens_(std::move(tokens)) {}

 protected:
  // Counts a level of recursion for as long as it lives.
  class Nested {
   public:
    explicit Nested(ExpressionParser& parser);
    ~Nested() { --parser_.nesting_; }
    Nested(const Nested&) = delete;
    Nested& operator=(const Nested&) = delete;

   private:
    ExpressionParser& parser_;
  };

  const Token& current() const { return tokens_[at_]; }
  const Token& next() const { return tokens_[std::min(at_ + 1, tokens_.size() - 1)]; }
  void advance() { at_ = std::min(at_ + 1, tokens_.size() - 1); }
  bool at_operator(std::string_view text) const;
  bool at_name(std::string_view text) const;
  bool skip_operator(std::string_view text);
  bool skip_name(std::string_view text);
  void expect_operator(std::string_view text);
  void expect_name(std::string_view text);
  void expect(TokenKind kind, const char* what);
  std::string take_name(const char* what);
  // As an error message calls it.
  static std::string describe(const Token& token);
  [[noreturn]] void fail_here(const std::string& message) const;
  [[noreturn]] void fail_unexpected(std::string_view wanted) const;
  [[noreturn]] static void fail_unsupported(const std::string& what, int line);

  int intern(const std::string& name);
  ExprPtr make(int line, Expr::Node node) const;

  ExprPtr expression();
  // Without `a if b else c`, whose `if` belongs to a for loop here.
  ExprPtr expression_without_condition();
  // One expression, or several separated by commas as a tuple. `end_name` ends it too.
  ExprPtr expression_list(bool with_condition, std::string_view end_name = "");
  ExprPtr primary();
  ExprPtr postfix(ExprPtr expr);
  ExprPtr filter(ExprPtr input);
  ArgumentNodes arguments();

  // Called for every name that is read, so that macros know what they use.
  virtual void on_name(const std::string&) {}
  ~ExpressionParser() = default;

 private:
  ExprPtr conditional();
  ExprPtr logical_or();
  ExprPtr logical_and();
  ExprPtr logical_not();
  ExprPtr comparison();
  ExprPtr sum();
  ExprPtr concatenation();
  ExprPtr product();
  ExprPtr power();
  ExprPtr unary(bool with_filters);
  ExprPtr name();
  ExprPtr parenthesised();
  ExprPtr list();
  ExprPtr dict();
  ExprPtr subscript(ExprPtr object);
  ExprPtr call(ExprPtr callee);
  ExprPtr test(ExprPtr input);
  void check_names_in(const std::string& filter, const ArgumentNodes& arguments, int line) const;

  std::vector<Token> tokens_;
  std::size_t at_ = 0;
  int nesting_ = 0;

 protected:
  std::vector<std::string> names_;

 private:
  std::map<std::string, int, std::less<>> numbers_;
};

}  // namespace multiverse::jinja

// Builds the syntax tree of a Jinja template. Nesting is bounded. Throws Failure with line and column.
#pragma once

#include <string_view>
#include <vector>

#include "text/jinja_ast.h"
#include "text/jinja_lexer.h"

namespace spillway::text::jinja {

class ExpressionParser {
 public:
  explicit ExpressionParser(std::vector<Token> tokens) : tokens_(std::move(tokens)) {}

 protected:
  static constexpr int kNestingMax = 120;
  static constexpr int kLinksMax = 2000;  // operators of one statement: a + b + c and a.b.c nest in the tree

  // An expression; with_tuple: commas make a tuple without brackets.
  ExpressionPtr expression(bool with_condition = true);
  ExpressionPtr tuple_or_expression(bool with_condition = true);
  ExpressionPtr filters(ExpressionPtr node, bool start_inline);

  const Token& current() const { return tokens_[at_]; }
  const Token& peek() const { return tokens_[std::min(at_ + 1, tokens_.size() - 1)]; }
  Token take() { return tokens_[at_ + 1 < tokens_.size() ? at_++ : at_]; }
  bool is(TokenKind kind, std::string_view text = {}) const {
    return current().kind == kind && (text.empty() || current().text == text);
  }
  bool is_op(std::string_view text) const { return is(TokenKind::kOperator, text); }
  bool is_name(std::string_view text) const { return is(TokenKind::kName, text); }
  bool skip_op(std::string_view text);
  bool skip_name(std::string_view text);
  void expect_op(std::string_view text);
  std::string expect_name(const char* what);
  [[noreturn]] void fail_here(const std::string& expected) const;
  ExpressionPtr make(Expression::Kind kind) const;

  struct Nested {
    explicit Nested(ExpressionParser& parser) : parser(parser) {
      if (++parser.nesting_ > kNestingMax) parser.fail_here("nesting of at most " + std::to_string(kNestingMax));
    }
    ~Nested() { --parser.nesting_; }
    ExpressionParser& parser;
  };

 private:
  ExpressionPtr binary(int level);
  ExpressionPtr parse_not();
  ExpressionPtr compare();
  ExpressionPtr concat();
  ExpressionPtr power();
  ExpressionPtr unary(bool with_filter);
  ExpressionPtr primary();
  ExpressionPtr bracketed();
  ExpressionPtr dict();
  ExpressionPtr postfix(ExpressionPtr node);
  ExpressionPtr attribute(ExpressionPtr node);
  ExpressionPtr subscript(ExpressionPtr node);
  ExpressionPtr call(ExpressionPtr node);
  ExpressionPtr test(ExpressionPtr node);
  void arguments(Expression& node);
  std::string dotted_name(const char* what);
  void count_link();

  std::vector<Token> tokens_;
  size_t at_ = 0;
  int nesting_ = 0;

 protected:
  int links_ = 0;
};

class TemplateParser : private ExpressionParser {
 public:
  explicit TemplateParser(std::string_view source) : ExpressionParser(tokenize(source)) {}

  Body parse();

 private:
  using Ends = std::vector<std::string_view>;

  Body body(const Ends& ends);  // stops after {% and before the name of an end tag
  void end_tag(std::string_view name);
  void block_end();
  std::unique_ptr<Statement> statement();
  void parse_if(Statement& node);
  void parse_for(Statement& node);
  void parse_set(Statement& node);
  void parse_macro(Statement& node);
  void parse_call(Statement& node);
  void parse_with(Statement& node);
  void parameters(Statement& node);
  std::vector<std::string> targets();

  int loops_ = 0;
};

}  // namespace spillway::text::jinja

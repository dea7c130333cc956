// The expression half of the parser: precedence as Jinja has it.
#include <algorithm>

#include "text/jinja_parser.h"

namespace spillway::text::jinja {

namespace {

ExpressionPtr join(Expression::Kind kind, ExpressionPtr left, ExpressionPtr right, std::vector<Op> ops = {}) {
  auto node = std::make_unique<Expression>();
  node->kind = kind;
  node->position = left->position;
  node->ops = std::move(ops);
  node->items.push_back(std::move(left));
  node->items.push_back(std::move(right));
  return node;
}

std::string describe(const Token& token) {
  switch (token.kind) {
    case TokenKind::kText:
      return "template text";
    case TokenKind::kEnd:
      return "the end of the template";
    case TokenKind::kString:
      return "a string";
    default:
      return "'" + token.text + "'";
  }
}

}  // namespace

void ExpressionParser::fail_here(const std::string& expected) const {
  Failure failure("expected " + expected + ", found " + describe(current()));
  failure.line = current().line;
  failure.column = current().column;
  throw failure;
}

ExpressionPtr ExpressionParser::make(Expression::Kind kind) const {
  auto node = std::make_unique<Expression>();
  node->kind = kind;
  node->position = {current().line, current().column};
  return node;
}

bool ExpressionParser::skip_op(std::string_view text) {
  if (!is_op(text)) return false;
  take();
  return true;
}

bool ExpressionParser::skip_name(std::string_view text) {
  if (!is_name(text)) return false;
  take();
  return true;
}

void ExpressionParser::expect_op(std::string_view text) {
  if (!skip_op(text)) fail_here("'" + std::string(text) + "'");
}

std::string ExpressionParser::expect_name(const char* what) {
  if (!is(TokenKind::kName)) fail_here(what);
  return take().text;
}

void ExpressionParser::count_link() {
  if (++links_ > kLinksMax) fail_here("at most " + std::to_string(kLinksMax) + " operators in a statement");
}

ExpressionPtr ExpressionParser::expression(bool with_condition) {
  Nested nested(*this);
  ExpressionPtr node = binary(0);
  while (with_condition && skip_name("if")) {
    count_link();
    node = join(Expression::Kind::kConditional, std::move(node), binary(0));
    node->items.push_back(skip_name("else") ? expression() : nullptr);
  }
  return node;
}

ExpressionPtr ExpressionParser::tuple_or_expression(bool with_condition) {
  ExpressionPtr first = expression(with_condition);
  if (!is_op(",")) return first;
  ExpressionPtr tuple = make(Expression::Kind::kTuple);
  tuple->items.push_back(std::move(first));
  while (skip_op(",")) {
    if (is(TokenKind::kVariableEnd) || is(TokenKind::kBlockEnd) || is_op(")") || is_name("if")) break;
    tuple->items.push_back(expression(with_condition));
  }
  return tuple;
}

// Levels: 0 or, 1 and, 2 not and comparison, 3 + -, 4 ~, 5 * / // %.
ExpressionPtr ExpressionParser::binary(int level) {
  if (level == 2) return parse_not();
  if (level == 4) return concat();
  ExpressionPtr node = level == 5 ? power() : binary(level + 1);
  while (true) {
    count_link();
    if (level == 0 && skip_name("or")) {
      node = join(Expression::Kind::kOr, std::move(node), binary(1));
    } else if (level == 1 && skip_name("and")) {
      node = join(Expression::Kind::kAnd, std::move(node), binary(2));
    } else if (level == 3 && (is_op("+") || is_op("-"))) {
      const Op op = take().text == "+" ? Op::kAdd : Op::kSub;
      node = join(Expression::Kind::kBinary, std::move(node), concat(), {op});
    } else if (level == 5 && (is_op("*") || is_op("/") || is_op("//") || is_op("%"))) {
      const std::string text = take().text;
      const Op op = text == "*" ? Op::kMul : text == "/" ? Op::kDiv : text == "//" ? Op::kFloorDiv : Op::kMod;
      node = join(Expression::Kind::kBinary, std::move(node), power(), {op});
    } else {
      return node;
    }
  }
}

ExpressionPtr ExpressionParser::parse_not() {
  if (!is_name("not")) return compare();
  Nested nested(*this);
  ExpressionPtr node = make(Expression::Kind::kNot);
  take();
  node->items.push_back(parse_not());
  return node;
}

ExpressionPtr ExpressionParser::compare() {
  static constexpr std::pair<std::string_view, Op> kOps[] = {{"==", Op::kEq}, {"!=", Op::kNe}, {"<", Op::kLt},
                                                             {"<=", Op::kLe}, {">", Op::kGt},  {">=", Op::kGe}};
  ExpressionPtr first = binary(3);
  ExpressionPtr node;
  while (true) {
    Op op = Op::kIn;
    const auto* found = std::find_if(std::begin(kOps), std::end(kOps), [&](const auto& o) { return is_op(o.first); });
    if (found != std::end(kOps)) {
      op = found->second;
      take();
    } else if (is_name("in")) {
      take();
    } else if (is_name("not") && peek().kind == TokenKind::kName && peek().text == "in") {
      op = Op::kNotIn;
      take();
      take();
    } else {
      return node ? std::move(node) : std::move(first);
    }
    if (!node) {
      node = make(Expression::Kind::kCompare);
      node->position = first->position;
      node->items.push_back(std::move(first));
    }
    node->ops.push_back(op);
    node->items.push_back(binary(3));
  }
}

ExpressionPtr ExpressionParser::concat() {
  ExpressionPtr first = binary(5);
  if (!is_op("~")) return first;
  ExpressionPtr node = make(Expression::Kind::kConcat);
  node->items.push_back(std::move(first));
  while (skip_op("~")) node->items.push_back(binary(5));
  return node;
}

ExpressionPtr ExpressionParser::power() {
  ExpressionPtr node = unary(true);
  while (skip_op("**")) {
    count_link();
    node = join(Expression::Kind::kBinary, std::move(node), unary(true), {Op::kPow});
  }
  return node;
}

ExpressionPtr ExpressionParser::unary(bool with_filter) {
  ExpressionPtr node;
  if (is_op("-") || is_op("+")) {
    Nested nested(*this);
    node = make(is_op("-") ? Expression::Kind::kNegate : Expression::Kind::kPlus);
    take();
    node->items.push_back(unary(false));
  } else {
    node = postfix(primary());
  }
  return with_filter ? filters(std::move(node), false) : std::move(node);
}

ExpressionPtr ExpressionParser::primary() {
  ExpressionPtr node = make(Expression::Kind::kConst);
  switch (current().kind) {
    case TokenKind::kName: {
      const std::string name = take().text;
      if (name == "true" || name == "True") {
        node->value = true;
      } else if (name == "false" || name == "False") {
        node->value = false;
      } else if (name == "none" || name == "None") {
        node->value = None{};
      } else {
        node->kind = Expression::Kind::kName;
        node->text = name;
      }
      return node;
    }
    case TokenKind::kString: {
      std::string text;
      while (is(TokenKind::kString)) text += take().text;
      node->value = std::move(text);
      return node;
    }
    case TokenKind::kInteger:
      node->value = take().integer;
      return node;
    case TokenKind::kFloat:
      node->value = take().number;
      return node;
    default:
      break;
  }
  if (is_op("(") || is_op("[") || is_op("{")) return bracketed();
  fail_here("an expression");
}

ExpressionPtr ExpressionParser::bracketed() {
  if (is_op("{")) return dict();
  const bool list = is_op("[");
  ExpressionPtr node = make(list ? Expression::Kind::kList : Expression::Kind::kTuple);
  take();
  const std::string_view end = list ? "]" : ")";
  bool comma = false;
  while (!is_op(end)) {
    if (!node->items.empty()) {
      expect_op(",");
      comma = true;
      if (is_op(end)) break;
    }
    node->items.push_back(expression());
  }
  expect_op(end);
  if (!list && node->items.size() == 1 && !comma) return std::move(node->items[0]);
  return node;
}

ExpressionPtr ExpressionParser::dict() {
  Nested nested(*this);
  ExpressionPtr node = make(Expression::Kind::kDict);
  expect_op("{");
  while (!is_op("}")) {
    if (!node->items.empty()) {
      expect_op(",");
      if (is_op("}")) break;
    }
    node->items.push_back(expression());
    expect_op(":");
    node->items.push_back(expression());
  }
  expect_op("}");
  return node;
}

ExpressionPtr ExpressionParser::postfix(ExpressionPtr node) {
  while (true) {
    count_link();
    if (is_op(".")) {
      node = attribute(std::move(node));
    } else if (is_op("[")) {
      node = subscript(std::move(node));
    } else if (is_op("(")) {
      node = call(std::move(node));
    } else {
      return node;
    }
  }
}

ExpressionPtr ExpressionParser::attribute(ExpressionPtr base) {
  ExpressionPtr node = make(Expression::Kind::kAttribute);
  take();
  if (is(TokenKind::kName)) {
    node->text = take().text;
  } else if (is(TokenKind::kInteger)) {
    node->kind = Expression::Kind::kSubscript;
    node->items.push_back(make(Expression::Kind::kConst));
    node->items[0]->value = take().integer;
  } else {
    fail_here("an attribute's name");
  }
  node->items.insert(node->items.begin(), std::move(base));
  return node;
}

ExpressionPtr ExpressionParser::subscript(ExpressionPtr base) {
  ExpressionPtr node = make(Expression::Kind::kSubscript);
  take();
  node->items.push_back(std::move(base));
  ExpressionPtr parts[3];
  int colons = 0;
  while (!is_op("]")) {
    if (is_op(":") && colons < 2) {
      take();
      ++colons;
    } else if (!parts[colons]) {
      parts[colons] = expression();
    } else {
      fail_here("']'");
    }
  }
  if (colons == 0 && !parts[0]) fail_here("an index");
  expect_op("]");
  node->items.push_back(std::move(parts[0]));
  if (colons > 0) {
    node->kind = Expression::Kind::kSlice;
    node->items.push_back(std::move(parts[1]));
    node->items.push_back(std::move(parts[2]));
  }
  return node;
}

ExpressionPtr ExpressionParser::call(ExpressionPtr callee) {
  ExpressionPtr node = make(Expression::Kind::kCall);
  node->items.push_back(std::move(callee));
  arguments(*node);
  return node;
}

void ExpressionParser::arguments(Expression& node) {
  expect_op("(");
  bool first = true;
  while (!is_op(")")) {
    if (!first) {
      expect_op(",");
      if (is_op(")")) break;
    }
    first = false;
    if (is(TokenKind::kName) && peek().kind == TokenKind::kOperator && peek().text == "=") {
      std::string name = take().text;
      take();
      node.keywords.emplace_back(std::move(name), expression());
    } else {
      if (!node.keywords.empty()) fail_here("a keyword argument after keyword arguments");
      node.items.push_back(expression());
    }
  }
  expect_op(")");
}

std::string ExpressionParser::dotted_name(const char* what) {
  std::string name = expect_name(what);
  while (skip_op(".")) name += "." + expect_name(what);
  return name;
}

// Filters and tests after a value. start_inline: the first filter stands without its bar (in a filter block).
ExpressionPtr ExpressionParser::filters(ExpressionPtr node, bool start_inline) {
  while (true) {
    count_link();
    if (start_inline || is_op("|")) {
      if (!start_inline) take();
      start_inline = false;
      ExpressionPtr filter = make(Expression::Kind::kFilter);
      filter->text = dotted_name("a filter's name");
      filter->items.push_back(std::move(node));
      if (is_op("(")) arguments(*filter);
      node = std::move(filter);
    } else if (is_name("is")) {
      node = test(std::move(node));
    } else if (is_op("(")) {
      node = call(std::move(node));
    } else {
      return node;
    }
  }
}

ExpressionPtr ExpressionParser::test(ExpressionPtr subject) {
  ExpressionPtr node = make(Expression::Kind::kTest);
  take();
  const bool negated = skip_name("not");
  node->text = dotted_name("a test's name");
  node->items.push_back(std::move(subject));
  const TokenKind kind = current().kind;
  const bool name_argument = kind == TokenKind::kName && !is_name("else") && !is_name("or") && !is_name("and") &&
                             !is_name("if") && !is_name("in") && !is_name("not");
  if (is_op("(")) {
    arguments(*node);
  } else if (name_argument || kind == TokenKind::kString || kind == TokenKind::kInteger || kind == TokenKind::kFloat ||
             is_op("[") || is_op("{")) {
    if (is_name("is")) fail_here("no second test");
    node->items.push_back(postfix(primary()));
  }
  if (!negated) return node;
  ExpressionPtr inverse = make(Expression::Kind::kNot);
  inverse->items.push_back(std::move(node));
  return inverse;
}

}  // namespace spillway::text::jinja

#include "text/jinja_parser.h"

#include <algorithm>

namespace spillway::text::jinja {

Body TemplateParser::parse() { return body({}); }

Body TemplateParser::body(const Ends& ends) {
  Nested nested(*this);
  Body out;
  while (!is(TokenKind::kEnd)) {
    if (is(TokenKind::kBlockBegin) && std::find(ends.begin(), ends.end(), peek().text) != ends.end()) {
      take();
      return out;
    }
    out.push_back(statement());
  }
  if (!ends.empty()) fail_here("{% " + std::string(ends.back()) + " %}");
  return out;
}

void TemplateParser::block_end() {
  if (!is(TokenKind::kBlockEnd)) fail_here("%}");
  take();
}

void TemplateParser::end_tag(std::string_view name) {
  if (!skip_name(name)) fail_here("'" + std::string(name) + "'");
  block_end();
}

std::unique_ptr<Statement> TemplateParser::statement() {
  links_ = 0;
  auto node = std::make_unique<Statement>();
  node->position = {current().line, current().column};
  if (is(TokenKind::kText)) {
    node->text = take().text;
    return node;
  }
  if (is(TokenKind::kVariableBegin)) {
    take();
    node->kind = Statement::Kind::kOutput;
    node->expression = tuple_or_expression();
    if (!is(TokenKind::kVariableEnd)) fail_here("}}");
    take();
    return node;
  }
  take();
  const std::string tag = is(TokenKind::kName) ? current().text : std::string();
  if (tag == "break" || tag == "continue") {
    if (loops_ == 0) fail_here("a tag that may stand outside a loop");
    node->kind = tag == "break" ? Statement::Kind::kBreak : Statement::Kind::kContinue;
    take();
    block_end();
    return node;
  }
  static constexpr std::string_view kTags[] = {"if", "for", "set", "macro", "call", "filter", "with", "generation"};
  const auto* found = std::find(std::begin(kTags), std::end(kTags), tag);
  if (found == std::end(kTags)) fail_here("a tag (if, for, set, macro, call, filter, with, raw, break, continue)");
  take();
  switch (found - std::begin(kTags)) {
    case 0:
      parse_if(*node);
      break;
    case 1:
      parse_for(*node);
      break;
    case 2:
      parse_set(*node);
      break;
    case 3:
      parse_macro(*node);
      break;
    case 4:
      parse_call(*node);
      break;
    case 5:
      node->kind = Statement::Kind::kFilter;
      node->expression = filters(nullptr, true);
      block_end();
      node->body = body({"endfilter"});
      end_tag("endfilter");
      break;
    case 6:
      parse_with(*node);
      break;
    default:
      node->kind = Statement::Kind::kScope;
      block_end();
      node->body = body({"endgeneration"});
      end_tag("endgeneration");
  }
  return node;
}

void TemplateParser::parse_if(Statement& node) {
  node.kind = Statement::Kind::kIf;
  do {
    Branch branch;
    branch.condition = tuple_or_expression(false);
    block_end();
    branch.body = body({"elif", "else", "endif"});
    node.branches.push_back(std::move(branch));
  } while (skip_name("elif"));
  if (skip_name("else")) {
    block_end();
    node.otherwise = body({"endif"});
  }
  end_tag("endif");
}

std::vector<std::string> TemplateParser::targets() {
  std::vector<std::string> names;
  const bool brackets = skip_op("(");
  do {
    if (!names.empty() && !is(TokenKind::kName)) break;
    names.push_back(expect_name("a variable's name"));
  } while (skip_op(","));
  if (brackets) expect_op(")");
  return names;
}

void TemplateParser::parse_for(Statement& node) {
  node.kind = Statement::Kind::kFor;
  node.names = targets();
  if (!skip_name("in")) fail_here("'in'");
  node.expression = tuple_or_expression(false);
  if (skip_name("if")) node.filter = expression();
  if (is_name("recursive")) fail_here("a loop without 'recursive', which is not supported");
  block_end();
  ++loops_;
  node.body = body({"else", "endfor"});
  --loops_;
  if (skip_name("else")) {
    block_end();
    node.otherwise = body({"endfor"});
  }
  end_tag("endfor");
}

void TemplateParser::parse_set(Statement& node) {
  node.kind = Statement::Kind::kSet;
  node.names = targets();
  if (node.names.size() == 1 && skip_op(".")) node.attribute = expect_name("an attribute's name");
  if (skip_op("=")) {
    node.expression = tuple_or_expression();
    block_end();
    return;
  }
  if (node.names.size() != 1) fail_here("'='");
  node.kind = Statement::Kind::kSetBlock;
  if (is_op("|")) node.expression = filters(nullptr, false);
  block_end();
  node.body = body({"endset"});
  end_tag("endset");
}

void TemplateParser::parameters(Statement& node) {
  expect_op("(");
  while (!is_op(")")) {
    if (!node.names.empty()) expect_op(",");
    node.names.push_back(expect_name("a parameter's name"));
    if (skip_op("=")) {
      node.values.push_back(expression());
    } else if (!node.values.empty()) {
      fail_here("a default, since the parameter before has one");
    }
  }
  expect_op(")");
}

void TemplateParser::parse_macro(Statement& node) {
  node.kind = Statement::Kind::kMacro;
  node.text = expect_name("a macro's name");
  parameters(node);
  block_end();
  const int loops = std::exchange(loops_, 0);
  node.body = body({"endmacro"});
  loops_ = loops;
  end_tag("endmacro");
}

void TemplateParser::parse_call(Statement& node) {
  node.kind = Statement::Kind::kCallBlock;
  if (is_op("(")) parameters(node);
  node.expression = expression();
  if (node.expression->kind != Expression::Kind::kCall) fail_here("a call");
  block_end();
  const int loops = std::exchange(loops_, 0);
  node.body = body({"endcall"});
  loops_ = loops;
  end_tag("endcall");
}

void TemplateParser::parse_with(Statement& node) {
  node.kind = Statement::Kind::kWith;
  while (!is(TokenKind::kBlockEnd)) {
    if (!node.names.empty()) expect_op(",");
    node.names.push_back(expect_name("a variable's name"));
    expect_op("=");
    node.values.push_back(expression());
  }
  block_end();
  node.body = body({"endwith"});
  end_tag("endwith");
}

}  // namespace spillway::text::jinja

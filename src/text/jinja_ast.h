// The syntax tree of a Jinja template. Built by the parser, then immutable.
#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "text/jinja_value.h"

namespace spillway::text::jinja {

struct Position {
  int line = 1;
  int column = 1;
};

struct Expression;
using ExpressionPtr = std::unique_ptr<Expression>;

enum class Op { kAdd, kSub, kMul, kDiv, kFloorDiv, kMod, kPow, kEq, kNe, kLt, kLe, kGt, kGe, kIn, kNotIn };

struct Expression {
  enum class Kind {
    kConst,        // value
    kName,         // text
    kList,         // items
    kTuple,        // items
    kDict,         // items: key, value, key, value, ...
    kNot,          // items[0]
    kAnd,          // items: two
    kOr,           // items: two
    kNegate,       // items[0]
    kPlus,         // items[0]
    kBinary,       // ops[0] of two items
    kConcat,       // items, ~
    kCompare,      // items[0] ops[0] items[1] ops[1] items[2] ...
    kConditional,  // items: value, condition, other value or null
    kAttribute,    // items[0] . text
    kSubscript,    // items[0] [ items[1] ]
    kSlice,        // items[0] [ items[1] : items[2] : items[3] ], each perhaps null
    kCall,         // items[0] ( items[1...], keywords )
    kFilter,       // items[0] | text ( items[1...], keywords ); items[0] null in a filter block
    kTest,         // items[0] is text ( items[1...] )
  } kind = Kind::kConst;
  Position position;
  std::string text;
  Value value;
  std::vector<ExpressionPtr> items;
  std::vector<std::pair<std::string, ExpressionPtr>> keywords;
  std::vector<Op> ops;
};

struct Statement;
using Body = std::vector<std::unique_ptr<Statement>>;

struct Branch {
  ExpressionPtr condition;
  Body body;
};

struct Statement {
  enum class Kind {
    kText,       // text
    kOutput,     // expression
    kIf,         // branches, otherwise
    kFor,        // names in expression if filter: body, otherwise
    kSet,        // names (or text . attribute) = expression
    kSetBlock,   // names[0] = body through expression (filters), if any
    kMacro,      // text (names, defaults aligned to the end): body
    kCallBlock,  // expression (a call) with body as its caller(names)
    kFilter,     // body through expression
    kWith,       // names = values: body
    kScope,      // body (generation)
    kBreak,
    kContinue,
  } kind = Kind::kText;
  Position position;
  std::string text;
  std::string attribute;
  std::vector<std::string> names;
  std::vector<ExpressionPtr> values;  // of kWith; defaults of kMacro and kCallBlock
  ExpressionPtr expression;
  ExpressionPtr filter;
  std::vector<Branch> branches;
  Body body;
  Body otherwise;
};

}  // namespace spillway::text::jinja

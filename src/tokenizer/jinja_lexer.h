// A template's source as tokens, with the white space rules that transformers sets (trim_blocks, lstrip_blocks).
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace multiverse::jinja {

enum class TokenKind {
  kData,  // text outside of tags
  kVariableBegin,
  kVariableEnd,
  kBlockBegin,
  kBlockEnd,
  kName,
  kString,  // text: unescaped
  kInteger,
  kFloat,
  kOperator,
  kEnd,
};

struct Token {
  TokenKind kind;
  std::string text;
  int line;  // of its first character, from 1
};

// The tokens, kEnd last. Comments are gone, raw blocks are data. Throws TemplateError.
std::vector<Token> tokenize(std::string_view source);

}  // namespace multiverse::jinja

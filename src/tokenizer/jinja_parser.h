// Tokens to a Template. Throws TemplateError with the line: kSyntax for what is no Jinja, kUnsupported for what this
// interpreter does not have (statements, filters, tests and methods by name).
#pragma once

#include <memory>
#include <string_view>

#include "tokenizer/jinja_ast.h"

namespace multiverse::jinja {

std::unique_ptr<const Template> parse_template(std::string_view source);

}  // namespace multiverse::jinja

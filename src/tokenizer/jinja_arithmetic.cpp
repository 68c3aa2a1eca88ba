// + - * / // % ** as Python has them, integers within 64 bits.
#include <cmath>
#include <limits>

#include "multiverse/base/check.h"

#include "tokenizer/jinja_ops.h"

namespace multiverse::jinja {
namespace {

[[noreturn]] void fail_overflow() {
  fail("an integer beyond 64 bits");
}

const char* symbol(BinaryOp op) {
  switch (op) {
    case BinaryOp::kAdd:
      return "+";
    case BinaryOp::kSubtract:
      return "-";
    case BinaryOp::kMultiply:
      return "*";
    case BinaryOp::kDivide:
      return "/";
    case BinaryOp::kFloorDivide:
      return "//";
    case BinaryOp::kModulo:
      return "%";
    case BinaryOp::kPower:
      return "**";
  }
  return "?";
}

// Division that rounds down, and its remainder, which has the divisor's sign.
std::int64_t floor_divide(std::int64_t a, std::int64_t b) {
  if (b == 0) fail("integer division or modulo by zero");
  if (a == std::numeric_limits<std::int64_t>::min() && b == -1) fail_overflow();
  const std::int64_t quotient = a / b;
  return a % b != 0 && (a < 0) != (b < 0) ? quotient - 1 : quotient;
}

std::int64_t modulo(std::int64_t a, std::int64_t b) {
  if (b == -1) return 0;
  return a - floor_divide(a, b) * b;
}

Value power(std::int64_t base, std::int64_t exponent) {
  if (exponent < 0) {
    if (base == 0) fail("0 cannot be raised to a negative power");
    return std::pow(static_cast<double>(base), static_cast<double>(exponent));
  }
  std::int64_t result = 1;
  while (exponent > 0) {
    if ((exponent & 1) != 0 && __builtin_mul_overflow(result, base, &result)) fail_overflow();
    exponent >>= 1;
    if (exponent > 0 && __builtin_mul_overflow(base, base, &base)) fail_overflow();
  }
  return result;
}

Value integers(BinaryOp op, std::int64_t a, std::int64_t b) {
  std::int64_t result = 0;
  switch (op) {
    case BinaryOp::kAdd:
      if (__builtin_add_overflow(a, b, &result)) fail_overflow();
      return result;
    case BinaryOp::kSubtract:
      if (__builtin_sub_overflow(a, b, &result)) fail_overflow();
      return result;
    case BinaryOp::kMultiply:
      if (__builtin_mul_overflow(a, b, &result)) fail_overflow();
      return result;
    case BinaryOp::kDivide:
      if (b == 0) fail("division by zero");
      return static_cast<double>(a) / static_cast<double>(b);
    case BinaryOp::kFloorDivide:
      return floor_divide(a, b);
    case BinaryOp::kModulo:
      return modulo(a, b);
    case BinaryOp::kPower:
      return power(a, b);
  }
  return result;
}

Value doubles(BinaryOp op, double a, double b) {
  if (b == 0.0 && (op == BinaryOp::kDivide || op == BinaryOp::kFloorDivide || op == BinaryOp::kModulo)) {
    fail("float division by zero");
  }
  switch (op) {
    case BinaryOp::kAdd:
      return a + b;
    case BinaryOp::kSubtract:
      return a - b;
    case BinaryOp::kMultiply:
      return a * b;
    case BinaryOp::kDivide:
      return a / b;
    case BinaryOp::kFloorDivide:
      return std::floor(a / b);
    case BinaryOp::kModulo: {
      const double remainder = std::fmod(a, b);
      return remainder != 0.0 && (remainder < 0) != (b < 0) ? remainder + b : remainder;
    }
    case BinaryOp::kPower:
      if (a == 0.0 && b < 0) fail("0.0 cannot be raised to a negative power");
      if (a < 0 && b != std::floor(b)) fail("a complex number");
      return std::pow(a, b);
  }
  return a;
}

Value repeat(Budget& budget, const Value& value, std::int64_t times) {
  const auto count = static_cast<std::size_t>(std::max<std::int64_t>(0, times));
  if (const Text* text = value.text()) {
    if (count > 0 && text->size() > std::numeric_limits<std::size_t>::max() / count / 32) budget.bytes(SIZE_MAX);
    budget.bytes(count * (text->size() + 16 * text->num_runs()));  // before, so that it is never made
    budget.steps(count);
    Text out;
    for (std::size_t i = 0; i < count; ++i) out.append(*text);
    return std::make_shared<const Text>(std::move(out));
  }
  const Sequence& sequence = *value.sequence();
  const std::size_t size = sequence.items.size();
  if (size > 0 && count > static_cast<std::size_t>(kMaxSteps)) budget.steps(SIZE_MAX);
  budget.steps(size * count);
  std::vector<Value> items;
  for (std::size_t i = 0; size > 0 && i < count; ++i) {
    items.insert(items.end(), sequence.items.begin(), sequence.items.end());
  }
  return make_sequence(sequence.kind, std::move(items));
}

bool is_list_or_tuple(const Value& value) {
  return value.sequence() != nullptr && value.sequence()->kind <= SequenceKind::kTuple;
}

}  // namespace

Value binary(Budget& budget, BinaryOp op, const Value& a, const Value& b) {
  for (const Value* side : {&a, &b}) {
    if (side->is<Undefined>()) fail(*side->as<Undefined>().why);
  }
  if (a.integer() && b.integer()) return integers(op, *a.integer(), *b.integer());
  if (a.number() && b.number()) return doubles(op, *a.number(), *b.number());
  if (op == BinaryOp::kAdd && a.text() != nullptr && b.text() != nullptr) {
    Text out = *a.text();
    out.append(*b.text());
    return make_text(budget, std::move(out));
  }
  if (op == BinaryOp::kAdd && is_list_or_tuple(a) && is_list_or_tuple(b) && a.sequence()->kind == b.sequence()->kind) {
    std::vector<Value> items = items_of(budget, a);
    const std::vector<Value> more = items_of(budget, b);
    items.insert(items.end(), more.begin(), more.end());
    return make_sequence(a.sequence()->kind, std::move(items));
  }
  if (op == BinaryOp::kMultiply) {
    if ((a.text() != nullptr || is_list_or_tuple(a)) && b.integer()) return repeat(budget, a, *b.integer());
    if ((b.text() != nullptr || is_list_or_tuple(b)) && a.integer()) return repeat(budget, b, *a.integer());
  }
  if (op == BinaryOp::kModulo && a.text() != nullptr) {
    fail("'%' formatting of strings is not supported; use '~'");
  }
  if (op == BinaryOp::kAdd && (a.text() != nullptr || is_list_or_tuple(a))) {
    fail(concat("can only concatenate ", type_name(a), " (not \"", type_name(b), "\") to ", type_name(a)));
  }
  fail(concat("unsupported operand type(s) for ", symbol(op), ": '", type_name(a), "' and '", type_name(b), "'"));
}

Value negate(const Value& value) {
  if (const auto whole = value.integer()) {
    if (*whole == std::numeric_limits<std::int64_t>::min()) fail_overflow();
    return -*whole;
  }
  if (value.is<double>()) return -value.as<double>();
  if (value.is<Undefined>()) fail(*value.as<Undefined>().why);
  fail(concat("bad operand type for unary -: '", type_name(value), "'"));
}

}  // namespace multiverse::jinja

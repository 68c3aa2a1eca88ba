#include "constrain/json_text.h"

#include <algorithm>
#include <string>

namespace multiverse {
namespace {

// Digits that are written: more than a double tells apart, so a bound of ours and not of the value.
constexpr std::int32_t kMaxDigits = 15;
constexpr std::int32_t kMaxFraction = 6;  // of numbers with bounds
constexpr std::int32_t kMaxIndent = 32;

}  // namespace

JsonText::JsonText(SyntaxBuilder& builder) : builder_(builder) {
  std::fill(std::begin(any_), std::end(any_), -1);
  const std::int32_t indent = builder.add_rule(builder.any_of({builder.text(" "), builder.text("\t")}));
  space_ =
      builder.add_rule(builder.any_of({builder.empty(), builder.text(" "),
                                       builder.sequence({builder.text("\n"), builder.times(indent, 0, kMaxIndent)})}));
  // Surrogates are not escaped: half a pair would be no character.
  const auto hex = [&] {
    return builder.any_of({builder.byte('0', '9'), builder.byte('A', 'F'), builder.byte('a', 'f')});
  };
  const auto not_d = [&] {
    return builder.any_of({builder.byte('0', '9'), builder.byte('A', 'C'), builder.byte('E', 'F'),
                           builder.byte('a', 'c'), builder.byte('e', 'f')});
  };
  const auto d = [&] { return builder.any_of({builder.text("d"), builder.text("D")}); };
  const auto code = builder.any_of({builder.sequence({not_d(), hex(), hex(), hex()}),
                                    builder.sequence({d(), builder.byte('0', '7'), hex(), hex()})});
  std::vector<Piece> letters;
  for (const char* letter : {"\"", "\\", "/", "b", "f", "n", "r", "t"}) letters.push_back(builder.text(letter));
  letters.push_back(builder.sequence({builder.text("u"), code}));
  character_ = builder.add_rule(builder.any_of({builder.code_points({{' ', '!'}, {'#', '['}, {']', 0x10FFFF}}),
                                                builder.sequence({builder.text("\\"), builder.any_of(letters)})}));
  digit_ = builder.add_rule(builder.byte('0', '9'));
}

JsonText::Piece JsonText::string(std::int32_t min_length, std::int32_t max_length) {
  return builder_.sequence(
      {builder_.text("\""), builder_.times(character_, min_length, max_length), builder_.text("\"")});
}

JsonText::Piece JsonText::digits(std::int32_t low, std::int32_t high) {
  return builder_.times(digit_, low, high);
}

JsonText::Piece JsonText::any_integer() {
  return builder_.sequence(
      {builder_.optional(builder_.text("-")),
       builder_.any_of({builder_.text("0"), builder_.sequence({builder_.byte('1', '9'), digits(0, kMaxDigits - 1)})})});
}

JsonText::Piece JsonText::any_number() {
  const Piece fraction = builder_.sequence({builder_.text("."), digits(1, kMaxDigits)});
  const Piece sign = builder_.optional(builder_.any_of({builder_.text("+"), builder_.text("-")}));
  const Piece exponent =
      builder_.sequence({builder_.any_of({builder_.text("e"), builder_.text("E")}), sign, digits(1, 2)});
  return builder_.sequence({any_integer(), builder_.optional(fraction), builder_.optional(exponent)});
}

std::int32_t JsonText::any_value_rule(int depth) {
  std::int32_t& rule = any_[depth];
  if (rule >= 0) return rule;
  std::vector<Piece> kinds{string(), any_number(), boolean(), null()};
  if (depth > 0) {
    kinds.push_back(any_object(depth));
    kinds.push_back(any_array(depth));
  }
  return rule = builder_.add_rule(builder_.any_of(kinds));
}

JsonText::Piece JsonText::any_object(int depth) {
  return map(any_value_rule(depth - 1));
}

JsonText::Piece JsonText::any_array(int depth) {
  return list(any_value_rule(depth - 1), 0, -1);
}

JsonText::Piece JsonText::map(std::int32_t value_rule) {
  const std::int32_t pair =
      builder_.add_rule(builder_.sequence({string(), builder_.text(":"), space(), builder_.call(value_rule)}));
  const std::int32_t next = builder_.add_rule(builder_.sequence({builder_.text(","), space(), builder_.call(pair)}));
  const Piece some = builder_.sequence({space(), builder_.call(pair), builder_.times(next, 0, -1), space()});
  return builder_.sequence({builder_.text("{"), builder_.optional(some), builder_.text("}")});
}

JsonText::Piece JsonText::list(std::int32_t item_rule, std::int32_t low, std::int32_t high) {
  if (high == 0) return builder_.text("[]");
  const std::int32_t next =
      builder_.add_rule(builder_.sequence({builder_.text(","), space(), builder_.call(item_rule)}));
  const Piece some = builder_.sequence({space(), builder_.call(item_rule),
                                        builder_.times(next, std::max(low, 1) - 1, high < 0 ? -1 : high - 1), space()});
  return builder_.sequence({builder_.text("["), low > 0 ? some : builder_.optional(some), builder_.text("]")});
}

namespace {

// Texts of as many digits as both have, from `low` to `high` in their order.
SyntaxBuilder::Piece same_length(SyntaxBuilder& builder, std::int32_t digit, const std::string& low,
                                 const std::string& high) {
  if (low.empty()) return builder.empty();
  const auto rest = static_cast<std::int32_t>(low.size()) - 1;
  if (low.find_first_not_of('0') == std::string::npos && high.find_first_not_of('9') == std::string::npos) {
    return builder.times(digit, rest + 1, rest + 1);
  }
  const auto one = [&](char c, const std::string& from, const std::string& to) {
    return builder.sequence({builder.text(std::string(1, c)), same_length(builder, digit, from, to)});
  };
  const std::string nines(low.size() - 1, '9'), zeros(low.size() - 1, '0');
  if (low[0] == high[0]) return one(low[0], low.substr(1), high.substr(1));
  std::vector<SyntaxBuilder::Piece> ways{one(low[0], low.substr(1), nines), one(high[0], zeros, high.substr(1))};
  if (high[0] - low[0] > 1) {
    ways.push_back(
        builder.sequence({builder.byte(static_cast<std::uint8_t>(low[0] + 1), static_cast<std::uint8_t>(high[0] - 1)),
                          builder.times(digit, rest, rest)}));
  }
  return builder.any_of(ways);
}

}  // namespace

// 0 ≤ low; nothing where high < low.
JsonText::Piece JsonText::whole(std::int64_t low, std::int64_t high) {
  std::vector<Piece> lengths;
  high = std::min(high, kMaxWhole);
  for (std::int64_t first = 0, last = 9; first <= high; first = last + 1, last = last * 10 + 9) {
    if (std::max(first, low) > std::min(last, high)) continue;
    lengths.push_back(
        same_length(builder_, digit_, std::to_string(std::max(first, low)), std::to_string(std::min(last, high))));
  }
  return lengths.empty() ? builder_.nothing() : builder_.any_of(lengths);
}

JsonText::Piece JsonText::integer(std::optional<std::int64_t> low, std::optional<std::int64_t> high) {
  const std::int64_t least = std::clamp(low.value_or(-kMaxWhole), -kMaxWhole - 1, kMaxWhole + 1);
  const std::int64_t most = std::clamp(high.value_or(kMaxWhole), -kMaxWhole - 1, kMaxWhole + 1);
  std::vector<Piece> signs{whole(std::max<std::int64_t>(least, 0), most)};
  if (least < 0) {
    signs.push_back(builder_.sequence({builder_.text("-"), whole(std::max<std::int64_t>(-most, 1), -least)}));
  }
  return builder_.any_of(signs);
}

// Decimals from `low` ≥ 0 to `high`. So few digits that a double holds them all: none may round onto a bound.
JsonText::Piece JsonText::magnitude(Bound low, Bound high) {
  const auto fraction = [this] {
    return builder_.optional(builder_.sequence({builder_.text("."), digits(1, kMaxFraction)}));
  };
  std::vector<Piece> ways{
      builder_.sequence({whole(low.excluded ? low.value + 1 : low.value, high.value - 1), fraction()})};
  if (low.excluded && low.value < high.value) {
    ways.push_back(builder_.sequence({builder_.text(std::to_string(low.value)), builder_.text("."), digits(0, 2),
                                      builder_.byte('1', '9'), digits(0, 2)}));
  }
  const bool high_fits = !high.excluded && (low.value < high.value || (low.value == high.value && !low.excluded));
  if (high_fits) ways.push_back(builder_.text(std::to_string(high.value)));
  return builder_.any_of(ways);
}

JsonText::Piece JsonText::number(std::optional<Bound> low, std::optional<Bound> high) {
  if (!low && !high) return any_number();
  Bound least = low.value_or(Bound{-kMaxWhole, false}), most = high.value_or(Bound{kMaxWhole, false});
  least.value = std::clamp(least.value, -kMaxWhole, kMaxWhole);
  most.value = std::clamp(most.value, -kMaxWhole, kMaxWhole);
  std::vector<Piece> signs{builder_.nothing()};
  if (most.value >= 0) signs.push_back(magnitude(least.value < 0 ? Bound{} : least, most));
  if (least.value < 0) {
    // Of two numbers below zero the lower one has the higher magnitude. "-0" is none of them.
    const Bound from = most.value >= 0 ? Bound{0, true} : Bound{-most.value, most.excluded};
    signs.push_back(builder_.sequence({builder_.text("-"), magnitude(from, {-least.value, least.excluded})}));
  }
  return builder_.any_of(signs);
}

}  // namespace multiverse

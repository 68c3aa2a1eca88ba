#include "config/knob.h"

#include <algorithm>
#include <cctype>
#include <charconv>
#include <cmath>
#include <numeric>
#include <optional>
#include <type_traits>

#include "multiverse/base/check.h"

namespace multiverse {
namespace {

constexpr std::string_view kSuffixes = "kmgt";

std::string bytes_text(std::int64_t bytes) {
  std::size_t unit = 0;
  while (bytes != 0 && bytes % 1024 == 0 && unit < kSuffixes.size()) {
    bytes /= 1024;
    ++unit;
  }
  static constexpr std::string_view kShown = "kMGT";
  return unit == 0 ? std::to_string(bytes) : std::to_string(bytes) + kShown[unit - 1];
}

std::string number_text(double value) {
  char buffer[40];
  const auto written = std::to_chars(buffer, buffer + sizeof buffer, value);
  return {buffer, written.ptr};
}

std::optional<std::int64_t> parse_integer(const Knob& knob, std::string_view text) {
  std::int64_t scale = 1;
  if (knob.is_bytes && !text.empty()) {
    const std::size_t unit = kSuffixes.find(static_cast<char>(std::tolower(text.back() & 0xFF)));
    if (unit != std::string_view::npos) {
      scale = std::int64_t{1} << (10 * (unit + 1));
      text.remove_suffix(1);
    }
  }
  std::int64_t value = 0;
  const auto parsed = std::from_chars(text.data(), text.data() + text.size(), value);
  if (parsed.ec != std::errc() || parsed.ptr != text.data() + text.size()) return std::nullopt;
  if (__builtin_mul_overflow(value, scale, &value) || value < knob.min || value > knob.max) return std::nullopt;
  return value;
}

std::optional<double> parse_number(const Knob& knob, std::string_view text) {
  double value = 0;
  const auto parsed = std::from_chars(text.data(), text.data() + text.size(), value);
  if (parsed.ec != std::errc() || parsed.ptr != text.data() + text.size() || !std::isfinite(value)) return std::nullopt;
  if (value < static_cast<double>(knob.min) || value > static_cast<double>(knob.max)) return std::nullopt;
  return value;
}

std::optional<bool> parse_flag(std::string_view text) {
  for (const std::string_view yes : {"true", "1", "on", "yes"}) {
    if (text == yes) return true;
  }
  for (const std::string_view no : {"false", "0", "off", "no"}) {
    if (text == no) return false;
  }
  return std::nullopt;
}

// "cuda" or "cuda:N".
bool is_cuda_device(std::string_view text) {
  if (text.substr(0, 4) != "cuda") return false;
  text.remove_prefix(4);
  if (text.empty()) return true;
  return text.size() >= 2 && text.size() <= 4 && text[0] == ':' &&
         text.find_first_not_of("0123456789", 1) == std::string_view::npos;
}

bool is_allowed_text(const Knob& knob, std::string_view text) {
  if (text.find('\0') != std::string_view::npos) return false;
  if (knob.choices.empty()) return true;
  if (std::find(knob.choices.begin(), knob.choices.end(), text) != knob.choices.end()) return true;
  if (knob.name == "device") return is_cuda_device(text);
  return !knob.or_other.empty() && !text.empty();
}

std::optional<std::vector<std::string>> parse_list(std::string_view text) {
  std::vector<std::string> out;
  while (!text.empty()) {
    const std::size_t end = std::min(text.find(','), text.size());
    std::string_view item = text.substr(0, end);
    while (!item.empty() && item.front() == ' ') item.remove_prefix(1);
    while (!item.empty() && item.back() == ' ') item.remove_suffix(1);
    if (item.empty()) return std::nullopt;
    out.emplace_back(item);
    if (end + 1 == text.size()) return std::nullopt;  // a comma at the end
    text.remove_prefix(std::min(end + 1, text.size()));
  }
  return out;
}

std::size_t edit_distance(std::string_view a, std::string_view b) {
  std::vector<std::size_t> row(b.size() + 1);
  std::iota(row.begin(), row.end(), std::size_t{0});
  for (std::size_t i = 1; i <= a.size(); ++i) {
    std::size_t diagonal = std::exchange(row[0], i);
    for (std::size_t j = 1; j <= b.size(); ++j) {
      const std::size_t substituted = diagonal + (a[i - 1] == b[j - 1] ? 0 : 1);
      diagonal = row[j];
      row[j] = std::min({row[j] + 1, row[j - 1] + 1, substituted});
    }
  }
  return row.back();
}

template <class T>
using MemberType = T ServerConfig::*;

constexpr std::string_view kOpen = "auto";  // a flag that was not said; null in a file

}  // namespace

bool is_flag(const Knob& knob) {
  return std::holds_alternative<MemberType<bool>>(knob.member) ||
         std::holds_alternative<MemberType<std::optional<bool>>>(knob.member);
}

std::string flag_of(std::string_view name) {
  std::string out = "--" + std::string(name);
  std::replace(out.begin(), out.end(), '_', '-');
  return out;
}

std::string variable_of(std::string_view name) {
  std::string out = "MULTIVERSE_" + std::string(name);
  std::transform(out.begin(), out.end(), out.begin(), [](char c) { return static_cast<char>(std::toupper(c & 0xFF)); });
  return out;
}

std::string allowed(const Knob& knob) {
  const auto bound = [&](std::int64_t value) { return knob.is_bytes ? bytes_text(value) : std::to_string(value); };
  if (std::holds_alternative<MemberType<std::int64_t>>(knob.member)) {
    return concat(knob.is_bytes ? "a number of bytes (k, M, G and T may follow) from " : "an integer from ",
                  bound(knob.min), " to ", bound(knob.max));
  }
  if (std::holds_alternative<MemberType<double>>(knob.member)) {
    return concat("a number from ", knob.min, " to ", knob.max);
  }
  if (std::holds_alternative<MemberType<std::optional<bool>>>(knob.member)) return "true, false or auto";
  if (is_flag(knob)) return "true or false";
  if (std::holds_alternative<MemberType<std::vector<std::string>>>(knob.member)) return "names separated by commas";
  if (knob.choices.empty()) return "a text";
  std::string out = knob.choices.size() > 1 ? "one of " : "";
  for (std::size_t i = 0; i < knob.choices.size(); ++i) out += (i > 0 ? ", " : "") + std::string(knob.choices[i]);
  if (!knob.or_other.empty()) out += " or " + std::string(knob.or_other);
  return out;
}

std::string value_text(const Knob& knob, const ServerConfig& config) {
  return std::visit(
      [&](auto member) -> std::string {
        const auto& value = config.*member;
        using T = std::decay_t<decltype(value)>;
        if constexpr (std::is_same_v<T, std::string>) {
          return value;
        } else if constexpr (std::is_same_v<T, std::int64_t>) {
          return knob.is_bytes ? bytes_text(value) : std::to_string(value);
        } else if constexpr (std::is_same_v<T, double>) {
          return number_text(value);
        } else if constexpr (std::is_same_v<T, bool>) {
          return value ? "true" : "false";
        } else if constexpr (std::is_same_v<T, std::optional<bool>>) {
          return !value ? std::string(kOpen) : *value ? "true" : "false";
        } else {
          std::string out;
          for (const std::string& item : value) out += (out.empty() ? "" : ",") + item;
          return out;
        }
      },
      knob.member);
}

bool set_from_text(const Knob& knob, std::string_view text, ServerConfig& config) {
  const auto take = [](auto& field, auto parsed) {
    if (!parsed) return false;
    field = *std::move(parsed);
    return true;
  };
  return std::visit(
      [&](auto member) {
        auto& field = config.*member;
        using T = std::decay_t<decltype(field)>;
        if constexpr (std::is_same_v<T, std::string>) {
          return take(field, is_allowed_text(knob, text) ? std::optional<std::string>(text) : std::nullopt);
        } else if constexpr (std::is_same_v<T, std::int64_t>) {
          return take(field, parse_integer(knob, text));
        } else if constexpr (std::is_same_v<T, double>) {
          return take(field, parse_number(knob, text));
        } else if constexpr (std::is_same_v<T, bool>) {
          return take(field, parse_flag(text));
        } else if constexpr (std::is_same_v<T, std::optional<bool>>) {
          if (text != kOpen) return take(field, parse_flag(text));
          field = std::nullopt;
          return true;
        } else {
          return take(field, parse_list(text));
        }
      },
      knob.member);
}

std::string nearest(std::string_view name, const std::vector<std::string>& names) {
  std::string best;
  std::size_t best_distance = std::max<std::size_t>(2, name.size() / 3) + 1;
  for (const std::string& candidate : names) {
    const std::size_t distance = edit_distance(name, candidate);
    if (distance < best_distance) {
      best_distance = distance;
      best = candidate;
    }
  }
  return best;
}

}  // namespace multiverse

#include "constrain/json_schema.h"

#include <algorithm>
#include <cmath>
#include <map>
#include <optional>
#include <set>
#include <utility>
#include <vector>

#include "constrain/json_text.h"
#include "constrain/regex.h"

namespace multiverse {
namespace {

using Piece = SyntaxBuilder::Piece;

constexpr int kMaxSchemaDepth = 64;
constexpr std::size_t kMaxSubschemas = 4096;
constexpr std::size_t kMaxProperties = 256;
constexpr std::size_t kMaxEnum = 1000;
constexpr std::int64_t kMaxRepeat = 10'000;  // of characters and items

// Say something about a schema, but nothing about its values.
const std::set<std::string> kAnnotations{"title", "description", "default",    "examples", "$schema",
                                         "$id",   "$comment",    "deprecated", "readOnly", "writeOnly",
                                         "$defs", "definitions", "$anchor",    "example",  "$vocabulary"};

const std::map<std::string, std::string> kFormats{
    {"date", R"(^[0-9]{4}-(0[1-9]|1[0-2])-(0[1-9]|1[0-9]|2[0-8])$)"},
    {"time", R"(^([01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9](\.[0-9]{1,6})?(Z|[+-]([01][0-9]|2[0-3]):[0-5][0-9])$)"},
    {"date-time",
     R"(^[0-9]{4}-(0[1-9]|1[0-2])-(0[1-9]|1[0-9]|2[0-8])T([01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9](\.[0-9]{1,6})?(Z|[+-]([01][0-9]|2[0-3]):[0-5][0-9])$)"},
    {"uuid", R"(^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$)"},
    {"ipv4", R"(^((25[0-5]|2[0-4][0-9]|1[0-9][0-9]|[1-9]?[0-9])\.){3}(25[0-5]|2[0-4][0-9]|1[0-9][0-9]|[1-9]?[0-9])$)"},
    {"email", R"(^[a-z0-9]([a-z0-9_+-]{0,30}[a-z0-9])?@([a-z0-9]([a-z0-9-]{0,30}[a-z0-9])?\.){1,4}[a-z]{2,12}$)"},
};

bool has_type(const SchemaJson& value, const std::string& type) {
  if (type == "integer") {
    return value.is_number_integer() || (value.is_number() && std::floor(value.get<double>()) == value.get<double>());
  }
  return (type == "string" && value.is_string()) || (type == "number" && value.is_number()) ||
         (type == "boolean" && value.is_boolean()) || (type == "null" && value.is_null()) ||
         (type == "object" && value.is_object()) || (type == "array" && value.is_array());
}

class Compiler {
 public:
  Compiler(SyntaxBuilder& builder, const SchemaJson& schema) : builder_(builder), json_(builder), whole_(schema) {}

  Result<std::int32_t> compile() {
    const std::int32_t root = rule(whole_, "#", 0);
    // Schemas that references name are compiled once each, after what names them.
    while (!pending_.empty() && !error_) {
      const auto [target, where] = pending_.back();
      pending_.pop_back();
      builder_.define(target, schema(*find(where), where, 0));
    }
    if (builder_.overflow())
      fail("#", "is too large for this server: use fewer properties, or lower maxItems and maxLength");
    if (error_) return *error_;
    return root;
  }

 private:
  void fail(const std::string& where, const std::string& what) {
    if (!error_) error_ = invalid_argument(concat("the schema at ", where.substr(0, 200), " ", what));
  }
  Piece failed(const std::string& where, const std::string& what) {
    fail(where, what);
    return builder_.empty();
  }
  bool stop() const { return error_ || builder_.overflow(); }

  std::int32_t rule(const SchemaJson& value, const std::string& where, int depth) {
    return builder_.add_rule(schema(value, where, depth));
  }

  Piece schema(const SchemaJson& value, const std::string& where, int depth) {
    if (stop()) return builder_.empty();
    if (++subschemas_ > kMaxSubschemas) return failed(where, concat("is one of more than ", kMaxSubschemas));
    if (depth > kMaxSchemaDepth) return failed(where, concat("is more than ", kMaxSchemaDepth, " deep"));
    if (value.is_boolean()) return value.get<bool>() ? json_.any_value() : builder_.nothing();
    if (!value.is_object()) return failed(where, "is neither an object nor true or false");
    if (value.contains("$ref")) return reference(value, where);
    if (value.contains("const")) return constant(value, where);
    if (value.contains("enum")) return enumeration(value, where);
    for (const char* name : {"anyOf", "oneOf", "allOf"}) {
      if (value.contains(name)) return combination(value, name, where, depth);
    }
    return typed(value, where, depth);
  }

  // Refuses every keyword that is neither an annotation nor one of these.
  void allow_only(const SchemaJson& value, const std::string& where, const std::set<std::string>& known) {
    for (const auto& [name, ignored] : value.items()) {
      if (known.count(name) != 0 || kAnnotations.count(name) != 0) continue;
      fail(where, concat("has '", name.substr(0, 64), "', which this server can't keep here; leave it out"));
    }
  }

  const SchemaJson* find(const std::string& where) {
    if (where == "#") return &whole_;
    try {
      const SchemaJson::json_pointer pointer(where.substr(1));
      return whole_.contains(pointer) ? &whole_.at(pointer) : nullptr;
    } catch (const SchemaJson::exception&) {  // not a pointer, or through a value that has no members
      return nullptr;
    }
  }

  Piece reference(const SchemaJson& value, const std::string& where) {
    allow_only(value, where, {"$ref"});
    const SchemaJson& name = value["$ref"];
    const std::string target = name.is_string() ? name.get<std::string>() : "";
    if (target.empty() || target[0] != '#' || find(target) == nullptr) {
      return failed(where, "has a '$ref' to no place in this schema");
    }
    // A chain of references that comes back to itself names nothing.
    const SchemaJson* next = find(target);
    for (std::size_t hops = 0; next != nullptr && next->is_object() && next->contains("$ref"); ++hops) {
      if (hops > kMaxSchemaDepth) return failed(where, "has a '$ref' that leads to itself");
      const SchemaJson& further = (*next)["$ref"];
      next = further.is_string() && !further.get<std::string>().empty() ? find(further.get<std::string>()) : nullptr;
    }
    const auto [known, fresh] = references_.emplace(target, -1);
    if (fresh) {
      known->second = builder_.add_rule();
      pending_.emplace_back(known->second, target);
    }
    return builder_.call(known->second);
  }

  std::optional<std::vector<std::string>> types(const SchemaJson& value, const std::string& where) {
    if (!value.contains("type")) return std::nullopt;
    const SchemaJson& type = value["type"];
    std::vector<std::string> names;
    for (const SchemaJson& one : type.is_array() ? type : SchemaJson::array({type})) {
      static const std::set<std::string> kTypes{"string", "number", "integer", "boolean", "null", "object", "array"};
      if (!one.is_string() || kTypes.count(one.get<std::string>()) == 0) {
        fail(where, "has a 'type' that is none of JSON Schema's");
        continue;
      }
      names.push_back(one.get<std::string>());
    }
    return names;
  }

  Piece literals(const std::vector<SchemaJson>& values, const SchemaJson& value, const std::string& where) {
    const auto wanted = types(value, where);
    std::vector<Piece> ways;
    for (const SchemaJson& one : values) {
      const bool fits = !wanted || std::any_of(wanted->begin(), wanted->end(),
                                               [&](const std::string& type) { return has_type(one, type); });
      if (fits) ways.push_back(builder_.text(one.dump()));
    }
    return ways.empty() ? builder_.nothing() : builder_.any_of(ways);
  }

  Piece constant(const SchemaJson& value, const std::string& where) {
    allow_only(value, where, {"const", "type"});
    return literals({value["const"]}, value, where);
  }

  Piece enumeration(const SchemaJson& value, const std::string& where) {
    allow_only(value, where, {"enum", "type"});
    const SchemaJson& values = value["enum"];
    if (!values.is_array() || values.empty() || values.size() > kMaxEnum) {
      return failed(where, concat("has an 'enum' that is no list of 1 to ", kMaxEnum, " values"));
    }
    return literals(values.get<std::vector<SchemaJson>>(), value, where);
  }

  Piece combination(const SchemaJson& value, const std::string& name, const std::string& where, int depth) {
    allow_only(value, where, {name});
    const SchemaJson& parts = value[name];
    if (!parts.is_array() || parts.empty())
      return failed(where, concat("has an '", name, "' that is no list of schemas"));
    if (name == "allOf" && parts.size() > 1)
      return failed(where, "has an 'allOf' of several schemas; merge them into one");
    if (name == "oneOf" && parts.size() > 1 && !are_disjoint(parts)) {
      return failed(where,
                    "has a 'oneOf' whose schemas can't be told apart by type or by a required property with a 'const'; "
                    "use 'anyOf'");
    }
    std::vector<Piece> ways;
    for (std::size_t i = 0; i < parts.size() && !stop(); ++i) {
      ways.push_back(schema(parts[i], concat(where, "/", name, "/", i), depth + 1));
    }
    return ways.empty() ? builder_.nothing() : builder_.any_of(ways);
  }

  // Whether no value satisfies two of these: their types differ, or a property that all require has another value.
  bool are_disjoint(const SchemaJson& parts) {
    std::vector<const SchemaJson*> schemas;
    for (std::size_t i = 0; i < parts.size(); ++i) {
      const SchemaJson* part = &parts[i];
      for (int hops = 0; part != nullptr && part->is_object() && part->contains("$ref") && hops < kMaxSchemaDepth;
           ++hops) {
        const SchemaJson& target = (*part)["$ref"];
        part = target.is_string() && !target.get<std::string>().empty() ? find(target.get<std::string>()) : nullptr;
      }
      if (part == nullptr || !part->is_object()) return false;
      schemas.push_back(part);
    }
    std::set<std::string> kinds;
    for (const SchemaJson* part : schemas) {
      std::string kind =
          part->contains("type") && (*part)["type"].is_string() ? (*part)["type"].get<std::string>() : "";
      if (kind == "integer") kind = "number";
      kinds.insert(kind);
    }
    if (kinds.size() == schemas.size() && kinds.count("") == 0) return true;
    const SchemaJson& first = *schemas.front();
    if (!first.contains("properties") || !first["properties"].is_object()) return false;
    for (const auto& [name, ignored] : first["properties"].items()) {
      if (tells_apart(schemas, name)) return true;
    }
    return false;
  }

  static bool tells_apart(const std::vector<const SchemaJson*>& schemas, const std::string& name) {
    std::set<std::string> values;
    for (const SchemaJson* part : schemas) {
      const bool required =
          part->contains("required") && (*part)["required"].is_array() &&
          std::find((*part)["required"].begin(), (*part)["required"].end(), name) != (*part)["required"].end();
      const bool object = part->contains("type") && (*part)["type"] == "object";
      if (!required || !object || !part->contains("properties") || !(*part)["properties"].is_object()) return false;
      const SchemaJson& properties = (*part)["properties"];
      if (!properties.contains(name) || !properties[name].is_object()) return false;
      const SchemaJson& property = properties[name];
      const bool single = property.contains("enum") && property["enum"].is_array() && property["enum"].size() == 1;
      if (!property.contains("const") && !single) return false;
      if (!values.insert((single ? property["enum"][0] : property["const"]).dump()).second) return false;
    }
    return true;
  }

  // A schema without `type` takes the types that its keywords are about, and where it has none, any value.
  Piece typed(const SchemaJson& value, const std::string& where, int depth) {
    static const std::vector<std::pair<std::string, std::set<std::string>>> kKeywords{
        {"string", {"minLength", "maxLength", "pattern", "format"}},
        {"number", {"minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum"}},
        {"object", {"properties", "required", "additionalProperties"}},
        {"array", {"items", "prefixItems", "minItems", "maxItems"}},
    };
    std::optional<std::vector<std::string>> names = types(value, where);
    if (!names) {
      names.emplace();
      for (const auto& [type, keywords] : kKeywords) {
        const bool about = std::any_of(keywords.begin(), keywords.end(),
                                       [&](const std::string& keyword) { return value.contains(keyword); });
        if (about) names->push_back(type);
      }
      allow_only(value, where, names->empty() ? std::set<std::string>{} : all_keywords(kKeywords));
      if (names->empty()) return json_.any_value();
    }
    std::set<std::string> known = all_keywords(kKeywords);
    known.insert("type");
    allow_only(value, where, known);
    std::vector<Piece> ways;
    for (const std::string& name : *names) {
      if (stop()) break;
      ways.push_back(of_type(name, value, where, depth));
    }
    return ways.empty() ? builder_.nothing() : builder_.any_of(ways);
  }

  static std::set<std::string> all_keywords(const std::vector<std::pair<std::string, std::set<std::string>>>& groups) {
    std::set<std::string> all;
    for (const auto& [type, keywords] : groups) all.insert(keywords.begin(), keywords.end());
    return all;
  }

  Piece of_type(const std::string& type, const SchemaJson& value, const std::string& where, int depth) {
    if (type == "boolean") return json_.boolean();
    if (type == "null") return json_.null();
    if (type == "string") return string(value, where);
    if (type == "object") return object(value, where, depth);
    if (type == "array") return array(value, where, depth);
    return number(type == "integer", value, where);
  }

  std::optional<std::int64_t> count(const SchemaJson& value, const char* name, const std::string& where) {
    if (!value.contains(name)) return std::nullopt;
    const SchemaJson& number = value[name];
    if (number.is_number_integer() && number >= 0 && number <= kMaxRepeat) return number.get<std::int64_t>();
    fail(where, concat("has a '", name, "' that is no whole number from 0 to ", kMaxRepeat));
    return std::nullopt;
  }

  Piece string(const SchemaJson& value, const std::string& where) {
    const bool has_pattern = value.contains("pattern"), has_format = value.contains("format");
    const auto low = count(value, "minLength", where), high = count(value, "maxLength", where);
    if ((has_pattern || has_format) && (low || high || (has_pattern && has_format))) {
      return failed(where, "joins 'pattern' or 'format' with another keyword on the same string; keep one of them");
    }
    if (!has_pattern && !has_format) {
      if (high && low.value_or(0) > *high) return builder_.nothing();
      return json_.string(static_cast<std::int32_t>(low.value_or(0)), static_cast<std::int32_t>(high.value_or(-1)));
    }
    const char* keyword = has_pattern ? "pattern" : "format";
    if (!value[keyword].is_string()) return failed(where, concat("has a '", keyword, "' that is no string"));
    std::string pattern = value[keyword].get<std::string>();
    if (has_format) {
      const auto format = kFormats.find(pattern);
      if (format == kFormats.end())
        return failed(where, concat("has the format '", pattern.substr(0, 64), "', which is not supported"));
      pattern = format->second;
    }
    const auto inside = add_regex(builder_, pattern, RegexUse::kInsideJson);
    if (!inside.ok()) return failed(where, concat("has a 'pattern': ", inside.error().message));
    return builder_.sequence({builder_.text("\""), inside.value(), builder_.text("\"")});
  }

  // A bound as a whole number within ±`most`; rounded for integers, where a fraction makes it so.
  std::optional<JsonText::Bound> bound(const SchemaJson& value, const char* plain, const char* excluding, bool is_low,
                                       bool integer, const std::string& where) {
    std::optional<JsonText::Bound> strictest;
    for (const bool excluded : {false, true}) {
      const char* name = excluded ? excluding : plain;
      if (!value.contains(name)) continue;
      const double most = static_cast<double>(integer ? JsonText::kMaxWhole : JsonText::kMaxBound);
      const SchemaJson& given = value[name];
      const double limit = given.is_number() ? given.get<double>() : NAN;
      const bool whole = std::floor(limit) == limit;
      if (!(std::fabs(limit) <= most) || (!whole && !integer)) {
        fail(where, concat("has a '", name, "' that is no ", integer ? "" : "whole ", "number within ±",
                           integer ? JsonText::kMaxWhole : JsonText::kMaxBound));
        continue;
      }
      JsonText::Bound found{static_cast<std::int64_t>(is_low ? std::ceil(limit) : std::floor(limit)), excluded};
      if (integer && excluded) found = {whole ? found.value + (is_low ? 1 : -1) : found.value, false};
      const bool stricter = !strictest || (is_low ? found.value > strictest->value : found.value < strictest->value) ||
                            (found.value == strictest->value && excluded);
      if (stricter) strictest = found;
    }
    return strictest;
  }

  Piece number(bool integer, const SchemaJson& value, const std::string& where) {
    const auto low = bound(value, "minimum", "exclusiveMinimum", true, integer, where);
    const auto high = bound(value, "maximum", "exclusiveMaximum", false, integer, where);
    if (!integer) return json_.number(low, high);
    if (!low && !high) return json_.any_integer();
    return json_.integer(low ? std::optional(low->value) : std::nullopt,
                         high ? std::optional(high->value) : std::nullopt);
  }

  Piece array(const SchemaJson& value, const std::string& where, int depth) {
    const std::int64_t low = count(value, "minItems", where).value_or(0);
    std::int64_t high = count(value, "maxItems", where).value_or(-1);
    if (value.contains("prefixItems")) return tuple(value, where, depth, low, high);
    const SchemaJson items = value.contains("items") ? value["items"] : SchemaJson(true);
    if (items == false) high = 0;
    if (high >= 0 && low > high) return builder_.nothing();
    return json_.list(items == true ? builder_.add_rule(json_.any_value()) : rule(items, where + "/items", depth + 1),
                      static_cast<std::int32_t>(low), static_cast<std::int32_t>(high));
  }

  // Exactly the items of `prefixItems`, which `items: false` or the counts must say.
  Piece tuple(const SchemaJson& value, const std::string& where, int depth, std::int64_t low, std::int64_t high) {
    const SchemaJson& items = value["prefixItems"];
    const bool closed = value.contains("items") && value["items"] == false;
    const auto size = items.is_array() ? static_cast<std::int64_t>(items.size()) : 0;
    if (size == 0 || (value.contains("items") && !closed) || low > size || (high >= 0 && high < size)) {
      return failed(where,
                    "has 'prefixItems' that are not the whole list: give 'items': false and let the counts allow it");
    }
    std::vector<Piece> pieces{builder_.text("["), json_.space()};
    for (std::int64_t i = 0; i < size && !stop(); ++i) {
      if (i > 0) pieces.insert(pieces.end(), {builder_.text(","), json_.space()});
      pieces.push_back(schema(items[static_cast<std::size_t>(i)], concat(where, "/prefixItems/", i), depth + 1));
    }
    pieces.insert(pieces.end(), {json_.space(), builder_.text("]")});
    return builder_.sequence(pieces);
  }

  struct Property {
    std::int32_t rule = -1;
    bool required = false;
  };

  Piece object(const SchemaJson& value, const std::string& where, int depth) {
    const SchemaJson named = value.contains("properties") ? value["properties"] : SchemaJson::object();
    const SchemaJson others = value.contains("additionalProperties") ? value["additionalProperties"] : SchemaJson(true);
    const SchemaJson required = value.contains("required") ? value["required"] : SchemaJson::array();
    if (!named.is_object() || named.size() > kMaxProperties) {
      return failed(where, concat("has 'properties' that are no object of at most ", kMaxProperties));
    }
    std::set<std::string> wanted;
    for (const SchemaJson& name : required.is_array() ? required : SchemaJson::array({1})) {
      if (!name.is_string()) return failed(where, "has a 'required' that is no list of names");
      wanted.insert(name.get<std::string>());
    }
    if (named.empty() && wanted.empty()) {
      if (others == false) return builder_.text("{}");
      return json_.map(others == true ? builder_.add_rule(json_.any_value())
                                      : rule(others, where + "/additionalProperties", depth + 1));
    }
    std::vector<Property> properties;
    const auto add = [&](const std::string& name, const SchemaJson& of, const std::string& place) {
      const Piece content = schema(of, place, depth + 1);
      const Piece pair = builder_.sequence({builder_.text(SchemaJson(name).dump() + ":"), json_.space(), content});
      properties.push_back({builder_.add_rule(pair), wanted.count(name) != 0});
    };
    for (const auto& [name, of] : named.items()) {
      if (stop()) return builder_.empty();
      add(name, of, concat(where, "/properties/", name));
    }
    if (wanted.size() > kMaxProperties)
      return failed(where, concat("requires more than ", kMaxProperties, " properties"));
    for (const std::string& name : wanted) {
      if (!named.contains(name)) add(name, others, where + "/additionalProperties");
    }
    return members(properties);
  }

  // `{`, the properties in order, optional ones or not, with commas between those that are there, `}`.
  Piece members(const std::vector<Property>& properties) {
    const Piece close = builder_.sequence({json_.space(), builder_.text("}")});
    const Piece open = builder_.sequence({builder_.text("{")});
    // Before each property: the place where none has been written yet, and the one where some have.
    std::int32_t first = builder_.add_state();
    std::int32_t further = builder_.add_state();
    const std::int32_t begin = builder_.add_state();  // after the white space that only a property needs
    builder_.connect(open.end, begin);
    const Piece space = json_.space();
    builder_.connect(begin, space.start);
    builder_.connect(space.end, first);
    bool may_be_empty = true;
    for (const Property& property : properties) {
      const std::int32_t next_first = builder_.add_state(), next_further = builder_.add_state();
      const Piece alone = builder_.call(property.rule);
      const Piece with_comma = builder_.sequence({builder_.text(","), json_.space(), builder_.call(property.rule)});
      builder_.connect(first, alone.start);
      builder_.connect(alone.end, next_further);
      builder_.connect(further, with_comma.start);
      builder_.connect(with_comma.end, next_further);
      if (!property.required) {
        builder_.connect(first, next_first);
        builder_.connect(further, next_further);
      }
      may_be_empty = may_be_empty && !property.required;
      first = next_first;
      further = next_further;
    }
    builder_.connect(further, close.start);
    const std::int32_t end = builder_.add_state();
    builder_.connect(close.end, end);
    if (may_be_empty) {
      const Piece nothing_inside = builder_.text("}");
      builder_.connect(begin, nothing_inside.start);
      builder_.connect(nothing_inside.end, end);
    }
    return {open.start, end};
  }

  SyntaxBuilder& builder_;
  JsonText json_;
  const SchemaJson& whole_;
  std::size_t subschemas_ = 0;
  std::map<std::string, std::int32_t> references_;  // place in the schema → rule
  std::vector<std::pair<std::int32_t, std::string>> pending_;
  std::optional<Error> error_;
};

}  // namespace

std::int32_t add_json_object(SyntaxBuilder& builder) {
  JsonText json(builder);
  return builder.add_rule(json.any_object());
}

Result<std::int32_t> add_json_schema(SyntaxBuilder& builder, const SchemaJson& schema) {
  return Compiler(builder, schema).compile();
}

}  // namespace multiverse

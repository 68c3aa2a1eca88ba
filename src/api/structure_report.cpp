#include "multiverse/api/structure_report.h"

#include <algorithm>

#include "api/common_fields.h"
#include "api/field_reader.h"
#include "api/json.h"
#include "api/prompt.h"
#include "api/token_text.h"

namespace multiverse {
namespace {

OrderedJson tree(const Structure& structure) {
  OrderedJson out = OrderedJson::array();
  for (const TextPath& path : structure.paths) {
    out.push_back({{"id", to_string(path.address)},
                   {"label", path.label},
                   {"begin", path.begin},
                   {"end", path.end},
                   {"tokens", path.own_tokens},
                   {"ended", path.ended}});
  }
  return out;
}

OrderedJson segments_of(const StructuredText& text, const Tokenizer& tokenizer) {
  OrderedJson out = OrderedJson::array();
  for (const TextSegment& segment : text.structure.segments) {
    const auto begin = text.tokens.begin() + segment.begin, end = text.tokens.begin() + segment.end;
    const auto drawn =
        std::count(text.structure.forced.begin() + segment.begin, text.structure.forced.begin() + segment.end, false);
    const std::string id =
        segment.path < 0 ? "" : to_string(text.structure.paths[static_cast<std::size_t>(segment.path)].address);
    out.push_back({{"id", id},
                   {"text", tokenizer.decode({begin, end})},
                   {"tokens", segment.end - segment.begin},
                   {"first_step", segment.first_step},
                   {"last_step", segment.first_step + drawn}});
  }
  return out;
}

}  // namespace

StructuredText::StructuredText(std::string_view text, const Tokenizer& tokenizer, const Dialect& dialect)
    : tokens(tokenizer.encode(text, Trust::kAll)), structure(read_structure(tokens, dialect, StructureLimits{})) {}

std::string MalformedPlace::text() const {
  return concat("line ", line, ", column ", column);
}

std::vector<MalformedPlace> malformed_places(const StructuredText& text, const Tokenizer& tokenizer) {
  std::vector<MalformedPlace> places;
  const std::vector<std::int32_t>& malformed = text.structure.malformed;
  const std::vector<TextSegment>& segments = text.structure.segments;
  IncrementalDetokenizer detokenizer;
  MalformedPlace here;
  for (; here.token < static_cast<std::int32_t>(text.tokens.size()) && places.size() < malformed.size(); ++here.token) {
    if (here.token == segments[static_cast<std::size_t>(here.segment)].end) {
      ++here.segment;
      here.offset = 0;
      detokenizer = {};
    }
    if (here.token == malformed[places.size()]) places.push_back(here);
    const std::string_view bytes = tokenizer.token_bytes(text.tokens[static_cast<std::size_t>(here.token)]);
    here.offset += static_cast<std::int64_t>(count_code_points(detokenizer.append(bytes)));
    for (const char c : bytes) {
      here.column = c == '\n' ? 1 : here.column + 1;
      here.line += c == '\n' ? 1 : 0;
    }
  }
  return places;
}

std::string structure_report(const std::string& id, const StructuredText& text, const Tokenizer& tokenizer,
                             bool segments) {
  const TreeStatistics& counted = text.structure.statistics;
  OrderedJson out = OrderedJson::object();
  if (!id.empty()) out["id"] = id;
  out.update({{"tokens", text.tokens.size()},
              {"critical_path_tokens", counted.critical_path_tokens},
              {"steps", counted.steps},
              {"blocks", counted.blocks},
              {"paths", counted.paths},
              {"max_width", counted.max_width},
              {"max_depth", counted.max_depth},
              {"malformed", counted.malformed},
              {"tree", tree(text.structure)}});
  if (segments) out["segments"] = segments_of(text, tokenizer);
  OrderedJson places = OrderedJson::array();
  for (const MalformedPlace& place : malformed_places(text, tokenizer)) {
    if (segments && places.size() == kMaxListedPlaces) break;
    places.push_back({{"token", place.token},
                      {"text", tokenizer.token_bytes(text.tokens[static_cast<std::size_t>(place.token)])},
                      {"place", place.text()}});
    if (segments) places.back().update({{"segment", place.segment}, {"offset", place.offset}});
  }
  out["malformed_at"] = std::move(places);
  return dump(out);
}

Result<std::string> inspect_body(std::string_view request, const ServedModel& model) {
  const auto parsed = parse_body(request, model);
  if (!parsed.ok()) return parsed.error();
  FieldReader fields(parsed.value());
  const auto text = fields.text("text", kMaxInspectedBytes);
  if (!text) fields.fail(invalid_argument("'text' is missing: the text whose tree is wanted", "text"));
  if (!fields.ok()) return fields.error();
  if (!model.dialect) {
    return invalid_argument("the served model has no control tokens, so its texts have no tree");
  }
  return structure_report("", StructuredText(*text, *model.tokenizer, *model.dialect), *model.tokenizer,
                          /*segments=*/true);
}

}  // namespace multiverse

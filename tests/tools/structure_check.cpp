// Reads texts as token ids of the tests' small vocabulary and writes what read_structure() makes of them, for the
// oracle in Python to judge. A line in: 1 for the flat dialect, 2 for the third, max_paths, max_depth, prompt tokens,
// then the ids. A line out: JSON.
#include <algorithm>
#include <iostream>
#include <sstream>
#include <string>
#include <vector>

#include "multiverse/dialect/structure.h"

#include "tests/support/fake_dialect.h"

namespace multiverse::testing {
namespace {

template <class Values>
std::string list(const Values& values) {
  std::string out = "[";
  for (const auto value : values) out += (out.size() > 1 ? "," : "") + std::to_string(static_cast<long long>(value));
  return out + "]";
}

// One string of 0 and 1 for each token: which tokens up to itself it sees.
std::string visibility(const Structure& structure, std::size_t tokens) {
  std::string out = "[";
  for (const TextSegment& segment : structure.segments) {
    std::string row(tokens, '0');
    for (const std::int32_t id : segment.context) {
      const TextSegment& seen = structure.segments[static_cast<std::size_t>(id)];
      for (std::int32_t i = seen.begin; i < seen.end; ++i) row[static_cast<std::size_t>(i)] = '1';
    }
    for (std::int32_t i = segment.begin; i < segment.end; ++i) {
      row[static_cast<std::size_t>(i)] = '1';
      out += (out.size() > 1 ? ",\"" : "\"") + row.substr(0, static_cast<std::size_t>(i) + 1) + "\"";
    }
  }
  return out + "]";
}

std::string describe(const std::vector<std::int32_t>& tokens, const Dialect& dialect, const StructureLimits& limits,
                     std::int32_t prompt) {
  const Structure structure = read_structure(tokens, dialect, limits, prompt);
  std::vector<std::int32_t> positions;
  for (const TextSegment& segment : structure.segments) {
    for (std::int32_t i = segment.begin; i < segment.end; ++i)
      positions.push_back(segment.first_position + i - segment.begin);
  }
  const TreeStatistics& counted = structure.statistics;
  std::ostringstream out;
  out << "{\"position\":" << list(positions) << ",\"forced\":" << list(structure.forced)
      << ",\"malformed\":" << list(structure.malformed) << ",\"visible\":" << visibility(structure, tokens.size())
      << ",\"critical_path_tokens\":" << counted.critical_path_tokens << ",\"steps\":" << counted.steps
      << ",\"blocks\":" << counted.blocks << ",\"paths\":" << counted.paths << ",\"max_width\":" << counted.max_width
      << ",\"max_depth\":" << counted.max_depth << "}";
  return out.str();
}

}  // namespace
}  // namespace multiverse::testing

int main() {
  using namespace multiverse;
  const Dialect dialects[] = {testing::fake_dialect(), testing::flat_dialect(), testing::third_dialect()};
  for (std::string line; std::getline(std::cin, line);) {
    std::istringstream in(line);
    StructureLimits limits;
    std::int32_t prompt = 0;
    std::size_t dialect = 0;
    in >> dialect >> limits.max_paths >> limits.max_depth >> prompt;
    limits.max_total_paths = 1 << 20;
    std::vector<std::int32_t> tokens;
    for (std::int32_t token = 0; in >> token;) tokens.push_back(token);
    std::cout << testing::describe(tokens, dialects[std::min<std::size_t>(dialect, 2)], limits, prompt) << "\n";
  }
}

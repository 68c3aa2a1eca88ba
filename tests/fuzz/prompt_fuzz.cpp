// The reader of structured text holds its promises on any token list, and a request can begin with any of them.
#include <algorithm>
#include <set>

#include "multiverse/base/check.h"
#include "multiverse/scheduler/request_tree.h"

#include "tests/fuzz/fuzz_input.h"

namespace multiverse::testing {
namespace {

void check_segments(const Structure& structure, std::int32_t size) {
  std::int32_t end = 0;
  for (std::size_t i = 0; i < structure.segments.size(); ++i) {
    const TextSegment& segment = structure.segments[i];
    CHECK(segment.begin == end && segment.end > segment.begin, "segment ", i, " does not go on at ", end);
    end = segment.end;
    CHECK(segment.first_position >= 0 && segment.first_position <= segment.begin, "position ", segment.first_position);
    for (std::size_t c = 0; c < segment.context.size(); ++c) {
      const std::int32_t id = segment.context[c];
      CHECK(id >= 0 && id < static_cast<std::int32_t>(i), "segment ", i, " sees ", id);
      CHECK(c == 0 || segment.context[c - 1] < id, "the context of segment ", i, " is out of text order");
    }
  }
  CHECK(end == size, "segments cover ", end, " of ", size, " tokens");
}

void check_structure(const Structure& structure, const FuzzInput& input) {
  const auto size = static_cast<std::int32_t>(input.tokens.size());
  check_segments(structure, size);
  CHECK(structure.forced.size() == input.tokens.size(), "forced has ", structure.forced.size());
  CHECK(std::is_sorted(structure.malformed.begin(), structure.malformed.end()), "malformed is out of order");
  for (const std::int32_t token : structure.malformed) {
    CHECK(!structure.forced[static_cast<std::size_t>(token)], "token ", token, " is forced and malformed");
  }
  std::set<BranchAddress> addresses;
  for (const TextPath& path : structure.paths) {
    CHECK(path.begin < path.end && path.end <= size, "a path of [", path.begin, ", ", path.end, ")");
    CHECK(addresses.insert(path.address).second, "two paths are ", to_string(path.address));
    const auto most = std::min(input.limits.max_depth, input.dialect.max_depth);
    CHECK(static_cast<std::int32_t>(path.address.size() / 2) <= most, "path ", to_string(path.address), " is too deep");
  }
  CHECK(structure.statistics.steps <= structure.statistics.critical_path_tokens, "more steps than tokens in a chain");
  CHECK(structure.statistics.critical_path_tokens <= size, "a chain longer than the text");
}

// A model that says end-of-text at once: what the prompt leaves open is closed and concluded.
void generate_after(const FuzzInput& input) {
  GenerateRequest request;
  request.prompt = input.tokens;
  request.limits = input.limits;
  request.max_tokens = 1 + input.first_number * 4;
  RequestTree tree(1, std::move(request), &input.dialect, {1 << 20, 1 << 20, {kEndOfText}, 0});
  for (int step = 0; !tree.finished(); ++step) {
    CHECK(step < 5000, "no end after ", step, " steps");
    tree.start_waiting(0, 64);
    const auto branches = static_cast<BranchId>(tree.samples[0].branches.size());
    for (BranchId branch = 0; branch < branches; ++branch) tree.commit(0, branch, {kEndOfText, 0.0F, {}});
    tree.end_step();
  }
}

}  // namespace
}  // namespace multiverse::testing

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace multiverse::testing;
  const FuzzInput input = read_fuzz_input(data, size);
  check_structure(multiverse::read_structure(input.tokens, input.dialect, input.limits), input);
  if (!input.tokens.empty()) generate_after(input);
  return 0;
}

// Whatever tokens a model draws, in whatever order its branches advance: the text that comes out reads back as what was
// generated. Strict text is well formed besides.
#include <algorithm>

#include "multiverse/base/check.h"
#include "multiverse/scheduler/request_tree.h"

#include "tests/fuzz/fuzz_input.h"
#include "tests/support/event_text.h"

namespace multiverse::testing {
namespace {

// Draws the input's tokens in turn, then end-of-text. Returns all events.
std::vector<Event> generate(const FuzzInput& input, bool strict, std::int32_t paths_at_once) {
  GenerateRequest request;
  request.prompt = {kWord, kWord + 1};
  request.limits = input.limits;
  request.strict = strict;
  request.max_tokens = 1 + static_cast<std::int32_t>(input.tokens.size()) * 2;
  RequestTree tree(1, std::move(request), &input.dialect, {1 << 20, 1 << 20, {kEndOfText}, 0});
  std::size_t next = 0;
  std::vector<TokenId> banned;
  for (int step = 0; !tree.finished(); ++step) {
    CHECK(step < 20'000, "no end after ", step, " steps");
    tree.start_waiting(0, paths_at_once);
    const auto branches = static_cast<BranchId>(tree.samples[0].branches.size());
    for (BranchId branch = 0; branch < branches && !tree.finished(); ++branch) {
      const Sample& sample = tree.samples[0];
      const Branch& writer = sample.branches[static_cast<std::size_t>(branch)];
      if (writer.state != Branch::State::kRunning) continue;
      TokenId drawn = next < input.tokens.size() ? input.tokens[next++] : kEndOfText;
      banned.clear();
      tree.append_banned(sample, writer, banned);
      while (std::find(banned.begin(), banned.end(), drawn) != banned.end()) drawn = (drawn + 1) % kVocabulary;
      tree.commit(0, branch, {drawn, 0.0F, {}});
    }
    tree.end_step();
  }
  return std::move(tree.events);
}

void check_reads_back(const FuzzInput& input, const std::vector<Event>& events, bool strict) {
  const CanonicalSample sample = canonical_sample(events, 0);
  CHECK(sample.ends.size() == 1, sample.ends.size(), " ends");
  std::vector<TokenId> text = {kWord, kWord + 1};
  // A text whose budget ended in several paths shows each as far as it got; strict ones are whole.
  const std::size_t whole = strict ? sample.tokens.size() : sample.well_ordered;
  for (std::size_t i = 0; i < whole; ++i) text.push_back(sample.tokens[i].token);
  const Structure structure = read_structure(text, input.dialect, input.limits, 2);
  const SampleEndEvent& end = sample.ends.front();
  for (std::size_t i = 0; i < whole; ++i) {
    const bool forced = sample.tokens[i].forced && sample.tokens[i].token != kEndPath;  // that one reads as drawn
    CHECK(structure.forced[i + 2] == forced, "token ", i, " was forced: ", forced, ", and reads otherwise");
  }
  if (strict) CHECK(structure.malformed.empty() && structure.open.size() == 1, "strict text is malformed or open");
  if (end.reason != FinishReason::kStop) return;
  CHECK(end.parallel.blocks == structure.statistics.blocks && end.parallel.paths == structure.statistics.paths,
        end.parallel.paths, " paths generated, ", structure.statistics.paths, " read");
  CHECK(end.parallel.malformed == structure.statistics.malformed, end.parallel.malformed, " malformed generated, ",
        structure.statistics.malformed, " read");
}

}  // namespace
}  // namespace multiverse::testing

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace multiverse::testing;
  FuzzInput input = read_fuzz_input(data, size);
  const bool strict = input.first_number % 2 == 1;
  const std::int32_t paths_at_once = 1 + input.first_number / 2 % 4;
  input.limits.max_total_paths = 1 << 20;  // counted in the order of commits, which a reader can't know
  check_reads_back(input, generate(input, strict, paths_at_once), strict);
  return 0;
}

#include "tests/support/fake_executor.h"

#include <algorithm>
#include <charconv>
#include <unordered_set>

#include "multiverse/base/check.h"

#include "tests/support/fake_dialect.h"

namespace multiverse::testing {
namespace {

std::uint64_t mix(std::uint64_t x) {
  x = (x ^ (x >> 30)) * std::uint64_t{0xBF58476D1CE4E5B9};
  x = (x ^ (x >> 27)) * std::uint64_t{0x94D049BB133111EB};
  return x ^ (x >> 31);
}

std::uint64_t hash_of(const std::vector<SeenToken>& seen, std::uint64_t seed) {
  std::uint64_t hash = mix(seed + 1);
  for (const SeenToken& slot : seen) {
    const auto token = static_cast<std::uint32_t>(slot.token);
    const auto position = static_cast<std::uint32_t>(slot.position);
    hash = mix(hash ^ ((std::uint64_t{token} << 32) + position + 1));
  }
  return hash;
}

// A stream of choices from one hash.
class Choices {
 public:
  explicit Choices(std::uint64_t hash) : state_(hash) {}
  bool with(double probability) { return static_cast<double>(next() >> 11) * 0x1.0p-53 < probability; }
  std::int32_t below(std::int32_t bound) {
    return static_cast<std::int32_t>(next() % static_cast<std::uint64_t>(bound));
  }

 private:
  std::uint64_t next() { return state_ = mix(state_ + 0x9E3779B97F4A7C15ULL); }
  std::uint64_t state_;
};

TokenId last_control(const std::vector<SeenToken>& seen, std::size_t& distance) {
  for (distance = 0; distance < seen.size(); ++distance) {
    const TokenId token = seen[seen.size() - 1 - distance].token;
    if (token >= kParallel && token <= kEndThink) return token;
  }
  return -1;
}

TokenId structured(const std::vector<SeenToken>& seen, const Habits& habits, Choices choices) {
  if (choices.with(habits.noise)) return choices.below(kVocabulary);
  std::size_t distance = 0;
  const TokenId control = last_control(seen, distance);
  const TokenId word = kWord + choices.below(kVocabulary - kWord);
  const TokenId last = seen.back().token;
  switch (control) {
    case kParallel:
      return kGoal;
    case kGoal:
      return kOutline;
    case kOutline:
      if (last == kOutline) return kDigit + 1 + choices.below(9);
      if (last >= kDigit && last <= kDigit + 9) return choices.with(0.2) ? kDot : kColon;
      if (last == kDot) return kDigit + choices.below(10);
      return choices.with(0.5) ? word : TokenId{kEndOutline};
    case kEndOutline:
      return choices.with(habits.more_outlines) ? kOutline : kEndGoal;
    case kConclusion:
      return choices.with(0.7) ? word : TokenId{kEndConclusion};
    case kEndConclusion:
      return kEndParallel;
    case kPath:
    case kEndParallel:
    default:
      break;
  }
  if (choices.with(habits.block)) return kParallel;
  if (choices.with(habits.end_path)) return kEndPath;
  if (choices.with(habits.end_of_text)) return kEndOfText;
  return word;
}

}  // namespace

Policy structured_policy(Habits habits) {
  return [habits](const std::vector<SeenToken>& seen, const RandomKey& key) {
    return structured(seen, habits, Choices(hash_of(seen, key.seed)));
  };
}

float fake_logprob(const std::vector<SeenToken>& seen, TokenId token) {
  return -static_cast<float>(mix(hash_of(seen, 7) + static_cast<std::uint64_t>(token)) % 1000) / 100.0F;
}

FakeExecutor::FakeExecutor(std::int32_t num_pages, Policy policy, std::int32_t max_position)
    : info_{"fake", kVocabulary, num_pages, 4096, max_position, 0, 0},
      policy_(std::move(policy)),
      slots_(static_cast<std::size_t>(num_pages) * kPageTokens),
      weights_of_slots_(slots_.size(), 0) {}

namespace {
struct FakeWeights final : LoadedWeights {
  int number = 0;
};
}  // namespace

Result<std::unique_ptr<LoadedWeights>> FakeExecutor::load_weights(const std::string& model_dir) {
  if (before_load) before_load();
  auto loaded = std::make_unique<FakeWeights>();
  const char* end = model_dir.data() + model_dir.size();
  const auto [stop, failure] = std::from_chars(model_dir.data(), end, loaded->number);
  if (failure != std::errc() || stop != end) return invalid_argument(concat("no weights are in '", model_dir, "'"));
  return std::unique_ptr<LoadedWeights>(std::move(loaded));
}

void FakeExecutor::use_weights(std::unique_ptr<LoadedWeights> loaded) {
  weights = dynamic_cast<FakeWeights&>(*loaded).number;
}

void FakeExecutor::execute(const StepPlan& plan, StepResult& result) {
  if (before_step) before_step(plan);
  ++steps;
  rows += static_cast<std::int64_t>(plan.rows.size());
  const auto slot_at = [this](PageId page, std::int32_t offset) -> SeenToken& {
    CHECK(page >= 0 && page < info_.num_pages && offset >= 0 && offset < kPageTokens, "slot ", page, ":", offset);
    return slots_[static_cast<std::size_t>(page) * kPageTokens + static_cast<std::size_t>(offset)];
  };
  std::unordered_set<const SeenToken*> written;
  for (const Row& row : plan.rows) {
    CHECK(row.position < info_.max_position, "position ", row.position);
    SeenToken& slot = slot_at(row.page, row.offset);
    CHECK(written.insert(&slot).second, "two rows write slot ", row.page, ":", row.offset);
    slot = {row.token, row.position};
    weights_of_slots_[static_cast<std::size_t>(&slot - slots_.data())] = weights;
  }
  std::vector<std::vector<SeenToken>> seen(plan.rows.size());
  for (const AttentionItem& item : plan.items) {
    CHECK(item.num_tokens > 0 && item.row_begin < item.row_end, "an empty item");
    seen_slots += item.num_tokens;
    for (std::int32_t row = item.row_begin; row < item.row_end; ++row) {
      const std::int32_t count = item.causal ? item.num_tokens - (item.row_end - 1 - row) : item.num_tokens;
      for (std::int32_t i = 0; i < count; ++i) {
        const PageId page = plan.pages.at(static_cast<std::size_t>(item.first_page + i / kPageTokens));
        const SeenToken& slot = slot_at(page, i % kPageTokens);
        stale_slots += weights_of_slots_[static_cast<std::size_t>(&slot - slots_.data())] != weights ? 1 : 0;
        seen.at(static_cast<std::size_t>(row)).push_back(slot);
      }
    }
  }
  for (std::size_t row = 0; row < plan.rows.size(); ++row) {
    CHECK(!seen[row].empty() && seen[row].back().token == plan.rows[row].token &&
              seen[row].back().position == plan.rows[row].position,
          "row ", row, " does not see itself last");
  }
  result.samples.clear();
  for (const SampleRequest& sample : plan.samples) {
    const std::vector<SeenToken>& context = seen.at(static_cast<std::size_t>(sample.row));
    SampleResult drawn;
    drawn.token = sample.given >= 0 ? sample.given : policy_(context, sample.key);
    for (int i = 0; sample.given < 0 && i < kVocabulary &&
                    std::find(sample.banned.begin(), sample.banned.end(), drawn.token) != sample.banned.end();
         ++i) {
      drawn.token = (drawn.token + 1) % kVocabulary;
    }
    for (int i = 0; !sample.allowed.empty() && i < kVocabulary &&
                    ((sample.allowed[0] >> static_cast<std::uint32_t>(drawn.token)) & 1U) == 0;
         ++i) {
      drawn.token = (drawn.token + 1) % kVocabulary;
    }
    drawn.logprob = fake_logprob(context, drawn.token);
    result.samples.push_back(drawn);
  }
}

}  // namespace multiverse::testing

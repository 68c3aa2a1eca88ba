#include "model/cuda/attention_plan.h"

#include <algorithm>

#include "multiverse/base/check.h"

namespace multiverse {
namespace {

using kernels::cuda::AttentionChunk;
using kernels::cuda::kMaxTileRows;

static_assert(kernels::cuda::kPageTokens == kPageTokens);

// Unless results may depend on their own context alone, chunks are cut at any stage of the kernel's. Where a block's
// share is more than a small chunk it gets two, so that an uneven end costs less.
constexpr std::int64_t kCutTokens = 64;
constexpr std::int64_t kSmallChunk = 256;

std::int64_t round_up(std::int64_t value, std::int64_t unit) {
  return (value + unit - 1) / unit * unit;
}

std::int32_t tile_rows(const AttentionCutting& cutting) {
  return kMaxTileRows / cutting.group;
}

// Tokens of a chunk at which the step's work is shared evenly among the blocks.
std::int64_t even_chunk(const StepPlan& plan, const AttentionCutting& cutting) {
  std::int64_t work = 0;
  for (const AttentionItem& item : plan.items) {
    const std::int64_t tiles = (item.row_end - item.row_begin + tile_rows(cutting) - 1) / tile_rows(cutting);
    work += tiles * item.num_tokens * cutting.num_kv_heads;
  }
  const std::int64_t of_block = work / cutting.blocks + 1;
  return round_up(of_block > kSmallChunk ? (of_block + 1) / 2 : of_block, kCutTokens);
}

// The pages that a step writes to.
class WrittenPages {
 public:
  explicit WrittenPages(const StepPlan& plan) {
    PageId last = 0;
    for (const Row& row : plan.rows) last = std::max(last, row.page);
    written_.resize(static_cast<std::size_t>(last) + 1);
    for (const Row& row : plan.rows) written_[static_cast<std::size_t>(row.page)] = true;
  }
  bool contains(PageId page) const {
    return static_cast<std::size_t>(page) < written_.size() && written_[static_cast<std::size_t>(page)];
  }

 private:
  std::vector<bool> written_;
};

class Cutter {
 public:
  Cutter(const StepPlan& plan, const AttentionCutting& cutting, std::int32_t row_begin)
      : plan_(plan), cutting_(cutting), written_(plan), cut_tokens_(cutting.deterministic ? kSplitTokens : kCutTokens) {
    pass_.row_begin = row_begin;
    largest_chunk_ = cutting.deterministic ? kSplitTokens : even_chunk(plan, cutting);
    pass_.row_end = last_row();
  }

  AttentionPass cut() {
    for (const AttentionItem& item : plan_.items) {
      const std::int32_t begin = std::max(item.row_begin, pass_.row_begin);
      const std::int32_t end = std::min(item.row_end, pass_.row_end);
      if (begin < end) cut_item(item, begin, end);
    }
    list_parts();
    return std::move(pass_);
  }

 private:
  // Tokens of a chunk of the item: even shares of it.
  std::int64_t chunk_tokens(const AttentionItem& item) const {
    const std::int64_t count = (item.num_tokens + largest_chunk_ - 1) / largest_chunk_;
    return round_up((item.num_tokens + count - 1) / count, cut_tokens_);
  }

  // Where the rows that max_parts allows end. Counts a causal row's chunks as if it saw the whole item.
  std::int32_t last_row() const {
    const auto rows = static_cast<std::int32_t>(plan_.rows.size());
    std::vector<std::int64_t> parts(plan_.rows.size() + 1, 0);  // differences
    for (const AttentionItem& item : plan_.items) {
      const std::int64_t tokens = chunk_tokens(item);
      const std::int64_t count = (item.num_tokens + tokens - 1) / tokens;
      parts[static_cast<std::size_t>(item.row_begin)] += count;
      parts[static_cast<std::size_t>(item.row_end)] -= count;
    }
    std::int64_t of_row = 0, total = 0;
    for (std::int32_t row = 0; row < rows; ++row) {
      of_row += parts[static_cast<std::size_t>(row)];
      if (row < pass_.row_begin) continue;
      if (total + of_row > cutting_.max_parts && row > pass_.row_begin) return row;
      total += of_row;
      CHECK(total <= cutting_.max_parts, "row ", row, " alone has ", of_row, " parts; there is room for ",
            cutting_.max_parts);
    }
    return rows;
  }

  void cut_item(const AttentionItem& item, std::int32_t begin, std::int32_t end) {
    const std::int64_t tokens = chunk_tokens(item);
    for (std::int64_t first = 0; first < item.num_tokens; first += tokens) {
      for (std::int32_t row = begin; row < end; row += tile_rows(cutting_)) {
        add(item, first, std::min<std::int64_t>(tokens, item.num_tokens - first), row,
            std::min(end, row + tile_rows(cutting_)));
      }
    }
  }

  void add(const AttentionItem& item, std::int64_t first, std::int64_t tokens, std::int32_t begin, std::int32_t end) {
    AttentionChunk chunk;
    chunk.first_page = item.first_page + static_cast<std::int32_t>(first / kPageTokens);
    chunk.row_begin = begin;
    chunk.num_rows = end - begin;
    chunk.causal = item.causal ? 1 : 0;
    const std::int64_t seen = item.causal ? item.num_tokens - (item.row_end - 1 - begin) : item.num_tokens;
    const std::int64_t seen_by_last = item.causal ? item.num_tokens - (item.row_end - end) : item.num_tokens;
    if (seen_by_last <= first) return;  // nothing of it is seen
    chunk.first_limit = static_cast<std::int32_t>(seen - first);
    chunk.num_tokens = static_cast<std::int32_t>(std::min(tokens, seen_by_last - first));
    while (chunk.num_old < chunk.num_tokens) {
      const std::int32_t page = chunk.first_page + chunk.num_old / kPageTokens;
      if (written_.contains(plan_.pages[static_cast<std::size_t>(page)])) break;
      chunk.num_old = std::min(chunk.num_old + kPageTokens, chunk.num_tokens);
    }
    const std::int32_t pairs = chunk.num_rows * cutting_.group;
    chunk.warps_by_rows = cutting_.deterministic || pairs > 32 ? 4 : pairs > 16 ? 2 : 1;
    chunk.part = parts_;
    parts_ += chunk.num_rows;
    pass_.chunks.push_back(chunk);
  }

  // Chunks stand in context order for each row, so its parts do too.
  void list_parts() {
    pass_.row_first.assign(static_cast<std::size_t>(pass_.row_end) + 1, 0);
    for (const AttentionChunk& chunk : pass_.chunks) {
      for (std::int32_t i = 0; i < chunk.num_rows; ++i) {
        ++pass_.row_first[static_cast<std::size_t>(chunk.row_begin) + static_cast<std::size_t>(i) + 1];
      }
    }
    for (std::size_t row = 1; row < pass_.row_first.size(); ++row) pass_.row_first[row] += pass_.row_first[row - 1];
    pass_.row_parts.resize(static_cast<std::size_t>(parts_));
    std::vector<std::int32_t> next = pass_.row_first;
    for (const AttentionChunk& chunk : pass_.chunks) {
      for (std::int32_t i = 0; i < chunk.num_rows; ++i) {
        std::int32_t& place = next[static_cast<std::size_t>(chunk.row_begin) + static_cast<std::size_t>(i)];
        pass_.row_parts[static_cast<std::size_t>(place++)] = chunk.part + i;
      }
    }
  }

  const StepPlan& plan_;
  const AttentionCutting& cutting_;
  const WrittenPages written_;
  const std::int64_t cut_tokens_;
  std::int64_t largest_chunk_ = 0;
  std::int32_t parts_ = 0;
  AttentionPass pass_;
};

}  // namespace

AttentionPass plan_attention(const StepPlan& plan, const AttentionCutting& cutting, std::int32_t row_begin) {
  return Cutter(plan, cutting, row_begin).cut();
}

}  // namespace multiverse

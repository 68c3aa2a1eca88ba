// The judge of segment attention: double precision, one key at a time, straight from the definition.
#pragma once

#include <cmath>
#include <cstdint>
#include <vector>

#include "multiverse/kernels/attention.h"

namespace multiverse::kernels {

// (heads, head_dim) of one row.
inline std::vector<double> attend_row(const AttentionArgs& args, std::int32_t row) {
  const std::int32_t dim = args.kv.head_dim;
  const std::int32_t group = args.num_heads / args.kv.num_kv_heads;
  std::vector<double> out;
  for (std::int32_t head = 0; head < args.num_heads; ++head) {
    const float* query = args.queries + row * args.query_stride + std::int64_t{head} * dim;
    std::vector<double> scores;
    std::vector<const float*> values;
    for (std::int32_t i = 0; i < args.num_spans; ++i) {
      const AttentionSpan& span = args.spans[i];
      if (row < span.row_begin || row >= span.row_end) continue;
      const std::int32_t seen = span.causal ? span.num_tokens - (span.row_end - 1 - row) : span.num_tokens;
      for (std::int32_t token = 0; token < seen; ++token) {
        const float* page = args.kv.page(args.pages[span.first_page + token / 16], head / group);
        double score = 0.0;
        for (std::int32_t d = 0; d < dim; ++d) {
          score += static_cast<double>(query[d]) * static_cast<double>(page[d * 16 + token % 16]);
        }
        scores.push_back(score / std::sqrt(static_cast<double>(dim)));
        values.push_back(page + dim * 16 + token % 16 * args.kv.padded_dim());
      }
    }
    double largest = -1e300;
    for (const double score : scores) largest = std::fmax(largest, score);
    double sum = 0.0;
    std::vector<double> result(static_cast<std::size_t>(dim), 0.0);
    for (std::size_t t = 0; t < scores.size(); ++t) {
      const double weight = std::exp(scores[t] - largest);
      sum += weight;
      for (std::int32_t d = 0; d < dim; ++d) {
        result[static_cast<std::size_t>(d)] += weight * static_cast<double>(values[t][d]);
      }
    }
    for (const double value : result) out.push_back(value / sum);
  }
  return out;
}

}  // namespace multiverse::kernels

// What filters keep of a draw's tokens, found by one block of kThreads threads.
#pragma once

#include "sampling_keys.h"

namespace multiverse::kernels::cuda {
namespace {

// Where the histogram reaches what is wanted: the tokens of bins before `bin` are kept, those of `bin` are in doubt.
struct Cut {
  Key wanted, before;  // before: of the bins before `bin`
  int bin;
};

struct CutShared {
  Key sums[2][kBins];
  Cut cut;
};

struct Shared {
  Key bins[kBins];
  Key keys[kWarps];
  double numbers[kWarps];
  int tokens[kWarps];
  Key chosen, before;
  int counter;
  Key near_keys[kThreads], near_weights[kThreads];
  CutShared cut;
};

// The slow way, for a bin that holds more tokens than there are threads: digit by digit.
template <class WeightOf>
__device__ Key last_kept_by_digits(const float* logits, int size, Key wanted, const WeightOf& weight_of,
                                   Shared& shared) {
  Key prefix = 0, before = 0;  // of the digits found so far; weight of the keys above them
  for (int shift = 56; shift >= 0; shift -= 8) {
    for (int i = threadIdx.x; i < kBins; i += kThreads) shared.bins[i] = 0;
    sync_block();
    for (int token = threadIdx.x; token < size; token += kThreads) {
      const Key key = key_of(logits[token], token);
      if (shift < 56 && key >> (shift + 8) != prefix) continue;
      const Key weight = weight_of(key, token);
      if (weight > 0) atomic_add(&shared.bins[key >> shift & 0xFF], weight);
    }
    sync_block();
    if (threadIdx.x == 0) {
      Key above = before;
      int bin = kBins - 1, last = -1;
      for (; bin >= 0; --bin) {
        if (shared.bins[bin] == 0) continue;
        last = bin;
        if (above + shared.bins[bin] >= wanted) break;
        above += shared.bins[bin];
      }
      shared.chosen = prefix << 8 | static_cast<Key>(last < 0 ? 0 : last);
      shared.before = above;
    }
    sync_block();
    prefix = shared.chosen;
    before = shared.before;
  }
  sync_block();  // all have read them: the caller may write there
  return prefix;
}

// The key of the last token to keep: tokens are kept, greatest key first, while the weight of those before is below
// `wanted`. weight_of(key, token): a whole number, the same on each call. `wanted` at most their sum, ≥ 1.
template <class WeightOf>
__device__ Key last_kept(const float* logits, int size, const Distance& distance, Key wanted, const WeightOf& weight_of,
                         Shared& shared) {
  // The bin in which the sum reaches `wanted`.
  for (int i = threadIdx.x; i < kBins; i += kThreads) shared.bins[i] = 0;
  sync_block();
  Key far = 0;  // most tokens: added up by each thread first
  for (int token = threadIdx.x; token < size; token += kThreads) {
    const Key weight = weight_of(key_of(logits[token], token), token);
    const int bin = distance.bin(logits[token]);
    if (bin == kBins - 1) {
      far += weight;
    } else if (weight > 0) {
      atomic_add(&shared.bins[bin], weight);
    }
  }
  if (far > 0) atomic_add(&shared.bins[kBins - 1], far);
  sync_block();
  if (threadIdx.x == 0) {
    Key above = 0;
    int bin = 0;
    while (bin < kBins - 1 && above + shared.bins[bin] < wanted) above += shared.bins[bin++];
    shared.chosen = static_cast<Key>(bin);
    shared.before = above;
    shared.counter = 0;
  }
  sync_block();
  // Its tokens, one for each thread.
  const int chosen = static_cast<int>(shared.chosen);
  const Key before = shared.before;
  for (int token = threadIdx.x; token < size; token += kThreads) {
    if (distance.bin(logits[token]) != chosen) continue;
    const Key key = key_of(logits[token], token), weight = weight_of(key, token);
    if (weight == 0) continue;
    const int place = atomic_add(&shared.counter, 1);
    if (place >= kThreads) continue;
    shared.near_keys[place] = key;
    shared.near_weights[place] = weight;
  }
  sync_block();
  const int count = shared.counter;
  if (count > kThreads) return last_kept_by_digits(logits, size, wanted, weight_of, shared);
  Key mine = 0;  // inverted, so that the greatest is of the last kept
  if (static_cast<int>(threadIdx.x) < count) {
    const Key key = shared.near_keys[threadIdx.x];
    Key above = before;
    for (int i = 0; i < count; ++i) above += shared.near_keys[i] > key ? shared.near_weights[i] : 0;
    if (above < wanted) mine = ~key;
  }
  return ~max_block(mine, shared.keys);
}

}  // namespace
}  // namespace multiverse::kernels::cuda

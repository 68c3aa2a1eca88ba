// First a row's slices, a block each: what all draws need of the whole vocabulary. Then a block for each draw. Filters
// cut the tokens, in order of (logit, lowest id first), by count for top-k, by weight for top-p: a histogram over
// distances from the greatest logit finds the bin of the last token kept, its few tokens are compared with each other.
// Weights are whole numbers, so that their sums do not depend on the order of the threads.
#include <cfloat>
#include <cmath>

#include "multiverse/kernels/cuda/sampling.h"
#include "multiverse/kernels/philox.h"

#include "device.h"

namespace multiverse::kernels::cuda {
namespace {

constexpr int kThreads = 1024;
constexpr int kWarps = kThreads / 32;
constexpr int kSliceThreads = 256;
constexpr int kBins = 256;                       // of a digit of 8 bits
constexpr double kWeightOne = 17592186044416.0;  // 2⁴⁴: a vocabulary's sum stays below 2⁶⁴

// The greatest and the least -log(-log u) over the uniforms of philox_uniform, 2⁻³³ and 1 - 2⁻³³.
constexpr double kMaxGumbel = 22.88;
constexpr double kMinGumbel = -3.14;

using Key = unsigned long long;

struct Shared {
  Key bins[kBins];
  Key keys[kWarps];
  double numbers[kWarps];
  int tokens[kWarps];
  Key chosen, before;
  int counter;
  Key near_keys[kThreads], near_weights[kThreads];
};

__device__ Key order_of(float logit) {                                // rises with the logit
  const unsigned bits = float_as_uint(logit == 0.0F ? 0.0F : logit);  // -0 equals 0
  return (bits & 0x80000000U) != 0 ? ~bits : bits | 0x80000000U;
}
__device__ Key key_of(float logit, int token) {  // greatest first, the lowest id first among equals
  return order_of(logit) << 32 | (0xFFFFFFFFU - static_cast<unsigned>(token));
}
__device__ int token_of(Key key) {
  return static_cast<int>(0xFFFFFFFFU - static_cast<unsigned>(key & 0xFFFFFFFFU));
}

// Over the warps of the block, through `shared`, one entry for each.
__device__ Key max_block(Key value, Key* shared) {
  for (int mask = 16; mask > 0; mask /= 2) {
    const Key other = exchange(value, mask);
    if (other > value) value = other;
  }
  sync_block();  // readers of the last result are done
  if (threadIdx.x % 32 == 0) shared[threadIdx.x / 32] = value;
  sync_block();
  for (int warp = 0; warp < static_cast<int>(blockDim.x) / 32; ++warp) {
    if (shared[warp] > value) value = shared[warp];
  }
  return value;
}

__device__ double sum_block(double value, double* shared) {
  for (int mask = 16; mask > 0; mask /= 2) value += exchange(value, mask);
  sync_block();
  if (threadIdx.x % 32 == 0) shared[threadIdx.x / 32] = value;
  sync_block();
  double total = 0.0;
  for (int warp = 0; warp < static_cast<int>(blockDim.x) / 32; ++warp) total += shared[warp];
  return total;
}

// Logits by their distance from the greatest, in eighths of the temperature; what lies further than 32 is one bin.
struct Distance {
  float top, temperature;

  __device__ int bin(float logit) const {
    const float distance = (top - logit) / temperature * 8.0F;
    return distance < kBins - 1 ? static_cast<int>(distance) : kBins - 1;
  }
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

__device__ float bounded(float x) {  // later arithmetic cannot turn it into NaN
  if (!(x >= -FLT_MAX)) return -FLT_MAX;
  return x < FLT_MAX ? x : FLT_MAX;
}

__device__ bool changes_logits(const SampleTask& task) {
  return task.bias_end > task.bias_begin || task.history_end > task.history_begin ||
         task.banned_end > task.banned_begin || task.allowed_first >= 0;
}

// The logits [begin, end) after bias, penalties and masks, in `work`.
__device__ void adjust(const SamplingArgs& args, const SampleTask& task, const float* raw, int begin, int end,
                       float* work) {
  const auto in_slice = [&](int token) { return token >= begin && token < end; };
  for (int i = begin + threadIdx.x; i < end; i += kSliceThreads) work[i] = raw[i];
  sync_block();
  for (int i = task.bias_begin + threadIdx.x; i < task.bias_end; i += kSliceThreads) {
    const TokenBias entry = args.biases[i];
    if (in_slice(entry.token)) work[entry.token] += entry.bias;
  }
  sync_block();
  for (int i = task.history_begin + threadIdx.x; i < task.history_end; i += kSliceThreads) {
    const TokenCount entry = args.history[i];
    if (!in_slice(entry.token)) continue;
    float logit = work[entry.token];
    logit = logit > 0.0F ? logit / task.repetition_penalty : logit * task.repetition_penalty;
    if (entry.count > 0) logit -= task.presence_penalty + task.frequency_penalty * static_cast<float>(entry.count);
    work[entry.token] = logit;
  }
  sync_block();
  const bool bounds = task.history_end > task.history_begin || task.bias_end > task.bias_begin;
  const std::uint32_t* allowed = task.allowed_first >= 0 ? args.allowed + task.allowed_first : nullptr;
  for (int i = begin + threadIdx.x; i < end; i += kSliceThreads) {
    if (bounds) work[i] = bounded(work[i]);
    if (allowed != nullptr && (allowed[i / 32] >> (i % 32) & 1U) == 0) work[i] = -INFINITY;
  }
  sync_block();
  for (int i = task.banned_begin + threadIdx.x; i < task.banned_end; i += kSliceThreads) {
    if (in_slice(args.banned[i])) work[args.banned[i]] = -INFINITY;
  }
  sync_block();
}

__device__ Key greatest_key(const float* logits, int begin, int end, Key* shared) {
  Key greatest = 0;
#pragma unroll 4
  for (int i = begin + threadIdx.x; i < end; i += kSliceThreads) {
    const Key key = key_of(logits[i], i);
    if (key > greatest) greatest = key;
  }
  return max_block(greatest, shared);
}

// blockIdx.x: the slice; blockIdx.y: the draw.
__global__ void __launch_bounds__(kSliceThreads) look_at_slices(SamplingArgs args) {
  let_next_start();
  wait_for_previous();
  __shared__ Key keys[kSliceThreads / 32];
  __shared__ double numbers[kSliceThreads / 32];
  const SampleTask task = args.tasks[blockIdx.y];
  const std::int64_t size = args.vocab_size;
  const int begin = static_cast<int>(size * blockIdx.x / kSampleSlices);
  const int end = static_cast<int>(size * (blockIdx.x + 1) / kSampleSlices);
  const float* raw = args.logits + task.logits_row * size;
  SampleSlice slice;
  slice.greatest = slice.greatest_adjusted = greatest_key(raw, begin, end, keys);
  // NaN has the greatest key or makes the sum NaN.
  double part = 0.0;
  if (begin < end) {
    const float largest = raw[token_of(slice.greatest)];
#pragma unroll 4
    for (int i = begin + threadIdx.x; i < end; i += kSliceThreads) {
      part += raw[i] == largest ? 1.0F : exp2_fast((raw[i] - largest) * 1.44269504088896341F);
    }
  }
  slice.sum = sum_block(part, numbers);
  if (task.given < 0 && changes_logits(task)) {
    float* work = args.work + blockIdx.y * size;
    adjust(args, task, raw, begin, end, work);
    slice.greatest_adjusted = greatest_key(work, begin, end, keys);
  }
  if (threadIdx.x == 0) args.slices[blockIdx.y * kSampleSlices + blockIdx.x] = slice;
}

__device__ int draw(const SampleTask& task, const float* logits, int size, int likeliest, Shared& shared) {
  if (!(task.temperature > 0.0F)) return likeliest;
  const double top = logits[likeliest], temperature = task.temperature;
  const auto scaled = [&](int token) { return (static_cast<double>(logits[token]) - top) / temperature; };
  const Distance distance = {logits[likeliest], task.temperature};
  Key last = 0;  // keys below it are out
  if (task.top_k > 0 && task.top_k < size) {
    last = last_kept(
        logits, size, distance, static_cast<Key>(task.top_k), [](Key, int) { return Key{1}; }, shared);
  }
  if (task.top_p < 1.0F) {
    const auto weight_of = [&](Key key, int token) {
      const double logit = scaled(token);
      // Below -31 the weight is less than one: no need to compute it.
      return key < last || logit < -31.0 ? Key{0} : static_cast<Key>(exp(logit) * kWeightOne);
    };
    if (threadIdx.x == 0) shared.before = 0;
    sync_block();
    Key mine = 0;
    for (int i = threadIdx.x; i < size; i += kThreads) mine += weight_of(key_of(logits[i], i), i);
    if (mine > 0) atomic_add(&shared.before, mine);
    sync_block();
    const Key total = shared.before;
    sync_block();
    Key wanted = static_cast<Key>(ceil(static_cast<double>(task.top_p) * static_cast<double>(total)));
    wanted = wanted < 1 ? 1 : wanted > total ? total : wanted;
    const Key nucleus = last_kept(logits, size, distance, wanted, weight_of, shared);
    if (nucleus > last) last = nucleus;
  }
  // Tokens so far below the greatest that even the luckiest draw loses to its unluckiest are not tried.
  double floor = kMinGumbel - kMaxGumbel;
  if (task.min_p > 0.0F) floor = fmax(floor, log(static_cast<double>(task.min_p)));
  double best = -INFINITY;
  int drawn = size;
  for (int i = threadIdx.x; i < size; i += kThreads) {
    if (key_of(logits[i], i) < last) continue;
    const double logit = scaled(i);
    if (!(logit >= floor)) continue;
    const double uniform = philox_uniform(task.seed, task.branch, task.index, static_cast<std::uint32_t>(i));
    const double value = logit - log(-log(uniform));
    if (value > best) {  // ids rise: the lowest among equals
      best = value;
      drawn = i;
    }
  }
  const auto take = [&](double value, int token) {
    if (value > best || (value == best && token < drawn)) {
      best = value;
      drawn = token;
    }
  };
  for (int mask = 16; mask > 0; mask /= 2) {
    const double value = exchange(best, mask);
    const int token = exchange(drawn, mask);
    take(value, token);
  }
  sync_block();
  if (threadIdx.x % 32 == 0) {
    shared.numbers[threadIdx.x / 32] = best;
    shared.tokens[threadIdx.x / 32] = drawn;
  }
  sync_block();
  for (int warp = 0; warp < kWarps; ++warp) take(shared.numbers[warp], shared.tokens[warp]);
  return drawn < size ? drawn : likeliest;
}

__global__ void __launch_bounds__(kThreads) sample_tasks(SamplingArgs args) {
  let_next_start();
  wait_for_previous();
  __shared__ Shared shared;
  const SampleTask task = args.tasks[blockIdx.x];
  const int size = args.vocab_size;
  const float* raw = args.logits + static_cast<std::int64_t>(task.logits_row) * size;
  const float* work = args.work + static_cast<std::int64_t>(blockIdx.x) * size;

  const SampleSlice* slices = args.slices + blockIdx.x * kSampleSlices;
  Key greatest = 0, greatest_adjusted = 0;
  for (int i = 0; i < kSampleSlices; ++i) {
    if (slices[i].greatest > greatest) greatest = slices[i].greatest;
    if (slices[i].greatest_adjusted > greatest_adjusted) greatest_adjusted = slices[i].greatest_adjusted;
  }
  const float largest = raw[token_of(greatest)];
  double sum = 0.0;
  for (int i = 0; i < kSampleSlices; ++i) {
    if (slices[i].greatest == 0) continue;  // of a vocabulary smaller than the slices
    const double of_slice = raw[token_of(slices[i].greatest)];
    sum +=
        slices[i].sum * (of_slice == static_cast<double>(largest) ? 1.0 : exp(of_slice - static_cast<double>(largest)));
  }
  const bool valid = isfinite(largest) && isfinite(sum) && sum > 0.0;
  if (!valid) {
    if (threadIdx.x == 0) args.outcomes[blockIdx.x] = {-1, 0.0F, 0};
    return;
  }

  int token = task.given;
  if (token < 0) {
    token = draw(task, changes_logits(task) ? work : raw, size, token_of(greatest_adjusted), shared);
  }
  const double normalizer = static_cast<double>(largest) + log(sum);
  if (threadIdx.x == 0) {
    const bool wanted = task.given >= 0 || task.top_logprobs >= 0;
    const float logprob = wanted ? static_cast<float>(static_cast<double>(raw[token]) - normalizer) : 0.0F;
    args.outcomes[blockIdx.x] = {token, logprob, 1};
  }
  if (task.top_logprobs <= 0) return;
  const int count = task.top_logprobs < size ? task.top_logprobs : size;
  const Key last = last_kept(
      raw, size, Distance{largest, 1.0F}, static_cast<Key>(count), [](Key, int) { return Key{1}; }, shared);
  if (threadIdx.x == 0) shared.counter = 0;
  sync_block();
  for (int i = threadIdx.x; i < size; i += kThreads) {
    if (key_of(raw[i], i) < last) continue;
    const int place = atomic_add(&shared.counter, 1);
    args.top[task.top_first + place] = {i, static_cast<float>(static_cast<double>(raw[i]) - normalizer)};
  }
}

}  // namespace

void sample(const SamplingArgs& args, Stream stream) {
  if (args.num_tasks == 0) return;
  LaunchShape slices;
  slices.blocks_x = kSampleSlices;
  slices.blocks_y = static_cast<unsigned>(args.num_tasks);
  slices.threads = kSliceThreads;
  launch("slices of logits", look_at_slices, slices, stream, args);
  LaunchShape shape;
  shape.blocks_x = static_cast<unsigned>(args.num_tasks);
  shape.threads = kThreads;
  launch("sampling", sample_tasks, shape, stream, args);
}

}  // namespace multiverse::kernels::cuda

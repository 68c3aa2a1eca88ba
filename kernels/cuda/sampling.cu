// A block for each draw. Filters cut the tokens, in order of (logit, lowest id first), at a place that a radix search
// over 64-bit keys finds: by count for top-k, by weight for top-p. Weights are whole numbers, so that their sums do not
// depend on the order of the threads.
#include <cfloat>
#include <cmath>

#include "multiverse/kernels/cuda/sampling.h"
#include "multiverse/kernels/philox.h"

#include "device.h"

namespace multiverse::kernels::cuda {
namespace {

constexpr int kThreads = 1024;
constexpr int kWarps = kThreads / 32;
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

__device__ Key max_block(Key value, Shared& shared) {
  for (int mask = 16; mask > 0; mask /= 2) {
    const Key other = exchange(value, mask);
    if (other > value) value = other;
  }
  sync_block();  // readers of the last result are done
  if (threadIdx.x % 32 == 0) shared.keys[threadIdx.x / 32] = value;
  sync_block();
  for (int warp = 0; warp < kWarps; ++warp) {
    if (shared.keys[warp] > value) value = shared.keys[warp];
  }
  return value;
}

__device__ double sum_block(double value, Shared& shared) {
  for (int mask = 16; mask > 0; mask /= 2) value += exchange(value, mask);
  sync_block();
  if (threadIdx.x % 32 == 0) shared.numbers[threadIdx.x / 32] = value;
  sync_block();
  double total = 0.0;
  for (int warp = 0; warp < kWarps; ++warp) total += shared.numbers[warp];
  return total;
}

// The key of the last token to keep: tokens are kept, greatest key first, while the weight of those before is below
// `wanted`. weight_of(key, token): a whole number, the same on each call. `wanted` at most their sum, ≥ 1.
template <class WeightOf>
__device__ Key last_kept(const float* logits, int size, Key wanted, const WeightOf& weight_of, Shared& shared) {
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
  return prefix;
}

__device__ float bounded(float x) {  // later arithmetic cannot turn it into NaN
  if (!(x >= -FLT_MAX)) return -FLT_MAX;
  return x < FLT_MAX ? x : FLT_MAX;
}

// The logits after bias, penalties and masks, in `work`.
__device__ void adjust(const SamplingArgs& args, const SampleTask& task, const float* raw, float* work) {
  const int size = args.vocab_size;
  const bool has_history = task.history_end > task.history_begin;
  for (int i = threadIdx.x; i < size; i += kThreads) work[i] = raw[i];
  sync_block();
  for (int i = task.bias_begin + threadIdx.x; i < task.bias_end; i += kThreads) {
    work[args.biases[i].token] += args.biases[i].bias;
  }
  sync_block();
  for (int i = task.history_begin + threadIdx.x; i < task.history_end; i += kThreads) {
    const TokenCount entry = args.history[i];
    float logit = work[entry.token];
    logit = logit > 0.0F ? logit / task.repetition_penalty : logit * task.repetition_penalty;
    if (entry.count > 0) logit -= task.presence_penalty + task.frequency_penalty * static_cast<float>(entry.count);
    work[entry.token] = logit;
  }
  sync_block();
  if (has_history || task.bias_end > task.bias_begin) {
    for (int i = threadIdx.x; i < size; i += kThreads) work[i] = bounded(work[i]);
    sync_block();
  }
  for (int i = task.banned_begin + threadIdx.x; i < task.banned_end; i += kThreads) work[args.banned[i]] = -INFINITY;
  if (task.allowed_first >= 0) {
    const std::uint32_t* allowed = args.allowed + task.allowed_first;
    for (int i = threadIdx.x; i < size; i += kThreads) {
      if ((allowed[i / 32] >> (i % 32) & 1U) == 0) work[i] = -INFINITY;
    }
  }
  sync_block();
}

__device__ int draw(const SampleTask& task, const float* logits, int size, Shared& shared) {
  Key greatest = 0;
  for (int i = threadIdx.x; i < size; i += kThreads) {
    const Key key = key_of(logits[i], i);
    if (key > greatest) greatest = key;
  }
  greatest = max_block(greatest, shared);
  const int likeliest = token_of(greatest);
  if (!(task.temperature > 0.0F)) return likeliest;

  const double top = logits[likeliest], temperature = task.temperature;
  const auto scaled = [&](int token) { return (static_cast<double>(logits[token]) - top) / temperature; };
  Key last = 0;  // keys below it are out
  if (task.top_k > 0 && task.top_k < size) {
    last = last_kept(
        logits, size, static_cast<Key>(task.top_k), [](Key, int) { return Key{1}; }, shared);
  }
  if (task.top_p < 1.0F) {
    const auto weight_of = [&](Key key, int token) {
      return key < last ? Key{0} : static_cast<Key>(exp(scaled(token)) * kWeightOne);
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
    const Key nucleus = last_kept(logits, size, wanted, weight_of, shared);
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
  float* work = args.work + static_cast<std::int64_t>(blockIdx.x) * size;

  // max and Σ exp(logit - max) of the raw logits; NaN anywhere makes the sum NaN.
  Key greatest = 0;
  for (int i = threadIdx.x; i < size; i += kThreads) {
    const Key key = key_of(raw[i], i);
    if (key > greatest) greatest = key;
  }
  const float largest = raw[token_of(max_block(greatest, shared))];
  double part = 0.0;
  for (int i = threadIdx.x; i < size; i += kThreads) part += exp2_fast((raw[i] - largest) * 1.44269504088896341F);
  const double sum = sum_block(part, shared);
  const bool valid = isfinite(largest) && isfinite(sum) && sum > 0.0;
  if (!valid) {
    if (threadIdx.x == 0) args.outcomes[blockIdx.x] = {-1, 0.0F, 0};
    return;
  }

  int token = task.given;
  if (token < 0) {
    const bool changes = task.bias_end > task.bias_begin || task.history_end > task.history_begin ||
                         task.banned_end > task.banned_begin || task.allowed_first >= 0;
    if (changes) adjust(args, task, raw, work);
    token = draw(task, changes ? work : raw, size, shared);
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
      raw, size, static_cast<Key>(count), [](Key, int) { return Key{1}; }, shared);
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
  LaunchShape shape;
  shape.blocks_x = static_cast<unsigned>(args.num_tasks);
  shape.threads = kThreads;
  launch("sampling", sample_tasks, shape, stream, args);
}

}  // namespace multiverse::kernels::cuda

// First a row's slices, a block each: what all draws need of the whole vocabulary. Where draws have filters, the slices
// make a histogram of the tokens over their distance from the greatest logit: it tells in which bin the last token
// stands that top-k or top-p keeps. Then each slice draws among the tokens that are surely kept and lists those in
// doubt; last, a block for each draw settles these. Weights are whole numbers, so that their sums do not depend on the
// order of the threads.
#include "sampling_filters.h"

namespace multiverse::kernels::cuda {
namespace {

static_assert(kSampleCandidates == kThreads, "a thread for each token in doubt");

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
  // For the kernels after this one.
  constexpr int kOwnBins = kBins / kSampleSlices;
  if (threadIdx.x < kOwnBins) args.filters[blockIdx.y].bins[blockIdx.x * kOwnBins + threadIdx.x] = 0;
  if (blockIdx.x == 0 && threadIdx.x == 0) args.filters[blockIdx.y].num_candidates = 0;
}

// The logits that are drawn from, of the task that the block works on.
__device__ const float* drawn_logits(const SamplingArgs& args, const SampleTask& task, int index) {
  const std::int64_t size = args.vocab_size;
  return changes_logits(task) ? args.work + index * size : args.logits + task.logits_row * size;
}

// The histogram: tokens for top-k, their weights for top-p alone. blockIdx.x: the slice; blockIdx.y: the draw.
__global__ void __launch_bounds__(kSliceThreads) weigh_slices(SamplingArgs args) {
  let_next_start();
  wait_for_previous();
  __shared__ Key bins[kBins];
  const SampleTask task = args.tasks[blockIdx.y];
  if (!is_filtered(task, args.vocab_size)) return;
  const std::int64_t size = args.vocab_size;
  const float* logits = drawn_logits(args, task, blockIdx.y);
  const float top = logits[token_of(greatest_adjusted(args.slices + blockIdx.y * kSampleSlices))];
  const Distance distance = {top, task.temperature};
  const bool counts = has_top_k(task, args.vocab_size);
  bins[threadIdx.x] = 0;
  sync_block();
  const int end = static_cast<int>(size * (blockIdx.x + 1) / kSampleSlices);
  Key far = 0;  // most tokens: added up by each thread first
  for (int i = static_cast<int>(size * blockIdx.x / kSampleSlices) + threadIdx.x; i < end; i += kSliceThreads) {
    const Key weight = counts ? Key{1} : weight_of(logits[i], top, task.temperature);
    const int bin = distance.bin(logits[i]);
    if (bin == kBins - 1) {
      far += weight;
    } else if (weight > 0) {
      atomic_add(&bins[bin], weight);
    }
  }
  if (far > 0) atomic_add(&bins[kBins - 1], far);
  sync_block();
  if (bins[threadIdx.x] > 0) atomic_add(&args.filters[blockIdx.y].bins[threadIdx.x], bins[threadIdx.x]);
}

// All threads of a block of at least kBins.
__device__ Cut find_cut(const SampleTask& task, int size, const Key* bins, CutShared& shared) {
  const int t = threadIdx.x;
  const Key mine = t < kBins ? bins[t] : 0;
  Key sum = mine;
  if (t < kBins) shared.sums[0][t] = sum;
  sync_block();
  int from = 0;
  for (int distance = 1; distance < kBins; distance *= 2, from ^= 1) {
    if (t < kBins) {
      if (t >= distance) sum += shared.sums[from][t - distance];
      shared.sums[from ^ 1][t] = sum;
    }
    sync_block();
  }
  const Key total = shared.sums[from][kBins - 1];
  const Key wanted = has_top_k(task, size) ? static_cast<Key>(task.top_k) : wanted_of(task.top_p, total);
  if (t < kBins && sum >= wanted && sum - mine < wanted) shared.cut = {wanted, sum - mine, t};
  sync_block();
  return shared.cut;
}

// blockIdx.x: the slice; blockIdx.y: the draw.
__global__ void __launch_bounds__(kSliceThreads) draw_slices(SamplingArgs args) {
  let_next_start();
  wait_for_previous();
  __shared__ CutShared cut_shared;
  __shared__ double values[kSliceThreads / 32];
  __shared__ int tokens[kSliceThreads / 32];
  const SampleTask task = args.tasks[blockIdx.y];
  if (!is_drawn(task)) return;
  const std::int64_t size = args.vocab_size;
  const float* logits = drawn_logits(args, task, blockIdx.y);
  SampleSlice* slices = args.slices + blockIdx.y * kSampleSlices;
  SampleFilter& filter = args.filters[blockIdx.y];
  const bool filtered = is_filtered(task, args.vocab_size);
  // With top-k all that may be kept is listed: a nucleus is of what top-k leaves.
  const bool lists_all = has_top_k(task, args.vocab_size);
  const Cut cut = filtered ? find_cut(task, args.vocab_size, filter.bins, cut_shared) : Cut{0, 0, 0};
  const float top = logits[token_of(greatest_adjusted(slices))];
  const Distance distance = {top, task.temperature};
  Drawing drawing(task, top);
  const int end = static_cast<int>(size * (blockIdx.x + 1) / kSampleSlices);
  for (int i = static_cast<int>(size * blockIdx.x / kSampleSlices) + threadIdx.x; i < end; i += kSliceThreads) {
    if (filtered) {
      const int bin = distance.bin(logits[i]);
      if (bin > cut.bin) continue;
      if (lists_all || bin == cut.bin) {
        const int place = atomic_add(&filter.num_candidates, 1);
        if (place < kSampleCandidates) filter.candidates[place] = key_of(logits[i], i);
        continue;
      }
    }
    drawing.offer(logits[i], i);
  }
  drawing.join_block(values, tokens);
  if (threadIdx.x == 0) {
    slices[blockIdx.x].best = drawing.best;
    slices[blockIdx.x].drawn = drawing.token;
  }
}

// Whether the filters keep candidate `t`, for each thread its own. Fills shared.near_keys and near_weights.
__device__ bool is_kept(const SampleTask& task, const SampleFilter& filter, const float* logits, float top, int size,
                        Shared& shared) {
  const int t = threadIdx.x, count = filter.num_candidates;
  const Cut cut = find_cut(task, size, filter.bins, shared.cut);
  const Key key = t < count ? filter.candidates[t] : 0;
  Key weight = t < count ? weight_of(logits[token_of(key)], top, task.temperature) : 0;
  shared.near_keys[t] = key;
  sync_block();
  bool kept = t < count;
  Key before = cut.before, wanted = cut.wanted;
  if (has_top_k(task, size)) {
    int rank = 0;
    for (int i = 0; i < count; ++i) rank += shared.near_keys[i] > key ? 1 : 0;
    kept = kept && rank < task.top_k;
    if (!(task.top_p < 1.0F)) return kept;
    if (!kept) weight = 0;
    if (t == 0) shared.chosen = 0;
    sync_block();
    if (weight > 0) atomic_add(&shared.chosen, weight);
    sync_block();
    before = 0;
    wanted = wanted_of(task.top_p, shared.chosen);
  }
  shared.near_weights[t] = weight;
  sync_block();
  for (int i = 0; i < count; ++i) before += shared.near_keys[i] > key ? shared.near_weights[i] : 0;
  return kept && before < wanted;
}

// The slow way, where more tokens are in doubt than a block has threads: all by one block.
__device__ void draw_all(const SampleTask& task, const float* logits, int size, Drawing& drawing, Shared& shared) {
  const Distance distance = {drawing.top, task.temperature};
  Key last = 0;  // keys below it are out
  if (has_top_k(task, size)) {
    last = last_kept(
        logits, size, distance, static_cast<Key>(task.top_k), [](Key, int) { return Key{1}; }, shared);
  }
  if (task.top_p < 1.0F) {
    const auto kept_weight = [&](Key key, int token) {
      return key < last ? Key{0} : weight_of(logits[token], drawing.top, task.temperature);
    };
    if (threadIdx.x == 0) shared.before = 0;
    sync_block();
    Key mine = 0;
    for (int i = threadIdx.x; i < size; i += kThreads) mine += kept_weight(key_of(logits[i], i), i);
    if (mine > 0) atomic_add(&shared.before, mine);
    sync_block();
    const Key total = shared.before;
    sync_block();
    const Key nucleus = last_kept(logits, size, distance, wanted_of(task.top_p, total), kept_weight, shared);
    if (nucleus > last) last = nucleus;
  }
  for (int i = threadIdx.x; i < size; i += kThreads) {
    if (key_of(logits[i], i) >= last) drawing.offer(logits[i], i);
  }
}

__device__ int draw(const SamplingArgs& args, const SampleTask& task, int index, int likeliest, Shared& shared) {
  if (!is_drawn(task)) return likeliest;
  const int size = args.vocab_size;
  const float* logits = drawn_logits(args, task, index);
  const SampleFilter& filter = args.filters[index];
  Drawing drawing(task, logits[likeliest]);
  if (is_filtered(task, size) && filter.num_candidates > kSampleCandidates) {
    draw_all(task, logits, size, drawing, shared);
  } else {
    if (threadIdx.x < kSampleSlices) {
      const SampleSlice& slice = args.slices[index * kSampleSlices + threadIdx.x];
      drawing.take(slice.best, slice.drawn);
    }
    if (is_filtered(task, size) && is_kept(task, filter, logits, drawing.top, size, shared)) {
      const int token = token_of(shared.near_keys[threadIdx.x]);
      drawing.offer(logits[token], token);
    }
  }
  drawing.join_block(shared.numbers, shared.tokens);
  return drawing.token < size ? drawing.token : likeliest;
}

__global__ void __launch_bounds__(kThreads) sample_tasks(SamplingArgs args) {
  let_next_start();
  wait_for_previous();
  __shared__ Shared shared;
  const SampleTask task = args.tasks[blockIdx.x];
  const int size = args.vocab_size;
  const float* raw = args.logits + static_cast<std::int64_t>(task.logits_row) * size;
  const SampleSlice* slices = args.slices + blockIdx.x * kSampleSlices;
  Key greatest = 0;
  for (int i = 0; i < kSampleSlices; ++i) {
    if (slices[i].greatest > greatest) greatest = slices[i].greatest;
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
    token = draw(args, task, blockIdx.x, token_of(greatest_adjusted(slices)), shared);
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

SampleNeeds sample_needs(const SampleTask* tasks, std::int32_t count) {
  SampleNeeds needs;
  for (std::int32_t i = 0; i < count; ++i) {
    if (tasks[i].given >= 0 || !(tasks[i].temperature > 0.0F)) continue;
    needs.draws = true;
    if (tasks[i].top_k > 0 || tasks[i].top_p < 1.0F) needs.filters = true;
  }
  return needs;
}

void sample(const SamplingArgs& args, Stream stream) {
  if (args.num_tasks == 0) return;
  LaunchShape slices;
  slices.blocks_x = kSampleSlices;
  slices.blocks_y = static_cast<unsigned>(args.num_tasks);
  slices.threads = kSliceThreads;
  launch("slices of logits", look_at_slices, slices, stream, args);
  if (args.needs.filters) launch("histogram of logits", weigh_slices, slices, stream, args);
  if (args.needs.draws) launch("draws in slices", draw_slices, slices, stream, args);
  LaunchShape shape;
  shape.blocks_x = static_cast<unsigned>(args.num_tasks);
  shape.threads = kThreads;
  launch("sampling", sample_tasks, shape, stream, args);
}

}  // namespace multiverse::kernels::cuda

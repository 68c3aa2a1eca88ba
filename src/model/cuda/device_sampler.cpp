#include "model/cuda/device_sampler.h"

#include <algorithm>

#include "multiverse/base/check.h"
#include "multiverse/exec/executor.h"

namespace multiverse {
namespace {

using kernels::cuda::SampleFilter;
using kernels::cuda::SampleOutcome;
using kernels::cuda::SampleSlice;
using kernels::cuda::SampleTask;
using kernels::cuda::TokenLogprobOutcome;

// Bytes of the outcomes, before the entries of their top lists.
std::int64_t top_offset(const SamplePlan& plan) {
  return static_cast<std::int64_t>(plan.tasks.size() * sizeof(SampleOutcome));
}

}  // namespace

DeviceSampler::DeviceSampler(Device& device, std::int32_t vocab_size, std::int32_t most_rows)
    : device_(device),
      vocab_size_(vocab_size),
      most_rows_(most_rows),
      work_(device.allocate(std::int64_t{most_rows} * vocab_size * std::int64_t{sizeof(float)})),
      slices_(
          device.allocate(std::int64_t{most_rows} * kernels::cuda::kSampleSlices * std::int64_t{sizeof(SampleSlice)})),
      filters_(device.allocate(most_rows * std::int64_t{sizeof(SampleFilter)})) {}

void DeviceSampler::begin(const SamplePlan& plan, const kernels::cuda::SamplingArgs& uploaded) {
  plan_ = &plan;
  uploaded_ = uploaded;
  bytes_ = top_offset(plan) + plan.num_top * std::int64_t{sizeof(TokenLogprobOutcome)};
  if (bytes_ <= capacity_) return;
  capacity_ = 2 * bytes_;
  outcomes_ = device_.allocate(capacity_);
  outcomes_host_ = device_.allocate_pinned(capacity_);
}

void DeviceSampler::draw(const float* logits, std::int32_t first, std::int32_t count) {
  const std::vector<SampleTask>& tasks = plan_->tasks;
  const auto row_before = [](const SampleTask& task, std::int32_t row) { return task.logits_row < row; };
  const auto begin = std::lower_bound(tasks.begin(), tasks.end(), first, row_before);
  const auto end = std::lower_bound(begin, tasks.end(), first + count, row_before);
  kernels::cuda::SamplingArgs args = uploaded_;
  args.logits = logits - std::int64_t{first} * vocab_size_;
  args.work = as<float>(work_);
  args.slices = as<SampleSlice>(slices_);
  args.filters = as<SampleFilter>(filters_);
  args.vocab_size = vocab_size_;
  args.top = reinterpret_cast<TokenLogprobOutcome*>(as<char>(outcomes_) + top_offset(*plan_));
  for (auto task = begin; task < end; task += args.num_tasks) {
    const auto index = task - tasks.begin();
    args.tasks = uploaded_.tasks + index;
    args.outcomes = as<SampleOutcome>(outcomes_) + index;
    args.num_tasks = static_cast<std::int32_t>(std::min<std::ptrdiff_t>(most_rows_, end - task));
    args.needs = kernels::cuda::sample_needs(&*task, args.num_tasks);
    kernels::cuda::sample(args, device_.stream());
  }
}

void DeviceSampler::take(const StepPlan& step, StepResult& result) {
  if (bytes_ > 0) device_.download(outcomes_host_.get(), outcomes_.get(), bytes_);
  result.device_seconds = device_.end_work();
  const auto* outcomes = as<SampleOutcome>(outcomes_host_);
  const auto* top = reinterpret_cast<const TokenLogprobOutcome*>(as<char>(outcomes_host_) + top_offset(*plan_));
  for (std::size_t i = 0; i < plan_->tasks.size(); ++i) {
    const auto index = static_cast<std::size_t>(plan_->order[i]);
    if (outcomes[i].valid == 0) {
      const std::int32_t row = step.samples[index].row;
      throw ExecutionError(concat("the logits of row ", row, " (token ", step.rows[static_cast<std::size_t>(row)].token,
                                  ") are not finite: the weights are broken or out of bfloat16's range"));
    }
    SampleResult& sample = result.samples[index];
    sample.token = outcomes[i].token;
    sample.logprob = outcomes[i].logprob;
    sample.top.clear();
    for (std::int32_t k = 0; k < plan_->tasks[i].top_logprobs; ++k) {
      const TokenLogprobOutcome& entry = top[plan_->tasks[i].top_first + k];
      sample.top.push_back({entry.token, entry.logprob});
    }
    std::sort(sample.top.begin(), sample.top.end(), [](const TokenLogprob& a, const TokenLogprob& b) {
      return a.logprob > b.logprob || (a.logprob == b.logprob && a.token < b.token);
    });
  }
}

}  // namespace multiverse

#include "model/cuda/step_inputs.h"

#include <algorithm>
#include <span>
#include <type_traits>

namespace multiverse {

using kernels::cuda::AttentionPlan;

std::int64_t step_input_bytes(const StepPlan& plan, const SamplePlan& samples, const std::vector<AttentionPass>& passes,
                              std::int32_t capacity) {
  const auto size = [](const auto& list) {
    using Element = typename std::decay_t<decltype(list)>::value_type;
    return StepUpload::padded<Element>(static_cast<std::int64_t>(list.size()));
  };
  const auto num_passes = std::max<std::int64_t>(1, static_cast<std::int64_t>(passes.size()));
  std::int64_t bytes = StepUpload::padded<AttentionPlan>(num_passes) + 4 * StepUpload::padded<std::int32_t>(capacity) +
                       size(plan.pages) + size(samples.tasks) + size(samples.biases) + size(samples.history) +
                       size(samples.banned) + size(samples.allowed);
  for (const AttentionPass& pass : passes) bytes += size(pass.chunks) + size(pass.row_first) + size(pass.row_parts);
  return bytes;
}

// What a graph reads comes first, at places that `capacity` alone decides.
StepInputs upload_step(const StepPlan& plan, const SamplePlan& samples, const std::vector<AttentionPass>& passes,
                       StepUpload& pack, std::int32_t capacity) {
  pack.begin(0);
  const auto num_passes = std::max<std::size_t>(1, passes.size());
  const auto headers = pack.reserve<AttentionPlan>(static_cast<std::int64_t>(num_passes));
  const auto tokens = pack.reserve<std::int32_t>(capacity);
  const auto positions = pack.reserve<std::int32_t>(capacity);
  const auto slots = pack.reserve<std::int32_t>(capacity);
  const auto logit_rows = pack.reserve<std::int32_t>(capacity);
  for (std::size_t i = 0; i < static_cast<std::size_t>(capacity); ++i) {
    const bool real = i < plan.rows.size();
    tokens.host[i] = real ? plan.rows[i].token : 0;
    positions.host[i] = real ? plan.rows[i].position : 0;
    slots.host[i] = real ? plan.rows[i].page * kPageTokens + plan.rows[i].offset : -1;
    logit_rows.host[i] = i < samples.logit_rows.size() ? samples.logit_rows[i] : 0;
  }
  StepInputs inputs{tokens.device, positions.device, slots.device, logit_rows.device, {}, {}};
  const std::int32_t* pages = pack.add(std::span(plan.pages));
  for (std::size_t i = 0; i < num_passes; ++i) {
    AttentionPlan& header = headers.host[i] = {};
    if (!passes.empty()) {
      const AttentionPass& pass = passes[i];
      header.chunks = pack.add(std::span(pass.chunks));
      header.row_first = pack.add(std::span(pass.row_first));
      header.row_parts = pack.add(std::span(pass.row_parts));
      header.num_chunks = static_cast<std::int32_t>(pass.chunks.size());
      header.row_begin = pass.row_begin;
      header.row_end = pass.row_end;
    }
    header.pages = pages;
    inputs.passes.push_back(headers.device + i);
  }
  inputs.sampling.tasks = pack.add(std::span(samples.tasks));
  inputs.sampling.biases = pack.add(std::span(samples.biases));
  inputs.sampling.history = pack.add(std::span(samples.history));
  inputs.sampling.banned = pack.add(std::span(samples.banned));
  inputs.sampling.allowed = pack.add(std::span(samples.allowed));
  pack.send();
  return inputs;
}

}  // namespace multiverse

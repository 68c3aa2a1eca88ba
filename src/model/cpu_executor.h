// The decoder on CPU: float32 arithmetic and keys/values, weights in float32 or bfloat16.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "multiverse/exec/executor.h"
#include "multiverse/kernels/isa.h"
#include "multiverse/kernels/thread_pool.h"

#include "model/kv_pool.h"
#include "model/rope.h"
#include "model/sampling.h"
#include "model/weights.h"

namespace multiverse {

// A row's result depends only on its own context, bit for bit: there is no faster mode without that.
class CpuExecutor final : public Executor {
 public:
  CpuExecutor(ModelConfig config, ModelWeights weights, KvPool pool, std::int32_t max_rows, int threads);

  const ExecutorInfo& info() const override { return info_; }
  void execute(const StepPlan& plan, StepResult& result) override;
  // In the type that the matrices have now.
  Result<std::unique_ptr<LoadedWeights>> load_weights(const std::string& model_dir) override;
  void use_weights(std::unique_ptr<LoadedWeights> weights) override;

 private:
  void reserve(std::int64_t rows);
  void embed(const StepPlan& plan);
  void attend(const StepPlan& plan, std::int64_t layer);
  void write_keys_and_values(const StepPlan& plan, std::int64_t layer);
  void feed_forward(std::int64_t rows, const LayerWeights& layer);
  void normalize(const std::vector<float>& weight, std::int64_t rows);
  void linear(const LinearWeights& weights, const std::vector<float>& x, std::vector<float>& y, std::int64_t rows,
              kernels::Epilogue epilogue, std::int64_t columns);
  void sample(const StepPlan& plan, StepResult& result);
  void sample_rows(const StepPlan& plan, const std::vector<std::int32_t>& order, StepResult& result);
  // body(row) for rows [0, rows): several threads where there are enough rows.
  template <class Body>
  void for_rows(std::int64_t rows, const Body& body);

  const ModelConfig config_;
  const kernels::WeightType weight_type_;
  ModelWeights weights_;
  const KvPool pool_;
  const Rope rope_;
  const kernels::Isa isa_;
  kernels::ThreadPool threads_;
  ExecutorInfo info_;

  // Working memory of a step, grown to the largest step so far. Rows are packed without gaps.
  std::vector<float> hidden_;     // (rows, hidden): the residual stream
  std::vector<float> normed_;     // (rows, hidden)
  std::vector<float> qkv_;        // (rows, (heads + 2 kv_heads) · head_dim)
  std::vector<float> attention_;  // (rows, heads · head_dim)
  std::vector<float> inner_;      // (rows, intermediate)
  std::vector<float> angles_;     // (rows, 2, head_dim / 2): cosines, sines
  std::vector<float> scratch_;    // attention's, for each thread
  std::vector<float> logits_;     // (block of sampled rows, vocab)
  std::vector<kernels::AttentionSpan> spans_;
  std::vector<Sampler> samplers_;  // one a thread
};

}  // namespace multiverse

// The decoder on an NVIDIA GPU: bfloat16 weights; keys and values in bfloat16 or as kv_cache_dtype says; float32
// residual stream, softmax and logits.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <vector>

#include "multiverse/base/status.h"
#include "multiverse/config/model_config.h"
#include "multiverse/exec/executor.h"
#include "multiverse/kernels/cuda/attention.h"
#include "multiverse/kernels/cuda/linear.h"
#include "multiverse/model/torch_executor.h"

#include "model/cuda/attention_plan.h"
#include "model/cuda/cuda_weights.h"
#include "model/cuda/device.h"
#include "model/cuda/device_sampler.h"
#include "model/cuda/linear_layers.h"
#include "model/cuda/step_inputs.h"

namespace multiverse {

class CudaExecutor final : public Executor {
 public:
  // Allocates the pool and the working memory and captures the graphs. Throws ExecutionError.
  CudaExecutor(ModelConfig config, std::unique_ptr<Device> device, DeviceWeights weights,
               const TorchExecutorOptions& options);

  const ExecutorInfo& info() const override { return info_; }
  void execute(const StepPlan& plan, StepResult& result) override;

 private:
  struct Buffers {
    Device::Memory hidden, angles, normed, qkv, queries, attention, gate_up, inner, delta;
    Device::Memory part_values, part_sums, logits;
  };

  void allocate_buffers();
  void allocate_pool(std::int64_t bytes);
  void tune(const std::string& path, bool deterministic);
  void measure_layers(std::int32_t max_rows);
  void capture_graphs();
  void run(const StepPlan& plan, StepResult& result);

  void forward(const StepInputs& inputs, std::int32_t rows);
  void attend(const StepInputs& inputs, std::int32_t rows, std::int64_t layer);
  void project_heads(const StepInputs& inputs, std::int32_t rows, const DeviceLayer& layer, unsigned char* kv);
  void feed_forward(std::int32_t rows, const DeviceLayer& layer);
  // Logits of the rows that inputs.logit_rows names in [first_logit, first_logit + num_logits).
  void head(const StepInputs& inputs, std::int32_t first_logit, std::int32_t num_logits);
  void normalize(const DeviceVector& weight, std::int32_t rows, const std::int32_t* gather);
  void expand(std::int32_t rows, const DeviceLayer& layer);
  void project_vocabulary(std::int32_t num_logits);
  bool own_kernel(LayerKind kind, std::int32_t rows) const;
  void linear(LayerKind kind, const DeviceMatrix& weights, const Device::Memory& x, const Device::Memory& y,
              std::int32_t rows, kernels::cuda::LinearOutput output);
  void multiply(LayerKind kind, const DeviceMatrix& weights, const Device::Memory& x, const Device::Memory& y,
                std::int32_t rows);
  // hidden += x · weightsᵀ + bias: at once, or left in `delta` for the next norm to add.
  void add_to_hidden(LayerKind kind, const DeviceMatrix& weights, const DeviceVector& bias, const Device::Memory& x,
                     std::int32_t rows);

  const ModelConfig config_;
  const std::unique_ptr<Device> device_;
  const DeviceWeights weights_;
  LinearLayers linear_layers_;
  ExecutorInfo info_;
  kernels::cuda::AttentionShape shape_;
  AttentionCutting cutting_;
  Device::Memory frequencies_;  // (head_dim / 2) floats
  Device::Memory pool_;         // of each layer, as CacheLayout says
  Buffers buffers_;
  bool delta_pending_ = false;  // `delta` is still to be added to `hidden`
  StepUpload inputs_;           // of steps that run from a graph: its place never changes
  StepUpload large_inputs_;     // of larger steps
  DeviceSampler sampler_;
  std::map<std::int32_t, std::unique_ptr<Device::Graph>> graphs_;  // by padded rows
};

// The error names what the GPU side of this server can't do with the model, or what the device lacks.
Result<std::unique_ptr<Executor>> make_cuda_executor(ModelConfig config, std::unique_ptr<Device> device,
                                                     const TorchExecutorOptions& options);

}  // namespace multiverse

// A model's weights on the GPU: bfloat16, as stored in the files, but QKV and gate/up fused and their rows reordered.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "multiverse/base/status.h"
#include "multiverse/config/model_config.h"
#include "multiverse/kernels/cuda/stream.h"

#include "model/cuda/device.h"

namespace multiverse {

struct DeviceMatrix {
  Device::Memory memory;  // (outputs, inputs)
  std::int32_t outputs = 0, inputs = 0;

  const kernels::cuda::Bf16* data() const { return static_cast<const kernels::cuda::Bf16*>(memory.get()); }
};

struct DeviceVector {
  Device::Memory memory;  // float32; none = absent

  const float* data() const { return static_cast<const float*>(memory.get()); }
};

struct DeviceLayer {
  DeviceVector attention_norm;
  DeviceMatrix qkv;  // outputs: query heads, key heads, value heads, each in the order of kernels::cuda::QkvArgs
  DeviceVector qkv_bias, q_norm, k_norm;
  DeviceMatrix output;
  DeviceVector output_bias, mlp_norm;
  DeviceMatrix gate_up;  // blocks of 8 gates and 8 ups
  DeviceMatrix down;
};

struct DeviceWeights {
  DeviceMatrix embedding;  // (vocab, hidden)
  DeviceMatrix lm_head;    // the same memory as `embedding` where the model shares it
  std::vector<DeviceLayer> layers;
  DeviceVector final_norm;
  std::int64_t bytes = 0;  // of all matrices, shared ones once
};

// Tensors in other types than bfloat16 are rounded to it. The error names the tensor that is missing, extra or
// misshapen. Throws ExecutionError where the device's memory runs out.
Result<DeviceWeights> load_device_weights(Device& device, const ModelConfig& config, const std::string& model_dir);
// The values of random_weights() in weights.h, made on the device.
Result<DeviceWeights> random_device_weights(Device& device, const ModelConfig& config);

}  // namespace multiverse

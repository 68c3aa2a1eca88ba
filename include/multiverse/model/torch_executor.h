// The executor that computes with libtorch. No torch type in this header.
#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "multiverse/base/status.h"
#include "multiverse/config/model_config.h"
#include "multiverse/exec/executor.h"

namespace multiverse {

struct TorchExecutorOptions {
  std::string model_dir;       // config.json and safetensors
  std::string device = "cpu";  // "cpu" or "cuda:N"
  std::string dtype = "auto";  // auto = the file's; "bfloat16", "float32": of the weights. CPU computes in float32.
  // Of keys and values on a GPU: "auto" (bfloat16), "bfloat16", "float16", "fp8" (e4m3, half the memory). CPU: float32.
  std::string kv_cache_dtype = "auto";
  std::int64_t kv_cache_bytes = 0;  // 0 = a default that suits the machine
  std::int32_t max_rows = 512;
  std::int32_t threads = 0;    // 0 = all cores
  bool deterministic = false;  // a row's result depends only on its own context
  // On a GPU, keeps from start to start which kernel is fastest for each layer; "": measured at each start, in a
  // second.
  std::string tuning_file;
  bool random_weights = false;  // shapes without weights at hand; model_dir needs only config.json
};

// Loads the weights. The error names the file and the tensor that is missing, extra or misshapen.
Result<std::unique_ptr<Executor>> make_torch_executor(const TorchExecutorOptions& options);

}  // namespace multiverse

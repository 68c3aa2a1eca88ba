#include "multiverse/model/torch_executor.h"

#include <algorithm>

#include "multiverse/base/log.h"

#include "model/cpu_executor.h"

namespace multiverse {
namespace {

constexpr std::int32_t kMaxRows = 1 << 16;
constexpr std::int32_t kMaxThreads = 1024;

Status check_options(const TorchExecutorOptions& options, const ModelConfig& config) {
  if (options.device != "cpu") {
    if (options.device.rfind("cuda:", 0) == 0) {
      return Error{ErrorCode::kUnsupported,
                   concat("device is '", options.device, "', but this build has no CUDA; known: cpu"), "device"};
    }
    return invalid_argument(concat("device is '", options.device, "'; known: cpu, cuda:N"), "device");
  }
  if (options.dtype != "auto" && options.dtype != "bfloat16" && options.dtype != "float32") {
    return invalid_argument(concat("dtype is '", options.dtype, "'; known: auto, bfloat16, float32"), "dtype");
  }
  if (options.max_rows < 1 || options.max_rows > kMaxRows) {
    return invalid_argument(concat("max_rows is ", options.max_rows, "; it must be from 1 to ", kMaxRows), "max_rows");
  }
  if (options.threads < 0 || options.threads > kMaxThreads) {
    return invalid_argument(concat("threads is ", options.threads, "; it must be from 0 to ", kMaxThreads), "threads");
  }
  if (config.num_heads / config.num_kv_heads > kernels::kMaxPairs) {
    return invalid_argument(concat("the model has ", config.num_heads, " query heads for ", config.num_kv_heads,
                                   " KV heads; at most ", kernels::kMaxPairs, " for each are supported"),
                            "model");
  }
  return ok_status();
}

}  // namespace

Result<std::unique_ptr<Executor>> make_torch_executor(const TorchExecutorOptions& options) {
  Result<ModelConfig> config = ModelConfig::load(options.model_dir);
  if (!config.ok()) return config.error();
  if (const Status checked = check_options(options, config.value()); !checked.ok()) return checked.error();
  Result<ModelWeights> weights = options.random_weights
                                     ? random_weights(config.value(), options.dtype)
                                     : load_weights(config.value(), options.model_dir, options.dtype);
  if (!weights.ok()) return weights.error();
  Result<KvPool> pool = KvPool::allocate(config.value(), options.kv_cache_bytes);
  if (!pool.ok()) return pool.error();
  const int threads = options.threads > 0 ? options.threads : kernels::available_cpus();
  std::unique_ptr<Executor> executor = std::make_unique<CpuExecutor>(
      std::move(config).value(), std::move(weights).value(), std::move(pool).value(), options.max_rows, threads);
  const ExecutorInfo& info = executor->info();
  log(LogLevel::kInfo,
      concat("model ", info.model_type, ": ", info.weight_bytes / 1'000'000, " MB of weights, ", info.num_pages,
             " pages of ", kPageTokens, " tokens, ", threads, " threads, ", kernels::to_string(kernels::best_isa())));
  return executor;
}

}  // namespace multiverse

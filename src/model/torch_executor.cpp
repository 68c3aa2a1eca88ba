#include "multiverse/model/torch_executor.h"

#include <algorithm>
#include <charconv>
#include <optional>
#include <string_view>

#include "multiverse/base/log.h"

#include "model/cpu_executor.h"
#ifdef MULTIVERSE_CUDA
#include "model/cuda/cuda_executor.h"
#endif

namespace multiverse {
namespace {

constexpr std::int32_t kMaxRows = 1 << 16;
constexpr std::int32_t kMaxThreads = 1024;

Status check_options(const TorchExecutorOptions& options, const ModelConfig& config) {
  if (options.dtype != "auto" && options.dtype != "bfloat16" && options.dtype != "float32") {
    return invalid_argument(concat("dtype is '", options.dtype, "'; known: auto, bfloat16, float32"), "dtype");
  }
  const std::string& cache = options.kv_cache_dtype;
  if (cache != "auto" && cache != "bfloat16" && cache != "float16" && cache != "fp8") {
    return invalid_argument(concat("kv_cache_dtype is '", cache, "'; known: auto, bfloat16, float16, fp8"),
                            "kv_cache_dtype");
  }
  if (cache != "auto" && options.device == "cpu") {
    return invalid_argument(concat("kv_cache_dtype is '", cache, "'; on a CPU the cache is float32: leave it at auto"),
                            "kv_cache_dtype");
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

// The N of "cuda:N"; nothing where the text is another.
std::optional<int> cuda_index(const std::string& device) {
  constexpr std::string_view kPrefix = "cuda:";
  int index = 0;
  if (!device.starts_with(kPrefix)) return std::nullopt;
  const char* end = device.data() + device.size();
  const auto [stop, error] = std::from_chars(device.data() + kPrefix.size(), end, index);
  if (error != std::errc() || stop != end || index < 0) return std::nullopt;
  return index;
}

#ifdef MULTIVERSE_CUDA
Result<std::unique_ptr<Executor>> make_on_gpu(int index, const TorchExecutorOptions& options, ModelConfig config) {
  if (options.dtype == "float32") {
    return invalid_argument(concat("dtype is 'float32'; on ", options.device, " weights are bfloat16"), "dtype");
  }
  auto device = open_torch_device(index);
  if (!device.ok()) return device.error();
  return make_cuda_executor(std::move(config), std::move(device).value(), options);
}
#else
Result<std::unique_ptr<Executor>> make_on_gpu(int, const TorchExecutorOptions& options, const ModelConfig&) {
  return Error{ErrorCode::kUnsupported,
               concat("device is '", options.device,
                      "', but this server was built without CUDA; known: cpu. "
                      "`scripts/setup --cuda on` and a new build add it"),
               "device"};
}
#endif

}  // namespace

Result<std::unique_ptr<Executor>> make_torch_executor(const TorchExecutorOptions& options) {
  Result<ModelConfig> config = ModelConfig::load(options.model_dir);
  if (!config.ok()) return config.error();
  if (const Status checked = check_options(options, config.value()); !checked.ok()) return checked.error();
  if (options.device != "cpu") {
    const std::optional<int> index = cuda_index(options.device);
    if (!index) return invalid_argument(concat("device is '", options.device, "'; known: cpu, cuda:N"), "device");
    return make_on_gpu(*index, options, std::move(config).value());
  }
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

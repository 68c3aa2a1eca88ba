// The real device, by libtorch: memory from its caching allocator, its streams and graphs, cuBLAS behind at::mm.
#include <ATen/ATen.h>
#include <ATen/cuda/CUDAContext.h>
#include <ATen/cuda/CUDAEvent.h>
#include <ATen/cuda/CUDAGraph.h>
#include <c10/cuda/CUDACachingAllocator.h>
#include <c10/cuda/CUDAGuard.h>
#include <c10/cuda/CUDAStream.h>

#undef CHECK  // torch's logging has a macro of this name

#include "multiverse/base/check.h"
#include "multiverse/exec/executor.h"

#include "model/cuda/device.h"

namespace multiverse {
namespace {

using kernels::cuda::Bf16;

constexpr int kLeastMajor = 8;  // compute capability 8.0: bfloat16 in the tensor cores

void check(cudaError_t error, const char* what) {
  if (error != cudaSuccess) throw ExecutionError(concat(what, ": ", cudaGetErrorString(error)));
}

class TorchGraph final : public Device::Graph {
 public:
  TorchGraph(c10::cuda::CUDAStream stream, const std::function<void()>& work) : stream_(stream) {
    const c10::cuda::CUDAStreamGuard guard(stream_);
    graph_.capture_begin();
    work();
    graph_.capture_end();
  }
  void replay() override {
    const c10::cuda::CUDAStreamGuard guard(stream_);
    graph_.replay();
  }

 private:
  c10::cuda::CUDAStream stream_;
  at::cuda::CUDAGraph graph_;
};

class TorchDevice final : public Device {
 public:
  explicit TorchDevice(int index)
      : index_(static_cast<c10::DeviceIndex>(index)),
        stream_(c10::cuda::getStreamFromPool(/*isHighPriority=*/false, index_)),
        properties_(*at::cuda::getDeviceProperties(index_)) {
    // Partial sums of a split matrix product stay in float32.
    at::globalContext().setAllowBF16ReductionCuBLAS(false);
    use();
  }
  // What the allocator kept for itself goes back: free_bytes() of the next device counts it.
  ~TorchDevice() override { c10::cuda::CUDACachingAllocator::emptyCache(); }

  void use() override { c10::cuda::set_device(index_); }
  std::string name() const override { return properties_.name; }
  std::string versions() const override {
    int driver = 0, runtime = 0;
    check(cudaDriverGetVersion(&driver), "the driver's version");
    check(cudaRuntimeGetVersion(&runtime), "the runtime's version");
    return concat("driver ", driver, ", CUDA ", runtime, ", cuBLAS ", CUBLAS_VERSION);
  }
  int multiprocessors() const override { return properties_.multiProcessorCount; }
  int compute_capability() const override { return 10 * properties_.major + properties_.minor; }
  std::int64_t free_bytes() const override {
    std::size_t available = 0, total = 0;
    check(cudaMemGetInfo(&available, &total), "free memory");
    return static_cast<std::int64_t>(available);
  }
  kernels::cuda::Stream stream() const override { return stream_.stream(); }

  Memory allocate(std::int64_t bytes) override {
    return allocate(bytes, at::TensorOptions().dtype(at::kByte).device(at::Device(at::kCUDA, index_)), "GPU");
  }
  Memory allocate_pinned(std::int64_t bytes) override {
    return allocate(bytes, at::TensorOptions().dtype(at::kByte).pinned_memory(true), "page-locked");
  }
  void upload(void* to, const void* from, std::int64_t bytes) override {
    check(cudaMemcpyAsync(to, from, static_cast<std::size_t>(bytes), cudaMemcpyHostToDevice, stream_), "upload");
  }
  void download(void* to, const void* from, std::int64_t bytes) override {
    check(cudaMemcpyAsync(to, from, static_cast<std::size_t>(bytes), cudaMemcpyDeviceToHost, stream_), "download");
  }
  void synchronize() override { check(cudaStreamSynchronize(stream_), "the device"); }
  void begin_work() override { begin_.record(stream_); }
  double end_work() override {
    end_.record(stream_);
    synchronize();
    return static_cast<double>(begin_.elapsed_time(end_)) * 1e-3;
  }

  void multiply(const Bf16* x, const Bf16* weights, Bf16* y, std::int64_t rows, std::int64_t outputs,
                std::int64_t inputs) override {
    const c10::cuda::CUDAStreamGuard guard(stream_);
    at::Tensor out = view(y, rows, outputs, at::kBFloat16);
    at::mm_out(out, view(x, rows, inputs, at::kBFloat16), view(weights, outputs, inputs, at::kBFloat16).t());
  }
  void multiply_to_float(const Bf16* x, const Bf16* weights, float* y, std::int64_t rows, std::int64_t outputs,
                         std::int64_t inputs) override {
    const c10::cuda::CUDAStreamGuard guard(stream_);
    at::Tensor out = view(y, rows, outputs, at::kFloat);
    at::mm_out(out, view(x, rows, inputs, at::kBFloat16), view(weights, outputs, inputs, at::kBFloat16).t(),
               at::kFloat);
  }

  std::unique_ptr<Graph> capture(const std::function<void()>& work) override {
    return std::make_unique<TorchGraph>(stream_, work);
  }

 private:
  Memory allocate(std::int64_t bytes, const at::TensorOptions& options, const char* kind) {
    const c10::cuda::CUDAStreamGuard guard(stream_);
    try {
      const at::Tensor tensor = at::empty({std::max<std::int64_t>(bytes, 1)}, options);
      return {tensor.data_ptr(), [tensor](void*) {}};
    } catch (const c10::Error& error) {
      throw ExecutionError(concat("out of ", kind, " memory for ", bytes, " bytes: ", error.what_without_backtrace()));
    }
  }

  at::Tensor view(const void* data, std::int64_t rows, std::int64_t columns, at::ScalarType type) const {
    return at::from_blob(const_cast<void*>(data), {rows, columns},
                         at::TensorOptions().dtype(type).device(at::Device(at::kCUDA, index_)));
  }

  c10::DeviceIndex index_;
  c10::cuda::CUDAStream stream_;
  cudaDeviceProp properties_;
  at::cuda::CUDAEvent begin_{cudaEventDefault}, end_{cudaEventDefault};
};

}  // namespace

Result<std::unique_ptr<Device>> open_torch_device(int index) {
  const auto refuse = [&](const std::string& why) {
    return Error{ErrorCode::kUnsupported, concat("device is 'cuda:", index, "': ", why), "device"};
  };
  try {
    const std::int64_t count = at::cuda::getNumGPUs();
    if (count == 0) return refuse("no NVIDIA GPU was found; is the driver loaded? --device cpu needs none");
    if (index < 0 || index >= count) return refuse(concat("there are ", count, " GPUs, numbered from 0"));
    const cudaDeviceProp& properties = *at::cuda::getDeviceProperties(static_cast<c10::DeviceIndex>(index));
    if (properties.major < kLeastMajor) {
      return refuse(concat(properties.name, " has compute capability ", properties.major, ".", properties.minor,
                           "; at least ", kLeastMajor, ".0 is needed"));
    }
    return std::unique_ptr<Device>(std::make_unique<TorchDevice>(index));
  } catch (const c10::Error& error) {
    return refuse(error.what_without_backtrace());
  } catch (const std::exception& error) {
    return refuse(error.what());
  }
}

}  // namespace multiverse

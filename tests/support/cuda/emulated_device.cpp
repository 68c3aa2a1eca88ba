#include "tests/support/cuda/emulated_device.h"

#include <cstdlib>
#include <cstring>

#include "multiverse/kernels/linear.h"

namespace multiverse {
namespace {

using kernels::cuda::Bf16;

class EmulatedGraph final : public Device::Graph {
 public:
  explicit EmulatedGraph(std::function<void()> work) : work_(std::move(work)) {}
  void replay() override { work_(); }

 private:
  std::function<void()> work_;
};

class EmulatedDevice final : public Device {
 public:
  EmulatedDevice(std::int64_t bytes, int capability) : free_(bytes), capability_(capability) {}

  void use() override {}
  std::string name() const override { return "emulated GPU"; }
  std::string versions() const override { return "emulation"; }
  int multiprocessors() const override { return 2; }
  int compute_capability() const override { return capability_; }
  std::int64_t free_bytes() const override { return free_; }
  kernels::cuda::Stream stream() const override { return nullptr; }

  // Filled with NaN. Small allocations alone, so that large working memory costs nothing until it is used.
  Memory allocate(std::int64_t bytes) override {
    constexpr std::int64_t kPoisoned = 16 << 20;
    const auto size = static_cast<std::size_t>((bytes + 255) / 256 * 256 + 256);
    void* data = std::aligned_alloc(256, size);
    if (bytes <= kPoisoned) std::memset(data, 0xFF, size);
    return {data, std::free};
  }
  Memory allocate_pinned(std::int64_t bytes) override { return allocate(bytes); }
  void upload(void* to, const void* from, std::int64_t bytes) override {
    std::memcpy(to, from, static_cast<std::size_t>(bytes));
  }
  void download(void* to, const void* from, std::int64_t bytes) override { upload(to, from, bytes); }
  void synchronize() override {}
  void begin_work() override {}
  double end_work() override { return 0.0; }

  void multiply(const Bf16* x, const Bf16* weights, Bf16* y, std::int64_t rows, std::int64_t outputs,
                std::int64_t inputs) override {
    product(x, weights, rows, outputs, inputs,
            [&](std::int64_t place, double sum) { y[place] = kernels::to_bfloat16(static_cast<float>(sum)); });
  }
  void multiply_to_float(const Bf16* x, const Bf16* weights, float* y, std::int64_t rows, std::int64_t outputs,
                         std::int64_t inputs) override {
    product(x, weights, rows, outputs, inputs,
            [&](std::int64_t place, double sum) { y[place] = static_cast<float>(sum); });
  }
  std::unique_ptr<Graph> capture(const std::function<void()>& work) override {
    return std::make_unique<EmulatedGraph>(work);
  }

 private:
  template <class Store>
  static void product(const Bf16* x, const Bf16* weights, std::int64_t rows, std::int64_t outputs, std::int64_t inputs,
                      const Store& store) {
    for (std::int64_t row = 0; row < rows; ++row) {
      for (std::int64_t output = 0; output < outputs; ++output) {
        double sum = 0.0;
        for (std::int64_t k = 0; k < inputs; ++k) {
          sum += static_cast<double>(kernels::from_bfloat16(x[row * inputs + k])) *
                 static_cast<double>(kernels::from_bfloat16(weights[output * inputs + k]));
        }
        store(row * outputs + output, sum);
      }
    }
  }

  std::int64_t free_;
  int capability_;
};

}  // namespace

std::unique_ptr<Device> make_emulated_device(std::int64_t free_bytes, int compute_capability) {
  return std::make_unique<EmulatedDevice>(free_bytes, compute_capability);
}

}  // namespace multiverse

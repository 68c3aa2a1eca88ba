#include "multiverse/kernels/elementwise.h"

#include "kernel_table.h"

namespace multiverse::kernels {

const char* to_string(Isa isa) {
  switch (isa) {
    case Isa::kPortable:
      return "portable";
    case Isa::kAvx2:
      return "avx2";
    case Isa::kAvx512:
      return "avx512";
  }
  return "?";
}

bool supported(Isa isa) {
  switch (isa) {
    case Isa::kPortable:
      return true;
#if defined(__x86_64__)
    case Isa::kAvx2:
      return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
    case Isa::kAvx512:
      return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
             __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
#else
    case Isa::kAvx2:
    case Isa::kAvx512:
      return false;
#endif
  }
  return false;
}

Isa best_isa() {
  if (supported(Isa::kAvx512)) return Isa::kAvx512;
  return supported(Isa::kAvx2) ? Isa::kAvx2 : Isa::kPortable;
}

const KernelTable& kernel_table(Isa isa) {
#if defined(__x86_64__)
  switch (isa) {
    case Isa::kPortable:
      return kPortableKernels;
    case Isa::kAvx2:
      return kAvx2Kernels;
    case Isa::kAvx512:
      return kAvx512Kernels;
  }
#else
  static_cast<void>(isa);
#endif
  return kPortableKernels;
}

void rms_norm(const float* x, const float* weight, float eps, std::int64_t size, float* out, Isa isa) {
  kernel_table(isa).rms_norm(x, weight, eps, size, out);
}

void rotate_heads(float* heads, std::int64_t num_heads, std::int64_t head_dim, const float* cosine, const float* sine) {
  const std::int64_t half = head_dim / 2;
  for (std::int64_t head = 0; head < num_heads; ++head, heads += head_dim) {
    for (std::int64_t i = 0; i < half; ++i) {
      const float first = heads[i];
      const float second = heads[i + half];
      heads[i] = first * cosine[i] - second * sine[i];
      heads[i + half] = second * cosine[i] + first * sine[i];
    }
  }
}

SoftmaxSum softmax_sum(const float* x, std::int64_t size, Isa isa) {
  return kernel_table(isa).softmax_sum(x, size);
}

float multiply_add_rounds(std::int64_t rounds, Isa isa) {
  return kernel_table(isa).multiply_add_rounds(rounds);
}

}  // namespace multiverse::kernels

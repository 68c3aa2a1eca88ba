#if defined(__x86_64__)
// The vector type comes first.
// clang-format off
#include "vec_avx2.h"
#include "attention_impl.h"
#include "elementwise_impl.h"
#include "linear_impl.h"
// clang-format on

namespace multiverse::kernels {
const KernelTable kAvx2Kernels = {linear_panel, attention_block, rms_norm_row, softmax_sum_row, multiply_add_chains};
}  // namespace multiverse::kernels
#endif

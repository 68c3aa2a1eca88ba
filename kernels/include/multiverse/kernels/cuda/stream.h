// What all CUDA kernels' interfaces share. No CUDA header is needed to call them.
#pragma once

#include <cstdint>

struct CUstream_st;

namespace multiverse::kernels::cuda {

using Stream = CUstream_st*;            // cudaStream_t
using Bf16 = std::uint16_t;             // the bits of a bfloat16
inline constexpr int kPageTokens = 16;  // as in exec/step.h

// Pointers are to device memory unless said otherwise. A function enqueues its kernels on the stream and returns; it
// throws std::runtime_error where the launch fails.

}  // namespace multiverse::kernels::cuda

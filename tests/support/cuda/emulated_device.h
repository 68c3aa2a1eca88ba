// A GPU made of the host's memory, for kernels that run in the emulation.
#pragma once

#include "model/cuda/device.h"

namespace multiverse {

// What it tells of its memory, and its compute capability times ten.
std::unique_ptr<Device> make_emulated_device(std::int64_t free_bytes, int compute_capability = 90);

}  // namespace multiverse

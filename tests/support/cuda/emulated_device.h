// A GPU made of the host's memory, for kernels that run in the emulation.
#pragma once

#include "model/cuda/device.h"

namespace multiverse {

// free_bytes: what it tells of its memory.
std::unique_ptr<Device> make_emulated_device(std::int64_t free_bytes);

}  // namespace multiverse

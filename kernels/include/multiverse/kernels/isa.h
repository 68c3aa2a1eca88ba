// Instruction sets that the CPU kernels are compiled for.
#pragma once

namespace multiverse::kernels {

enum class Isa { kPortable, kAvx2, kAvx512 };

const char* to_string(Isa isa);
// Whether this machine runs it.
bool supported(Isa isa);
// The widest supported one.
Isa best_isa();

}  // namespace multiverse::kernels

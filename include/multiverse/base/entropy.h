// Random bits of the system's, which nobody can guess. std::random_device draws the same, but making one asks the
// processor for its features, which in a virtual machine takes longer than the rest of a short request.
#pragma once

#include <cstdint>
#include <string>

namespace multiverse {

std::uint64_t random_bits();
std::string random_id();  // 128 bits, hexadecimal

}  // namespace multiverse

#include <algorithm>

#include "multiverse/kernels/cuda/linear.h"

#include "linear_output.h"

namespace multiverse::kernels::cuda {
namespace {

// The arguments of at most so many rows from `first` on.
LinearArgs rows_from(const LinearArgs& args, std::int32_t first, std::int32_t most) {
  LinearArgs out = args;
  out.rows = std::min(args.rows - first, most);
  out.x += std::int64_t{first} * args.inputs;
  const bool wide = args.output == LinearOutput::kFloat || args.output == LinearOutput::kAdd;
  const std::int64_t columns = args.output == LinearOutput::kSiluMul ? args.outputs / 2 : args.outputs;
  out.y = static_cast<unsigned char*>(args.y) + first * columns * (wide ? 4 : 2);
  if (args.output == LinearOutput::kHeads) {
    out.y = nullptr;
    out.heads.angles += std::int64_t{first} * args.heads.head_dim;
    out.heads.slots += first;
    out.heads.queries += std::int64_t{first} * args.heads.num_heads * args.heads.head_dim;
  }
  return out;
}

}  // namespace

void linear(const LinearArgs& args, Stream stream) {
  const bool tiles = args.method == LinearMethod::kTiles;
  const std::int32_t most = tiles ? kTileRows : kShareRows;
  for (std::int32_t first = 0; first < args.rows; first += most) {
    const LinearArgs pass = rows_from(args, first, most);
    tiles ? linear_by_tiles(pass, stream) : linear_by_shares(pass, stream);
  }
}

}  // namespace multiverse::kernels::cuda

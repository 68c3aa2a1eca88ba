// What a reply may say, as the scheduler sees it: tokens go in, a mask over the vocabulary comes out.
#pragma once

#include <cstdint>
#include <memory>
#include <span>

namespace multiverse {

// Follows one sample. The engine's thread.
class ConstraintState {
 public:
  virtual ~ConstraintState() = default;
  // A token that the root branch wrote, forced ones too (end tokens are not told). False where no reply can go on from
  // here: the sample has to end.
  virtual bool accept(std::int32_t token) = 0;
  // The tokens that may come next in the root branch, one bit a token as SampleRequest::allowed; empty: any. Valid
  // until the next accept().
  virtual std::span<const std::uint64_t> allowed() const = 0;
};

// Shared by the samples of a request and by requests that ask for the same. Made on any thread; start() and the states
// belong to the engine's.
class Constraint {
 public:
  virtual ~Constraint() = default;
  virtual std::unique_ptr<ConstraintState> start() const = 0;
};

}  // namespace multiverse

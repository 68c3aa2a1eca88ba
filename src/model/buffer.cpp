#include "model/buffer.h"

#include <sys/mman.h>

#include <cerrno>
#include <cstring>

namespace multiverse {

Result<Buffer> Buffer::allocate(std::size_t bytes) {
  Buffer out;
  if (bytes == 0) return out;
  void* data = ::mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (data == MAP_FAILED) {
    return Error{ErrorCode::kInternal, concat("cannot allocate ", bytes, " bytes: ", std::strerror(errno)), ""};
  }
  ::madvise(data, bytes, MADV_HUGEPAGE);  // only a hint: not all systems have it
  out.data_ = data;
  out.bytes_ = bytes;
  return out;
}

Buffer::~Buffer() {
  if (data_ != nullptr) ::munmap(data_, bytes_);
}

}  // namespace multiverse

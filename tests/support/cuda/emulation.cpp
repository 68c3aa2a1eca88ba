#include "tests/support/cuda/emulation.h"

#include <setjmp.h>
#include <ucontext.h>

#include <algorithm>
#include <memory>
#include <numeric>
#include <random>
#include <vector>

#include "multiverse/base/check.h"

namespace multiverse::kernels::cuda {
namespace emulation {
namespace {

constexpr std::size_t kStackBytes = 64 << 10;

struct Copy {
  void* to;
  const void* from;
  bool valid;
};

struct Fiber {
  ucontext_t start{};
  jmp_buf place{};
  bool started = false, done = false;
  std::unique_ptr<char[]> stack{new char[kStackBytes]};
  std::vector<Copy> open;                  // not yet committed
  std::vector<std::vector<Copy>> pending;  // committed groups, oldest first
};

// A barrier of `size` fibers.
struct Barrier {
  unsigned size = 0, arrived = 0, generation = 0;
};

struct Block {
  std::vector<std::unique_ptr<Fiber>> fibers;
  std::vector<unsigned> order;
  std::vector<Barrier> warps;
  std::vector<std::vector<unsigned char>> slots;  // two sets for each warp, used in turn
  std::vector<unsigned> turn;                     // of each thread
  Barrier all;
  std::vector<std::uint32_t> shared;
  jmp_buf scheduler{};
  ucontext_t back{};
  const std::function<void()>* body = nullptr;
  unsigned current = 0;
};
Block block;

void yield() {
  if (_setjmp(block.fibers[block.current]->place) == 0) _longjmp(block.scheduler, 1);
}

void enter() {
  (*block.body)();
  Fiber& fiber = *block.fibers[block.current];
  CHECK(fiber.open.empty(), "a thread ended with copies that it did not commit");
  fiber.pending.clear();
  fiber.done = true;
  _longjmp(block.scheduler, 1);
}

void wait(Barrier& barrier) {
  const unsigned generation = barrier.generation;
  if (++barrier.arrived == barrier.size) {
    barrier.arrived = 0;
    ++barrier.generation;
    return;
  }
  while (barrier.generation == generation) yield();
}

void resume(unsigned thread) {
  block.current = thread;
  thread_index.x = thread;
  Fiber& fiber = *block.fibers[thread];
  if (_setjmp(block.scheduler) != 0) return;
  if (fiber.started) _longjmp(fiber.place, 1);
  fiber.started = true;
  getcontext(&fiber.start);
  fiber.start.uc_stack.ss_sp = fiber.stack.get();
  fiber.start.uc_stack.ss_size = kStackBytes;
  fiber.start.uc_link = nullptr;
  makecontext(&fiber.start, enter, 0);
  setcontext(&fiber.start);
}

void run_block() {
  const auto threads = static_cast<unsigned>(block.order.size());
  std::fill(block.shared.begin(), block.shared.end(), 0xFFFFFFFFU);  // NaN as float and as bfloat16
  for (unsigned t = 0; t < threads; ++t) block.fibers[t]->started = block.fibers[t]->done = false;
  for (unsigned left = threads; left > 0;) {
    for (const unsigned thread : block.order) {
      if (block.fibers[thread]->done) continue;
      resume(thread);
      if (block.fibers[thread]->done) --left;
    }
  }
  CHECK(block.all.arrived == 0, "threads ended while others wait at a barrier");
}

}  // namespace

void run(const LaunchShape& shape, const std::function<void()>& body) {
  static std::mt19937 random(20261124);
  CHECK(shape.threads % 32 == 0 && shape.threads > 0 && shape.threads <= 1024, shape.threads, " threads a block");
  CHECK(shape.shared_bytes <= static_cast<std::size_t>(shared_limit), shape.shared_bytes, " bytes of shared memory");
  while (block.fibers.size() < shape.threads) block.fibers.push_back(std::make_unique<Fiber>());
  block.order.resize(shape.threads);
  std::iota(block.order.begin(), block.order.end(), 0U);
  block.warps.assign(shape.threads / 32, {32, 0, 0});
  block.slots.assign(shape.threads / 32, std::vector<unsigned char>(2 * 32 * kSlotBytes));
  block.turn.assign(shape.threads, 0);
  block.all = {shape.threads, 0, 0};
  block.shared.resize((shape.shared_bytes + 127) / 4 + 32);
  block.body = &body;
  block_size.x = shape.threads;
  grid_size = {shape.blocks_x, shape.blocks_y};
  for (block_index.y = 0; block_index.y < shape.blocks_y; ++block_index.y) {
    for (block_index.x = 0; block_index.x < shape.blocks_x; ++block_index.x) {
      std::shuffle(block.order.begin(), block.order.end(), random);
      run_block();
    }
  }
}

const unsigned char* exchange_bytes(const void* mine, std::size_t bytes) {
  CHECK(bytes <= kSlotBytes, "an exchange of ", bytes, " bytes");
  const unsigned warp = thread_index.x / 32, lane = thread_index.x % 32;
  // Two sets in turn: a lane may put its next value while others still read the last.
  unsigned char* slots = block.slots[warp].data() + (block.turn[thread_index.x]++ % 2) * 32 * kSlotBytes;
  std::memcpy(slots + lane * kSlotBytes, mine, bytes);
  wait(block.warps[warp]);
  return slots;
}

void sync_block() {
  wait(block.all);
}

unsigned char* shared_memory() {
  auto address = reinterpret_cast<std::uintptr_t>(block.shared.data());
  return reinterpret_cast<unsigned char*>((address + 127) / 128 * 128);
}

void copy_async(void* to, const void* from, bool valid) {
  CHECK(reinterpret_cast<std::uintptr_t>(to) % 16 == 0 && reinterpret_cast<std::uintptr_t>(from) % 16 == 0,
        "a copy that is not aligned to 16 bytes");
  block.fibers[block.current]->open.push_back({to, from, valid});
}

void copy_commit() {
  Fiber& fiber = *block.fibers[block.current];
  fiber.pending.push_back(std::move(fiber.open));
  fiber.open.clear();
}

void copy_wait(std::size_t pending) {
  Fiber& fiber = *block.fibers[block.current];
  while (fiber.pending.size() > pending) {
    for (const Copy& copy : fiber.pending.front()) {
      if (copy.valid) {
        std::memcpy(copy.to, copy.from, 16);
      } else {
        std::memset(copy.to, 0, 16);
      }
    }
    fiber.pending.erase(fiber.pending.begin());
  }
}

}  // namespace emulation

namespace {

struct Fragments {
  unsigned a[4], b[2];
};

// number(bits): what 16 bits stand for.
template <class Number>
void multiply_add(float (&sum)[4], const Fragments& mine, const Number& number) {
  const unsigned char* slots = emulation::exchange_bytes(&mine, sizeof mine);
  const unsigned lane = emulation::thread_index.x % 32, g = lane / 4, t = lane % 4;
  for (unsigned part = 0; part < 4; ++part) {
    const unsigned row = g + 8 * (part / 2), column = 2 * t + part % 2;
    double total = static_cast<double>(sum[part]);
    for (unsigned k = 0; k < 16; ++k) {
      const auto of_a = emulation::slot<Fragments>(slots, (row % 8) * 4 + (k % 8) / 2);
      const auto of_b = emulation::slot<Fragments>(slots, column * 4 + (k % 8) / 2);
      const unsigned a = of_a.a[row / 8 + 2 * (k / 8)] >> (16 * (k % 2)) & 0xFFFF;
      const unsigned b = of_b.b[k / 8] >> (16 * (k % 2)) & 0xFFFF;
      total += static_cast<double>(number(a)) * static_cast<double>(number(b));
    }
    sum[part] = static_cast<float>(total);
  }
}

void load(unsigned (&out)[4], const void* row, bool transposed) {
  const unsigned char* slots = emulation::exchange_bytes(&row, sizeof row);
  const unsigned lane = emulation::thread_index.x % 32, g = lane / 4, t = lane % 4;
  for (unsigned matrix = 0; matrix < 4; ++matrix) {
    const auto number = [&](unsigned r, unsigned c) {
      return unsigned{emulation::slot<const std::uint16_t*>(slots, matrix * 8 + r)[c]};
    };
    out[matrix] =
        transposed ? number(2 * t, g) | number(2 * t + 1, g) << 16 : number(g, 2 * t) | number(g, 2 * t + 1) << 16;
  }
}

}  // namespace

void multiply_add(float (&sum)[4], unsigned a0, unsigned a1, unsigned a2, unsigned a3, unsigned b0, unsigned b1) {
  multiply_add(sum, {{a0, a1, a2, a3}, {b0, b1}}, from_bf16);
}
void multiply_add_fp16(float (&sum)[4], unsigned a0, unsigned a1, unsigned a2, unsigned a3, unsigned b0, unsigned b1) {
  multiply_add(sum, {{a0, a1, a2, a3}, {b0, b1}}, Fp16::decode);
}
void load_matrices(unsigned (&out)[4], const void* row) {
  load(out, row, false);
}
void load_matrices_transposed(unsigned (&out)[4], const void* row) {
  load(out, row, true);
}

}  // namespace multiverse::kernels::cuda

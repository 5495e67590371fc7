// The emulated GPU's barriers that count bytes, tensor copies and warpgroup products: gpu/hopper.cuh's functions.
#pragma once

#include "emulator.h"
#include "host/layout.h"

#define IMPLEX_HOPPER_CODE 1

// A matrix of bf16 [rows, cols] and the box that copies take of it, with the 128-byte swizzle.
struct CUtensorMap {
  const uint16_t* data;
  int64_t rows, cols, stride;
  int32_t box_rows;
};

namespace implex::cuda {

namespace emulated_hopper {

struct Barrier {
  uint8_t arrivals, pending, parity, used;
  int32_t bytes;
};
static_assert(sizeof(Barrier) == 8, "a barrier's place in shared memory");

inline void settle(Barrier* b) {
  if (b->pending != 0 || b->bytes != 0) return;
  b->parity ^= 1;
  b->pending = b->arrivals;
}

inline void arrive(void* barrier) {
  Barrier* b = static_cast<Barrier*>(barrier);
  if (b->pending == 0) std::abort();  // more arrivals than the phase takes
  --b->pending;
  settle(b);
  emulated::progress();
}

inline void copy(unsigned char* to, const CUtensorMap* map, int32_t x, int32_t y, void* barrier) {
  for (int32_t r = 0; r < map->box_rows; ++r) {
    for (int32_t c = 0; c < kHeadDepth; ++c) {
      const bool inside = y + r < map->rows && x + c < map->cols;
      const uint16_t value = inside ? map->data[(y + r) * map->stride + x + c] : 0;
      std::memcpy(to + swizzled(static_cast<uint32_t>(r), static_cast<uint32_t>(c)), &value, 2);
    }
  }
  Barrier* b = static_cast<Barrier*>(barrier);
  b->bytes -= map->box_rows * kHeadDepth * 2;
  settle(b);
  emulated::progress();
}

// Element (row, k) of the operand that a descriptor describes: decoded as PTX ISA says, not as layout.h wrote it.
inline float element(uint64_t descriptor, int row, int k) {
  const uint32_t start = static_cast<uint32_t>(descriptor & 0x3fff) << 4;
  const uint32_t stride = static_cast<uint32_t>(descriptor >> 32 & 0x3fff) << 4;
  if (descriptor >> 62 != 1 || (descriptor >> 49 & 7) != 0) std::abort();
  uint32_t address = start + static_cast<uint32_t>(row) / 8 * stride + static_cast<uint32_t>(row) % 8 * 128 +
                     static_cast<uint32_t>(k) * 2;
  address ^= (address >> 7 & 7) << 4;
  uint16_t bits;
  std::memcpy(&bits, emulated::shared_memory() + address, 2);
  return emulated::bf16_value(bits);
}

}  // namespace emulated_hopper

// Of the block's memory, which starts on 1024 bytes.
inline uint32_t shared_address(const void* p) {
  return static_cast<uint32_t>(static_cast<const unsigned char*>(p) - emulated::shared_memory());
}
inline void barrier_init(uint64_t* barrier, uint32_t arrivals) {
  const emulated_hopper::Barrier b = {static_cast<uint8_t>(arrivals), static_cast<uint8_t>(arrivals), 0, 1, 0};
  std::memcpy(barrier, &b, sizeof b);
}
inline void barrier_init_fence() {}
inline void barrier_arrive_expect(uint64_t* barrier, uint32_t bytes) {
  reinterpret_cast<emulated_hopper::Barrier*>(barrier)->bytes += static_cast<int32_t>(bytes);
  emulated_hopper::arrive(barrier);
}
inline void barrier_arrive_at(uint64_t* barrier, uint32_t rank) {
  emulated_hopper::arrive(emulated::in_block(barrier, static_cast<int>(rank)));
}
inline void barrier_wait(uint64_t* barrier, uint32_t parity) {
  const auto* b = reinterpret_cast<const emulated_hopper::Barrier*>(barrier);
  while (b->parity == parity) emulated::pause("a barrier in shared memory");
}
inline void copy_box(void* to, const CUtensorMap* map, int32_t x, int32_t y, uint64_t* barrier) {
  emulated_hopper::copy(static_cast<unsigned char*>(to), map, x, y, barrier);
}
inline void copy_box_to(void* to, const CUtensorMap* map, int32_t x, int32_t y, uint64_t* barrier, uint16_t blocks) {
  for (int rank = 0; rank < 16; ++rank)
    if ((blocks >> rank & 1) != 0)
      emulated_hopper::copy(static_cast<unsigned char*>(emulated::in_block(to, rank)), map, x, y,
                            emulated::in_block(barrier, rank));
}
inline void prefetch_map(const CUtensorMap*) {}
inline uint32_t cluster_rank() { return static_cast<uint32_t>(emulated::block_rank()); }
inline void cluster_sync() { emulated::cluster_barrier(); }
template <int kCount>
void give_registers() {}
template <int kCount>
void take_registers() {}
inline void products_fence() {}
inline void products_commit() { emulated::commit(1); }
template <int kPending>
void products_wait() {
  emulated::wait_groups(1, kPending);
}
inline void hold(float (&)[128]) {}

// This thread's share of the product. Done at the wait for it.
inline void multiply_warpgroup(float (&sum)[128], uint64_t a, uint64_t b, bool add) {
  float* to = sum;
  const int thread = static_cast<int>(threadIdx.x) % 128;
  emulated::defer(1, [=] {
    for (int i = 0; i < 128; ++i) {
      float value = add ? to[i] : 0.0f;
      for (int k = 0; k < 16; ++k)
        value += emulated_hopper::element(a, accumulator_row(thread, i), k) *
                 emulated_hopper::element(b, accumulator_column(thread, i), k);
      to[i] = value;
    }
  });
}

}  // namespace implex::cuda

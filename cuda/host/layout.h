// Where things lie in shared memory and in fragments: index arithmetic of the kernels as constant expressions, tested
// on the CPU (native/test/cuda_layout_test.cc).
#pragma once

#include <cstddef>
#include <cstdint>

#if defined(__CUDACC__)
#define IMPLEX_ANYWHERE __host__ __device__
#else
#define IMPLEX_ANYWHERE
#endif

namespace implex::cuda {

// ---- mma.m16n8k16 and ldmatrix: see gpu/mma.cuh -------------------------------------------------------------------
// Where a lane's row lies for a use of ldmatrix.x4, in elements of a tile with rows of `stride`:
//  - left operand, 16 rows x 16 deep, stored [row][depth]: registers are a[0..3];
//  - right operand, 16 columns x 16 deep, stored [column][depth]: registers are b[0], b[1] of columns 0..7, then 8..15;
//  - the same stored [depth][column], loaded transposed.
IMPLEX_ANYWHERE constexpr int left_offset(int lane, int stride) { return (lane % 16) * stride + lane / 16 * 8; }
IMPLEX_ANYWHERE constexpr int right_offset(int lane, int stride) {
  return (lane % 8 + lane / 16 * 8) * stride + lane / 8 % 2 * 8;
}
IMPLEX_ANYWHERE constexpr int right_transposed_offset(int lane, int stride) {
  return (lane % 16) * stride + lane / 16 * 8;
}

// ---- the sm_90a head: tiles that TMA writes and wgmma reads -------------------------------------------------------
// A tile is rows of 64 bf16 (128 bytes), as the copy engine lays them out with CU_TENSOR_MAP_SWIZZLE_128B: in each
// group of 8 rows (1024 bytes) the 16-byte pieces of row r change places by XOR with r % 8. PTX ISA, "Swizzling modes".
constexpr int kHeadRows = 128;     // of a block's tile: 64 for each of two warpgroups
constexpr int kHeadColumns = 256;  // of the vocabulary
constexpr int kHeadDepth = 64;     // of a stage: one swizzled row
constexpr int kHeadStages = 4;
constexpr int kHeadBox = 128;                                     // rows of one copy; a weight tile is two
constexpr uint32_t kHiddenBytes = kHeadRows * kHeadDepth * 2;     // 16 KiB
constexpr uint32_t kWeightBytes = kHeadColumns * kHeadDepth * 2;  // 32 KiB
constexpr uint32_t kBoxBytes = kHeadBox * kHeadDepth * 2;
constexpr uint32_t kStageBytes = kHiddenBytes + kWeightBytes;  // what a stage's barrier waits for
// The stages, aligned to the swizzle's 1024 bytes by hand, then a full and an empty barrier for each.
constexpr size_t kSwizzleAtom = 1024;
constexpr size_t kHeadSharedBytes = kSwizzleAtom + kHeadStages * kStageBytes + 2 * kHeadStages * 8;
static_assert(kHeadSharedBytes <= 227 * 1024, "more shared memory than a block can have");
static_assert(kHiddenBytes % kSwizzleAtom == 0 && kBoxBytes % kSwizzleAtom == 0, "tiles start on a swizzle atom");

// Threads: a warpgroup that copies, two that multiply. setmaxnreg must not give out more than the block holds:
// __launch_bounds__(384, 1) caps the kernel at 168 registers, 384 * 168 = 64512 of 65536.
constexpr int kHeadThreads = 384;
constexpr int kProducerRegisters = 40;
constexpr int kConsumerRegisters = 232;
static_assert(128 * kProducerRegisters + 256 * kConsumerRegisters <= kHeadThreads * 168, "registers");
static_assert(kProducerRegisters % 8 == 0 && kConsumerRegisters % 8 == 0, "setmaxnreg counts in eights");

// Byte of element `col` of row `row` in a tile that starts on an atom.
IMPLEX_ANYWHERE constexpr uint32_t swizzled(uint32_t row, uint32_t col) {
  const uint32_t byte = row * 128 + col * 2;
  return byte ^ ((byte >> 7) % 8) << 4;
}

// wgmma's matrix descriptor of a K-major tile with the 128-byte swizzle. PTX ISA, "Asynchronous warpgroup level matrix
// instructions: matrix descriptor": bits 0-13 address / 16; 16-29 leading offset / 16, not used by this layout; 32-45
// stride offset / 16, from one group of 8 rows to the next: 1024 bytes; 49-51 base offset, 0 since groups start on
// 1024 bytes; 62-63 swizzle, 1 is 128 bytes. The next 16 of depth are 32 bytes on: the hardware applies the XOR to the
// address it computes, so the address simply moves.
IMPLEX_ANYWHERE constexpr uint64_t matrix_descriptor(uint32_t address) {
  return static_cast<uint64_t>((address & 0x3ffffu) >> 4) | uint64_t{1} << 16 | uint64_t{1024 >> 4} << 32 |
         uint64_t{1} << 62;
}
IMPLEX_ANYWHERE constexpr uint64_t descriptor_step(int k) { return static_cast<uint64_t>(k) * (16 * 2 >> 4); }

// Accumulators of wgmma.m64n256k16: thread t of the warpgroup holds 128 values; value i is at
IMPLEX_ANYWHERE constexpr int accumulator_row(int thread, int i) {
  return thread / 32 * 16 + thread % 32 / 4 + i / 2 % 2 * 8;
}
IMPLEX_ANYWHERE constexpr int accumulator_column(int thread, int i) { return i / 4 * 8 + thread % 4 * 2 + i % 2; }

// A ring of stages: the k-th use of it is of stage k % stages, with barriers of parity k / stages % 2. A consumer waits
// for the full barrier of that parity; the producer for the empty barrier of the other one, which a new barrier counts
// as passed already.
struct RingPosition {
  int stage = 0;
  uint32_t parity = 0;
  IMPLEX_ANYWHERE constexpr void next() {
    if (++stage == kHeadStages) {
      stage = 0;
      parity ^= 1;
    }
  }
};

}  // namespace implex::cuda

// Matrix instructions of a warp (sm_80): ldmatrix, mma.m16n8k16 in bf16 with f32 sums, and copies to shared memory that
// do not wait (cp.async). PTX ISA: "Matrix multiply-accumulate operation using mma instruction", "ldmatrix",
// "cp.async".
//
// Fragments, with g = lane / 4 and t = lane % 4; a register holds two neighbours, the lower in its lower half:
//   a[0] (g, 2t)  a[1] (g + 8, 2t)  a[2] (g, 2t + 8)  a[3] (g + 8, 2t + 8)      rows, depth
//   b[0] (2t, g)  b[1] (2t + 8, g)                                             depth, columns
//   d[0] (g, 2t)  d[1] (g, 2t + 1)  d[2] (g + 8, 2t)  d[3] (g + 8, 2t + 1)     rows, columns
// So two neighbouring tiles of a result, rounded and packed, are the left operand of the next product.
#pragma once

#include "gpu/values.cuh"
#include "host/layout.h"

namespace implex::cuda {

struct Fragment {
  uint32_t x[4];
};

// Four 8 x 8 matrices; lane l names row l % 8 of matrix l / 8, aligned to 16 bytes in shared memory. Register i holds
// matrix i: of row g the elements 2t and 2t + 1; `transposed`: of column g.
template <bool kTransposed>
__device__ inline Fragment load_matrices(const void* row) {
  Fragment f;
#if defined(IMPLEX_EMULATED)
  const void* rows[32];
  emulated::warp_exchange(&row, sizeof row, rows);
  const int lane = static_cast<int>(threadIdx.x) % kWarp;
  for (int i = 0; i < 4; ++i) {
    uint32_t packed = 0;
    for (int half = 0; half < 2; ++half) {
      const int r = kTransposed ? 2 * (lane % 4) + half : lane / 4;
      const int c = kTransposed ? lane / 4 : 2 * (lane % 4) + half;
      packed |= static_cast<uint32_t>(static_cast<const uint16_t*>(rows[i * 8 + r])[c]) << (16 * half);
    }
    f.x[i] = packed;
  }
#else
  const uint32_t address = static_cast<uint32_t>(__cvta_generic_to_shared(row));
  if constexpr (kTransposed)
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(f.x[0]), "=r"(f.x[1]), "=r"(f.x[2]), "=r"(f.x[3])
                 : "r"(address)
                 : "memory");
  else
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(f.x[0]), "=r"(f.x[1]), "=r"(f.x[2]), "=r"(f.x[3])
                 : "r"(address)
                 : "memory");
#endif
  return f;
}

// d += a b
__device__ inline void multiply_add(float (&d)[4], const Fragment& a, uint32_t b0, uint32_t b1) {
#if defined(IMPLEX_EMULATED)
  const uint32_t mine[6] = {a.x[0], a.x[1], a.x[2], a.x[3], b0, b1};
  uint32_t all[32][6];
  emulated::warp_exchange(mine, sizeof mine, all);
  const int g = static_cast<int>(threadIdx.x) % kWarp / 4, t = static_cast<int>(threadIdx.x) % 4;
  const auto half = [](uint32_t packed, int high) {
    return emulated::bf16_value(static_cast<uint16_t>(packed >> (16 * high)));
  };
  for (int i = 0; i < 4; ++i) {
    const int row = g + i / 2 * 8, col = 2 * t + i % 2;
    for (int k = 0; k < 16; ++k)
      d[i] += half(all[row % 8 * 4 + k % 8 / 2][row / 8 + k / 8 * 2], k % 2) *
              half(all[col * 4 + k % 8 / 2][4 + k / 8], k % 2);
  }
#else
  asm volatile(
      "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, "
      "%3};"
      : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
      : "r"(a.x[0]), "r"(a.x[1]), "r"(a.x[2]), "r"(a.x[3]), "r"(b0), "r"(b1));
#endif
}

// 16 bytes from global to shared memory, or 16 bytes of zero where `present` is false (nothing is read then).
__device__ inline void copy_16(void* to, const void* from, bool present) {
#if defined(IMPLEX_EMULATED)
  emulated::defer(0, [=] {
    if (present)
      std::memcpy(to, from, 16);
    else
      std::memset(to, 0, 16);
  });
#else
  const uint32_t address = static_cast<uint32_t>(__cvta_generic_to_shared(to));
  const uint32_t bytes = present ? 16 : 0;
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(address), "l"(from), "r"(bytes) : "memory");
#endif
}
__device__ inline void copy_commit() {
#if defined(IMPLEX_EMULATED)
  emulated::commit(0);
#else
  asm volatile("cp.async.commit_group;" ::: "memory");
#endif
}
// Until at most kPending of the thread's groups are under way.
template <int kPending>
__device__ inline void copy_wait() {
#if defined(IMPLEX_EMULATED)
  emulated::wait_groups(0, kPending);
#else
  asm volatile("cp.async.wait_group %0;" ::"n"(kPending) : "memory");
#endif
}

}  // namespace implex::cuda

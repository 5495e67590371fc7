// What sm_90a has and older cards have not: barriers that count bytes (mbarrier), the tensor copy engine (TMA),
// products of a warpgroup (wgmma), clusters. PTX ISA: "mbarrier", "cp.async.bulk.tensor", "wgmma.mma_async",
// "setmaxnreg", "barrier.cluster", "mapa". The emulated GPU has its own of each.
#pragma once

#include "gpu/platform.cuh"
#include "host/layout.h"

#if defined(IMPLEX_EMULATED)
#include "emulated_hopper.h"
#else
#include <cuda.h>
// Code for other architectures compiles to nothing; the host never launches it there.
#if defined(__CUDA_ARCH_FEAT_SM90_ALL)
#define IMPLEX_HOPPER_CODE 1
#endif
#endif

namespace implex::cuda {

#if defined(IMPLEX_HOPPER_CODE) && !defined(IMPLEX_EMULATED)

__device__ inline uint32_t shared_address(const void* p) { return static_cast<uint32_t>(__cvta_generic_to_shared(p)); }

__device__ inline void barrier_init(uint64_t* barrier, uint32_t arrivals) {
  asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(shared_address(barrier)), "r"(arrivals) : "memory");
}
// Makes initialised barriers visible to the copy engine and to the other blocks of the cluster, before its barrier.
__device__ inline void barrier_init_fence() { asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory"); }

// One arrival that also announces `bytes`: the phase ends when all arrivals and all bytes are there.
__device__ inline void barrier_arrive_expect(uint64_t* barrier, uint32_t bytes) {
  asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(shared_address(barrier)), "r"(bytes)
               : "memory");
}
// An arrival at the same barrier of block `rank` of the cluster, this one included. Release at cluster scope by
// default.
__device__ inline void barrier_arrive_at(uint64_t* barrier, uint32_t rank) {
  asm volatile(
      "{\n"
      ".reg .b32 remote;\n"
      "mapa.shared::cluster.u32 remote, %0, %1;\n"
      "mbarrier.arrive.release.cluster.shared::cluster.b64 _, [remote];\n"
      "}" ::"r"(shared_address(barrier)),
      "r"(rank)
      : "memory");
}
// Until the phase of this parity has ended. Acquire at cluster scope: arrivals come from the whole cluster.
__device__ inline void barrier_wait(uint64_t* barrier, uint32_t parity) {
  asm volatile(
      "{\n"
      ".reg .pred done;\n"
      "again:\n"
      "mbarrier.try_wait.parity.acquire.cluster.shared::cta.b64 done, [%0], %1;\n"
      "@done bra.uni go_on;\n"
      "bra.uni again;\n"
      "go_on:\n"
      "}" ::"r"(shared_address(barrier)),
      "r"(parity)
      : "memory");
}

// A box of the matrix with its first element at column x, row y; bytes outside the matrix are zeros, and count.
__device__ inline void copy_box(void* to, const CUtensorMap* map, int32_t x, int32_t y, uint64_t* barrier) {
  asm volatile(
      "cp.async.bulk.tensor.2d.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1, {%2, %3}], [%4];" ::"r"(
          shared_address(to)),
      "l"(map), "r"(x), "r"(y), "r"(shared_address(barrier))
      : "memory");
}
// The same to the same place in every block of `blocks` (a bit each), each of whose barriers gets its bytes.
__device__ inline void copy_box_to(void* to, const CUtensorMap* map, int32_t x, int32_t y, uint64_t* barrier,
                                   uint16_t blocks) {
  asm volatile(
      "cp.async.bulk.tensor.2d.shared::cluster.global.mbarrier::complete_tx::bytes.multicast::cluster [%0], [%1, {%2, "
      "%3}], [%4], %5;" ::"r"(shared_address(to)),
      "l"(map), "r"(x), "r"(y), "r"(shared_address(barrier)), "h"(blocks)
      : "memory");
}
__device__ inline void prefetch_map(const CUtensorMap* map) {
  asm volatile("prefetch.tensormap [%0];" ::"l"(map) : "memory");
}

__device__ inline uint32_t cluster_rank() {
  uint32_t rank;
  asm volatile("mov.u32 %0, %%cluster_ctarank;" : "=r"(rank));
  return rank;
}
__device__ inline void cluster_sync() {
  asm volatile(
      "barrier.cluster.arrive.release.aligned;\n"
      "barrier.cluster.wait.acquire.aligned;" ::
          : "memory");
}

template <int kCount>
__device__ inline void give_registers() {
  asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" ::"n"(kCount));
}
template <int kCount>
__device__ inline void take_registers() {
  asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" ::"n"(kCount));
}

// Orders a warpgroup's accesses to accumulators and shared memory before its next products.
__device__ inline void products_fence() { asm volatile("wgmma.fence.sync.aligned;" ::: "memory"); }
__device__ inline void products_commit() { asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory"); }
template <int kPending>
__device__ inline void products_wait() {
  asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(kPending) : "memory");
}
// Keeps the compiler from moving reads of accumulators to before the wait that makes them valid.
__device__ inline void hold(float (&sum)[128]) {
#pragma unroll
  for (int i = 0; i < 128; ++i) asm volatile("" : "+f"(sum[i])::"memory");
}

#define IMPLEX_D8(i)                                                                                      \
  "+f"(sum[i]), "+f"(sum[i + 1]), "+f"(sum[i + 2]), "+f"(sum[i + 3]), "+f"(sum[i + 4]), "+f"(sum[i + 5]), \
      "+f"(sum[i + 6]), "+f"(sum[i + 7])

// sum (64 x 256) = a (64 x 16) b^T (256 x 16) + (add ? sum : 0), both from shared memory, deep along their rows.
__device__ inline void multiply_warpgroup(float (&sum)[128], uint64_t a, uint64_t b, bool add) {
  asm volatile(
      "{\n"
      ".reg .pred add;\n"
      "setp.ne.b32 add, %130, 0;\n"
      "wgmma.mma_async.sync.aligned.m64n256k16.f32.bf16.bf16 "
      "{%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, "
      "%16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31, "
      "%32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47, "
      "%48, %49, %50, %51, %52, %53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63, "
      "%64, %65, %66, %67, %68, %69, %70, %71, %72, %73, %74, %75, %76, %77, %78, %79, "
      "%80, %81, %82, %83, %84, %85, %86, %87, %88, %89, %90, %91, %92, %93, %94, %95, "
      "%96, %97, %98, %99, %100, %101, %102, %103, %104, %105, %106, %107, %108, %109, %110, %111, "
      "%112, %113, %114, %115, %116, %117, %118, %119, %120, %121, %122, %123, %124, %125, %126, %127}, "
      "%128, %129, add, 1, 1, 0, 0;\n"
      "}"
      : IMPLEX_D8(0), IMPLEX_D8(8), IMPLEX_D8(16), IMPLEX_D8(24), IMPLEX_D8(32), IMPLEX_D8(40), IMPLEX_D8(48),
        IMPLEX_D8(56), IMPLEX_D8(64), IMPLEX_D8(72), IMPLEX_D8(80), IMPLEX_D8(88), IMPLEX_D8(96), IMPLEX_D8(104),
        IMPLEX_D8(112), IMPLEX_D8(120)
      : "l"(a), "l"(b), "r"(add ? 1 : 0));
}

#undef IMPLEX_D8

#endif

}  // namespace implex::cuda

// A CPU that plays a GPU, so that the kernels' own source can be run and checked where there is no GPU.
//
// Every thread of a block (of a cluster of blocks) is a fiber; barriers, shuffles and matrix instructions are the
// places where one waits for others. Memory of the device is memory of the host. Asynchronous work is done as late as
// the programming model allows: copies (cp.async) at the wait for their group, warpgroup products (wgmma) at the wait
// for theirs, so that a missing wait, or a buffer handed back too early, shows in the results. A launch that can make
// no progress ends the process and says what every fiber waits for.
//
// Work of a captured stream is kept back until its graph is launched; what a captured stream cannot do ends the
// process.
//
// What it cannot show: timing, memory ordering between proxies, the hardware's encodings (it decodes them as the
// kernels encode them), rounding inside a matrix instruction, registers.
#pragma once

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <utility>
#include <vector>

#define __global__
#define __device__
#define __host__
#define __forceinline__ inline
#define __shared__ static
#define __launch_bounds__(...)
#define __grid_constant__
#define __align__(n) alignas(n)
#define __restrict__
#define IMPLEX_CONSTEXPR_HOST_DEVICE constexpr

struct dim3 {
  unsigned x, y, z;
  constexpr dim3(unsigned a = 1, unsigned b = 1, unsigned c = 1) : x(a), y(b), z(c) {}
};
struct alignas(16) float4 {
  float x, y, z, w;
};
struct alignas(16) uint4 {
  uint32_t x, y, z, w;
};
struct alignas(8) uint2 {
  uint32_t x, y;
};
struct alignas(8) float2 {
  float x, y;
};
struct alignas(16) int4 {
  int x, y, z, w;
};
inline float4 make_float4(float x, float y, float z, float w) { return {x, y, z, w}; }
inline float2 make_float2(float x, float y) { return {x, y}; }
inline uint2 make_uint2(uint32_t x, uint32_t y) { return {x, y}; }
inline uint4 make_uint4(uint32_t x, uint32_t y, uint32_t z, uint32_t w) { return {x, y, z, w}; }
inline int4 make_int4(int x, int y, int z, int w) { return {x, y, z, w}; }

namespace emulated {

struct Position {
  dim3 thread, block, block_size, grid_size;
};
const Position& here();
unsigned char* shared_memory();  // of this block
size_t shared_memory_size();
int block_rank();  // in its cluster
// The same place in the shared memory of another block of the cluster.
void* in_block(void* memory, int rank);

void block_barrier();
// Gives each of the warp's lanes the value of every lane.
void warp_exchange(const void* value, size_t size, void* all);
bool block_any(bool value);
void cluster_barrier();
// Lets the others run; for loops that wait for memory to change. `why` is for the report of a deadlock.
void pause(const char* why);
void progress();  // memory that others wait for has changed

// Work that is done at a wait for its group, kind by kind: 0 cp.async, 1 wgmma.
void defer(int kind, std::function<void()> work);
void commit(int kind);
void wait_groups(int kind, int pending);

void run(dim3 grid, dim3 block, int cluster, size_t shared, const std::function<void()>& kernel);

inline uint16_t bf16_bits(float value) {
  uint32_t wide;
  std::memcpy(&wide, &value, sizeof wide);
  if ((wide & 0x7fffffffu) > 0x7f800000u) return static_cast<uint16_t>((wide >> 16) | 0x40u);
  return static_cast<uint16_t>((wide + 0x7fffu + ((wide >> 16) & 1u)) >> 16);
}
inline float bf16_value(uint16_t bits) {
  const uint32_t wide = static_cast<uint32_t>(bits) << 16;
  float value;
  std::memcpy(&value, &wide, sizeof value);
  return value;
}

template <typename T>
T shuffle(T value, int from) {
  T all[32];
  warp_exchange(&value, sizeof value, all);
  return all[from & 31];
}

}  // namespace emulated

#define threadIdx (::emulated::here().thread)
#define blockIdx (::emulated::here().block)
#define blockDim (::emulated::here().block_size)
#define gridDim (::emulated::here().grid_size)

inline void __syncthreads() { emulated::block_barrier(); }
inline int __syncthreads_or(int value) { return emulated::block_any(value != 0) ? 1 : 0; }
inline void __syncwarp(unsigned = 0xffffffffu) {
  char none = 0, all[32];
  emulated::warp_exchange(&none, 1, all);
}
template <typename T>
T __shfl_xor_sync(unsigned, T value, int mask) {
  return emulated::shuffle(value, static_cast<int>(threadIdx.x % 32) ^ mask);
}
template <typename T>
T __shfl_sync(unsigned, T value, int lane) {
  return emulated::shuffle(value, lane);
}
template <typename T>
T __shfl_up_sync(unsigned, T value, int delta) {
  const int lane = static_cast<int>(threadIdx.x % 32);
  return emulated::shuffle(value, lane < delta ? lane : lane - delta);
}
inline unsigned __ballot_sync(unsigned, int predicate) {
  int all[32];
  emulated::warp_exchange(&predicate, sizeof predicate, all);
  unsigned bits = 0;
  for (unsigned i = 0; i < 32; ++i) bits |= (all[i] != 0 ? 1u : 0u) << i;
  return bits;
}
inline int __popc(unsigned x) { return __builtin_popcount(x); }
inline float __uint_as_float(uint32_t bits) {
  float value;
  std::memcpy(&value, &bits, sizeof value);
  return value;
}
template <typename T>
T __ldg(const T* p) {
  return *p;
}

// ---- the host's side: memory, streams and events that are done at once, graphs
// ---------------------------------------
enum cudaError_t {
  cudaSuccess = 0,
  cudaErrorInvalidValue = 1,
  cudaErrorMemoryAllocation = 2,
  cudaErrorNoDevice = 100,
  cudaErrorIllegalState = 401,
  cudaErrorStreamCaptureInvalidated = 901,
  cudaErrorGraphExecUpdateFailure = 910
};
enum cudaMemcpyKind { cudaMemcpyHostToDevice, cudaMemcpyDeviceToHost, cudaMemcpyDeviceToDevice };
enum cudaStreamCaptureMode { cudaStreamCaptureModeRelaxed };
using cudaStream_t = struct EmulatedStream*;
using cudaEvent_t = struct EmulatedEvent*;
struct EmulatedPool {};
using cudaMemPool_t = EmulatedPool*;
using cudaGraphNode_t = struct EmulatedNode*;
struct EmulatedGraph {
  std::vector<std::function<void()>> nodes;
};
struct EmulatedExecutable {
  EmulatedGraph graph;
};
using cudaGraph_t = EmulatedGraph*;
using cudaGraphExec_t = EmulatedExecutable*;
struct cudaGraphExecUpdateResultInfo {};

namespace emulated {

inline thread_local EmulatedGraph* capture = nullptr;  // a thread has one stream
inline void submit(std::function<void()> work) {
  if (capture != nullptr)
    capture->nodes.push_back(std::move(work));
  else
    work();
}
inline void must_not_be_captured(const char* what) {
  if (capture == nullptr) return;
  std::fprintf(stderr, "emulated GPU: %s on a stream that is captured\n", what);
  std::abort();
}
// IMPLEX_EMULATED_GRAPH_FAULT names the step with graphs that fails: begin, end, update, make, launch.
inline bool fails(const char* step) {
  const char* fault = std::getenv("IMPLEX_EMULATED_GRAPH_FAULT");
  return fault != nullptr && std::strcmp(fault, step) == 0;
}

}  // namespace emulated

inline const char* cudaGetErrorName(cudaError_t) { return "cudaErrorEmulated"; }
inline const char* cudaGetErrorString(cudaError_t) { return "emulated"; }
inline cudaError_t cudaGetLastError() { return cudaSuccess; }
inline cudaError_t cudaSetDevice(int) { return cudaSuccess; }
constexpr size_t kEmulatedMemory = size_t{8} << 30;
inline cudaError_t cudaMalloc(void** memory, size_t bytes) {
  emulated::must_not_be_captured("an allocation");
  if (bytes > kEmulatedMemory) return cudaErrorInvalidValue;  // what a driver answers to such a size, nobody knows
  if (bytes > kEmulatedMemory / 2) return cudaErrorMemoryAllocation;
  *memory = std::aligned_alloc(256, (bytes + 255) / 256 * 256);
  if (*memory == nullptr) return cudaErrorMemoryAllocation;
  std::memset(*memory, 0xff, (bytes + 255) / 256 * 256);  // NaN
  return cudaSuccess;
}
inline cudaError_t cudaFree(void* memory) {
  emulated::must_not_be_captured("a release");
  std::free(memory);
  return cudaSuccess;
}
inline void must_be_a_pool(bool there) {
  if (there) return;
  std::fprintf(stderr, "emulated GPU: there is no pool of memory\n");
  std::abort();
}
inline cudaError_t cudaMallocFromPoolAsync(void** memory, size_t bytes, cudaMemPool_t pool, cudaStream_t) {
  must_be_a_pool(pool != nullptr);
  return cudaMalloc(memory, bytes);
}
inline cudaError_t cudaFreeAsync(void* memory, cudaStream_t) { return cudaFree(memory); }
inline cudaError_t cudaMemPoolTrimTo(cudaMemPool_t pool, size_t) {
  must_be_a_pool(pool != nullptr);
  return cudaSuccess;
}
inline cudaError_t cudaMemGetInfo(size_t* free_bytes, size_t* total) {
  *free_bytes = kEmulatedMemory / 2;
  *total = kEmulatedMemory;
  return cudaSuccess;
}
inline cudaError_t cudaMemcpyAsync(void* to, const void* from, size_t bytes, cudaMemcpyKind kind, cudaStream_t) {
  if (kind != cudaMemcpyDeviceToDevice) emulated::must_not_be_captured("a copy from or to the host");
  emulated::submit([=] { std::memcpy(to, from, bytes); });
  return cudaSuccess;
}
inline cudaError_t cudaMemcpy2DAsync(void* to, size_t to_stride, const void* from, size_t from_stride, size_t width,
                                     size_t rows, cudaMemcpyKind kind, cudaStream_t) {
  if (kind != cudaMemcpyDeviceToDevice) emulated::must_not_be_captured("a copy from or to the host");
  emulated::submit([=] {
    for (size_t i = 0; i < rows; ++i)
      std::memcpy(static_cast<char*>(to) + i * to_stride, static_cast<const char*>(from) + i * from_stride, width);
  });
  return cudaSuccess;
}
inline cudaError_t cudaMemsetAsync(void* to, int value, size_t bytes, cudaStream_t) {
  emulated::submit([=] { std::memset(to, value, bytes); });
  return cudaSuccess;
}
inline cudaError_t cudaMemset2DAsync(void* to, size_t stride, int value, size_t width, size_t rows, cudaStream_t) {
  emulated::submit([=] {
    for (size_t i = 0; i < rows; ++i) std::memset(static_cast<char*>(to) + i * stride, value, width);
  });
  return cudaSuccess;
}
inline cudaError_t cudaStreamSynchronize(cudaStream_t) {
  emulated::must_not_be_captured("cudaStreamSynchronize");
  return cudaSuccess;
}
inline cudaError_t cudaEventSynchronize(cudaEvent_t) {
  emulated::must_not_be_captured("cudaEventSynchronize");
  return cudaSuccess;
}
inline cudaError_t cudaEventRecord(cudaEvent_t, cudaStream_t) {
  emulated::must_not_be_captured("cudaEventRecord");
  return cudaSuccess;
}
inline cudaError_t cudaStreamBeginCapture(cudaStream_t, cudaStreamCaptureMode) {
  if (emulated::capture != nullptr) return cudaErrorIllegalState;
  if (emulated::fails("begin")) return cudaErrorNoDevice;
  emulated::capture = new EmulatedGraph;
  return cudaSuccess;
}
inline cudaError_t cudaStreamEndCapture(cudaStream_t, cudaGraph_t* graph) {
  *graph = std::exchange(emulated::capture, nullptr);
  if (*graph == nullptr) return cudaErrorIllegalState;
  if (!emulated::fails("end")) return cudaSuccess;
  delete std::exchange(*graph, nullptr);
  return cudaErrorStreamCaptureInvalidated;
}
inline cudaError_t cudaGraphGetNodes(cudaGraph_t graph, cudaGraphNode_t*, size_t* count) {
  *count = graph->nodes.size();
  return cudaSuccess;
}
inline cudaError_t cudaGraphInstantiateWithFlags(cudaGraphExec_t* executable, cudaGraph_t graph, unsigned long long) {
  if (emulated::fails("make")) return cudaErrorNoDevice;
  *executable = new EmulatedExecutable{*graph};
  return cudaSuccess;
}
inline cudaError_t cudaGraphExecUpdate(cudaGraphExec_t executable, cudaGraph_t graph, cudaGraphExecUpdateResultInfo*) {
  if (executable->graph.nodes.size() != graph->nodes.size() || emulated::fails("update"))
    return cudaErrorGraphExecUpdateFailure;
  executable->graph = *graph;
  return cudaSuccess;
}
inline cudaError_t cudaGraphLaunch(cudaGraphExec_t executable, cudaStream_t) {
  emulated::must_not_be_captured("cudaGraphLaunch");
  if (emulated::fails("launch")) return cudaErrorNoDevice;
  for (const auto& node : executable->graph.nodes) node();
  return cudaSuccess;
}
inline cudaError_t cudaGraphDestroy(cudaGraph_t graph) {
  delete graph;
  return cudaSuccess;
}
inline cudaError_t cudaGraphExecDestroy(cudaGraphExec_t executable) {
  delete executable;
  return cudaSuccess;
}

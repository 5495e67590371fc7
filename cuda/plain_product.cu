// The plain product: any shape, stride and dtype, f32 arithmetic, one chain of multiply-adds over the depth for each
// element. It serves shapes that cuBLASLt does not (rows that are not aligned to 16 bytes), and everything when
// IMPLEX_CUDA_PRODUCTS=own, so that a difference can be traced.
//
// A block makes 64 x 64 elements, a thread 4 x 4, over slices of 16 in shared memory. Limit: the FMA pipes, of which it
// reaches perhaps half; it is not meant to be fast. The same code finishes products whose library call cannot add the
// bias or the residual: see products.cu.
#include "device.h"

namespace implex::cuda {

namespace {

constexpr int kTile = 64;
constexpr int kDepth = 16;
constexpr int kThreads = 256;

template <typename T>
__device__ inline void load_tile(const T* from, int64_t across, int64_t along, int64_t first, int64_t count,
                                 int64_t depth_first, int64_t depth, float (*to)[kTile + 4]) {
  // Neighbouring threads take neighbouring elements of memory.
  const int thread = static_cast<int>(threadIdx.x);
#pragma unroll
  for (int i = 0; i < kTile * kDepth / kThreads; ++i) {
    const int at = i * kThreads + thread;
    const int k = along == 1 ? at % kDepth : at / kTile;
    const int j = along == 1 ? at / kDepth : at % kTile;
    const bool inside = first + j < count && depth_first + k < depth;
    to[k][j] = inside ? to_float(from[(first + j) * across + (depth_first + k) * along]) : 0.0f;
  }
}

template <typename T>
__global__ void __launch_bounds__(kThreads) multiply(ProductTask t) {
  __shared__ float a[kDepth][kTile + 4];
  __shared__ float b[kDepth][kTile + 4];
  const int64_t row = static_cast<int64_t>(blockIdx.x) * kTile;
  const int64_t col = static_cast<int64_t>(blockIdx.y) * kTile;
  const int y = static_cast<int>(threadIdx.x) / 16 * 4;
  const int x = static_cast<int>(threadIdx.x) % 16 * 4;
  float sum[4][4] = {};
  for (int64_t k = 0; k < t.depth; k += kDepth) {
    load_tile(static_cast<const T*>(t.a), t.a_row, t.a_depth, row, t.rows, k, t.depth, a);
    load_tile(static_cast<const T*>(t.b), t.b_col, t.b_depth, col, t.cols, k, t.depth, b);
    __syncthreads();
#pragma unroll
    for (int d = 0; d < kDepth; ++d)
#pragma unroll
      for (int i = 0; i < 4; ++i)
#pragma unroll
        for (int j = 0; j < 4; ++j) sum[i][j] = fmaf(a[d][y + i], b[d][x + j], sum[i][j]);
    __syncthreads();
  }
#pragma unroll
  for (int i = 0; i < 4; ++i) {
#pragma unroll
    for (int j = 0; j < 4; ++j) {
      if (row + y + i >= t.rows || col + x + j >= t.cols) continue;
      float value = sum[i][j];
      if (t.bias != nullptr) value += t.bias[col + x + j];
      if (t.residual != nullptr) value += t.residual[(row + y + i) * t.residual_stride + col + x + j];
      const int64_t at = (row + y + i) * t.out_stride + col + x + j;
      if (t.out_dtype == IX_F32)
        static_cast<float*>(t.out)[at] = value;
      else
        static_cast<Bf16*>(t.out)[at] = from_float<Bf16>(value);
    }
  }
}

}  // namespace

int32_t plain_product(const Call& call, const ProductTask& task) {
  const dim3 grid(blocks_of(task.rows, kTile), blocks_of(task.cols, kTile));
  return with_type(task.dtype, [&](auto type) {
    return call.launch(multiply<typename decltype(type)::type>, grid, kThreads, 0, task);
  });
}

}  // namespace implex::cuda

// scatter_rows: out[rows[i]] = (accumulate ? out[rows[i]] : 0) + in[i], repeated rows in the order of i; f32 out.
// embedding_backward: the same into the table's gradient. A row or id outside the output is left out: the host has
// checked both.
//
// One block for the first of each repeated destination (it looks for one before its own), which then takes all its rows
// in order: no atomics, the same sums every time. Looking costs rows²/2 comparisons out of the cache, for 16384 rows
// about as long as moving them. Floor: the bytes of in and twice those of the destinations over the bandwidth.
#include "device.h"

namespace implex::cuda {

namespace {

constexpr int kThreads = 256;
constexpr int kWarps = kThreads / kWarp;

template <typename T>
__global__ void __launch_bounds__(kThreads) scatter(const T* in, int64_t in_stride, const int32_t* rows, int32_t count,
                                                    int64_t limit, float* out, int64_t out_stride, int64_t cols) {
  __shared__ int32_t list[kThreads];
  __shared__ int32_t found[kWarps];
  const int32_t thread = static_cast<int32_t>(threadIdx.x);
  const int32_t own = static_cast<int32_t>(blockIdx.x);
  const int32_t target = rows[own];
  if (target < 0 || target >= limit) return;
  bool earlier = false;
  for (int32_t j = thread; j < own; j += kThreads) earlier = earlier || rows[j] == target;
  if (__syncthreads_or(earlier ? 1 : 0)) return;
  const int64_t col = (static_cast<int64_t>(blockIdx.y) * kThreads + thread) * 4;
  float* to = out + static_cast<int64_t>(target) * out_stride;
  Four sum = get_four<false>(to, col, cols);
  for (int32_t base = own; base < count; base += kThreads) {
    const int32_t j = base + thread;
    const bool match = j < count && rows[j] == target;
    const unsigned bits = __ballot_sync(kAllLanes, match ? 1 : 0);
    if (thread % kWarp == 0) found[thread / kWarp] = __popc(bits);
    __syncthreads();
    int32_t total = 0, before = 0;
#pragma unroll
    for (int w = 0; w < kWarps; ++w) {
      if (w < thread / kWarp) before += found[w];
      total += found[w];
    }
    if (match) list[before + __popc(bits & ((1u << (thread % kWarp)) - 1u))] = j;
    __syncthreads();
    for (int32_t k = 0; k < total; ++k) {
      const Four v = get_four<false>(in + static_cast<int64_t>(list[k]) * in_stride, col, cols);
#pragma unroll
      for (int i = 0; i < 4; ++i) sum.x[i] += v.x[i];
    }
    __syncthreads();
  }
  put_four<false>(to, col, cols, sum);
}

int32_t scatter_into(const Call& call, const ix_mat* in, const int32_t* rows, float* out, int64_t limit,
                     int64_t out_stride) {
  return with_type(in->dtype, [&](auto type) {
    using T = typename decltype(type)::type;
    return call.launch(scatter<T>, dim3(blocks_of(in->rows, 1), blocks_of(in->cols, kThreads * 4)), kThreads, 0,
                       static_cast<const T*>(in->data), in->stride, rows, static_cast<int32_t>(in->rows), limit, out,
                       out_stride, in->cols);
  });
}

}  // namespace

int32_t embedding_backward(ix_device* device, const int32_t* ids, const ix_mat* in, float* grad, int64_t vocabulary,
                           ix_status* status) {
  Call call(device, status, "embedding_backward", in->rows, in->cols, vocabulary);
  const int32_t code = call.begin();
  if (code != IX_OK) return code;
  if (!is_float(in->dtype)) return call.fail(IX_INVALID, "dtype %d", in->dtype);
  return scatter_into(call, in, ids, grad, vocabulary, in->cols);
}

int32_t scatter_rows(ix_device* device, const ix_mat* in, const int32_t* rows, const ix_mat* out, int32_t accumulate,
                     ix_status* status) {
  Call call(device, status, "scatter_rows", in->rows, in->cols);
  int32_t code = call.begin();
  if (code != IX_OK) return code;
  if (in->cols != out->cols || out->dtype != IX_F32 || !is_float(in->dtype))
    return call.fail(IX_INVALID, "shapes or dtypes disagree");
  if (accumulate == 0 && out->rows > 0 && out->cols > 0)
    code = call.check(cudaMemset2DAsync(out->data, static_cast<size_t>(out->stride) * sizeof(float), 0,
                                        static_cast<size_t>(out->cols) * sizeof(float), static_cast<size_t>(out->rows),
                                        device->stream));
  if (code != IX_OK) return code;
  return scatter_into(call, in, rows, static_cast<float*>(out->data), out->rows, out->stride);
}

}  // namespace implex::cuda

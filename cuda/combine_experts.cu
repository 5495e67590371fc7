// combine_experts: out[n] = residual[n] + sum over k of weights[n, k] * in[places[n, k]], k ascending; out may be the
// residual.
// combine_experts_backward: in_grad[places[n, k]] = weights[n, k] * grad[n], weights_grad[n, k] = grad[n] ·
// in[places[n, k]].
//
// Forward: a thread has four columns of a row and takes all of the row's places. Backward: a block a place, since each
// is named once. Floor: the bytes of all matrices over the memory's bandwidth.
#include "device.h"
#include "gpu/reduce.cuh"

namespace implex::cuda {

namespace {

constexpr int kThreads = 256;

template <bool kAligned>
__global__ void __launch_bounds__(kThreads)
    combine(const float* in, int64_t in_stride, const int32_t* places, const float* weights, int32_t count,
            const float* residual, int64_t residual_stride, float* out, int64_t out_stride, int64_t cols) {
  const int64_t row = blockIdx.x;
  const int64_t i = (static_cast<int64_t>(blockIdx.y) * kThreads + threadIdx.x) * 4;
  if (i >= cols) return;
  Four sum = {{0.0f, 0.0f, 0.0f, 0.0f}};
  if (residual != nullptr) sum = get_four<kAligned>(residual + row * residual_stride, i, cols);
  for (int32_t k = 0; k < count; ++k) {
    const float weight = weights[row * count + k];
    const Four v = get_four<kAligned>(in + static_cast<int64_t>(places[row * count + k]) * in_stride, i, cols);
#pragma unroll
    for (int j = 0; j < 4; ++j) sum.x[j] = fmaf(weight, v.x[j], sum.x[j]);
  }
  put_four<kAligned>(out + row * out_stride, i, cols, sum);
}

template <typename T, bool kAligned>
__global__ void __launch_bounds__(kThreads)
    part(const float* grad, int64_t grad_stride, const float* in, int64_t in_stride, const int32_t* places,
         const float* weights, int32_t count, T* in_grad, int64_t in_grad_stride, float* weights_grad, int64_t cols) {
  __shared__ float scratch[kThreads / kWarp];
  const int64_t item = blockIdx.x;
  const int64_t place = places[item];
  const float weight = weights[item];
  const float* upstream = grad + item / count * grad_stride;
  const float* values = in + place * in_stride;
  T* to = in_grad + place * in_grad_stride;
  float dot = 0.0f;
  for (int64_t i = static_cast<int64_t>(threadIdx.x) * 4; i < cols; i += kThreads * 4) {
    Four g = get_four<kAligned>(upstream, i, cols);
    const Four v = get_four<kAligned>(values, i, cols);  // 0 past the end
#pragma unroll
    for (int j = 0; j < 4; ++j) {
      dot = fmaf(g.x[j], v.x[j], dot);
      g.x[j] *= weight;
    }
    put_four<kAligned>(to, i, cols, g);
  }
  dot = block_sum<kThreads>(dot, scratch);
  if (threadIdx.x == 0) weights_grad[item] = dot;
}

bool is_f32(const ix_mat* m, int64_t rows, int64_t cols) {
  return m->dtype == IX_F32 && m->rows == rows && m->cols == cols;
}

}  // namespace

int32_t combine_experts(ix_device* device, const ix_mat* in, const int32_t* places, const float* weights, int32_t count,
                        const ix_mat* residual, const ix_mat* out, ix_status* status) {
  Call call(device, status, "combine_experts", out->rows, out->cols, count);
  const int32_t code = call.begin();
  if (code != IX_OK) return code;
  if (count < 1 || !is_f32(in, out->rows * count, out->cols) || !is_f32(out, out->rows, out->cols) ||
      (residual != nullptr && !is_f32(residual, out->rows, out->cols)))
    return call.fail(IX_INVALID, "shapes or dtypes disagree");
  const bool aligned = four_aligned(in) && four_aligned(out) && (residual == nullptr || four_aligned(residual));
  return call.launch(
      aligned ? combine<true> : combine<false>, dim3(blocks_of(out->rows, 1), blocks_of(out->cols, kThreads * 4)),
      kThreads, 0, static_cast<const float*>(in->data), in->stride, places, weights, count,
      static_cast<const float*>(residual != nullptr ? residual->data : nullptr),
      residual != nullptr ? residual->stride : 0, static_cast<float*>(out->data), out->stride, out->cols);
}

int32_t combine_experts_backward(ix_device* device, const ix_mat* grad, const ix_mat* in, const int32_t* places,
                                 const float* weights, int32_t count, const ix_mat* in_grad, float* weights_grad,
                                 ix_status* status) {
  Call call(device, status, "combine_experts_backward", grad->rows, grad->cols, count);
  const int32_t code = call.begin();
  if (code != IX_OK) return code;
  if (count < 1 || grad->dtype != IX_F32 || !is_f32(in, grad->rows * count, grad->cols) || in_grad->rows != in->rows ||
      in_grad->cols != in->cols || !is_float(in_grad->dtype))
    return call.fail(IX_INVALID, "shapes or dtypes disagree");
  const bool aligned = four_aligned(grad) && four_aligned(in) && four_aligned(in_grad);
  return with_type(in_grad->dtype, [&](auto type) {
    using T = typename decltype(type)::type;
    return call.launch(aligned ? part<T, true> : part<T, false>, blocks_of(in->rows, 1), kThreads, 0,
                       static_cast<const float*>(grad->data), grad->stride, static_cast<const float*>(in->data),
                       in->stride, places, weights, count, static_cast<T*>(in_grad->data), in_grad->stride,
                       weights_grad, grad->cols);
  });
}

}  // namespace implex::cuda

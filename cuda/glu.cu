// glu: out = act(gate) * up, or act(gate) without `up`; out may be either input.
// glu_backward: gate_grad = grad * up * act'(gate), up_grad = grad * act(gate); the outputs may be `grad` or the
// inputs.
//
// Elementwise, four at a time; a thread reads all it needs before it writes. Floor: 3 (forward with `up`) or 5
// (backward) passes over the matrix at the memory's bandwidth.
#include <algorithm>

#include "device.h"
#include "gpu/activation.cuh"

namespace implex::cuda {

namespace {

constexpr int kThreads = 256;

template <typename T, bool kAligned>
__global__ void __launch_bounds__(kThreads)
    activate_rows(const T* gate, int64_t gate_stride, const T* up, int64_t up_stride, T* out, int64_t out_stride,
                  int64_t cols, int32_t activation) {
  const int64_t row = blockIdx.x;
  const int64_t step = static_cast<int64_t>(gridDim.y) * kThreads * 4;
  for (int64_t i = (static_cast<int64_t>(blockIdx.y) * kThreads + threadIdx.x) * 4; i < cols; i += step) {
    Four x = get_four<kAligned>(gate + row * gate_stride, i, cols);
    Four u = {{1.0f, 1.0f, 1.0f, 1.0f}};
    if (up != nullptr) u = get_four<kAligned>(up + row * up_stride, i, cols);
#pragma unroll
    for (int j = 0; j < 4; ++j) x.x[j] = activate(x.x[j], activation) * u.x[j];
    put_four<kAligned>(out + row * out_stride, i, cols, x);
  }
}

template <typename T, bool kAligned>
__global__ void __launch_bounds__(kThreads)
    activate_backward(const T* gate, int64_t gate_stride, const T* up, int64_t up_stride, const T* grad,
                      int64_t grad_stride, T* gate_grad, int64_t gate_grad_stride, T* up_grad, int64_t up_grad_stride,
                      int64_t cols, int32_t activation) {
  const int64_t row = blockIdx.x;
  const int64_t step = static_cast<int64_t>(gridDim.y) * kThreads * 4;
  for (int64_t i = (static_cast<int64_t>(blockIdx.y) * kThreads + threadIdx.x) * 4; i < cols; i += step) {
    const Four x = get_four<kAligned>(gate + row * gate_stride, i, cols);
    const Four g = get_four<kAligned>(grad + row * grad_stride, i, cols);
    Four for_gate, for_up;
    if (up != nullptr) {
      const Four u = get_four<kAligned>(up + row * up_stride, i, cols);
#pragma unroll
      for (int j = 0; j < 4; ++j) {
        for_gate.x[j] = g.x[j] * u.x[j] * activation_slope(x.x[j], activation);
        for_up.x[j] = g.x[j] * activate(x.x[j], activation);
      }
      put_four<kAligned>(up_grad + row * up_grad_stride, i, cols, for_up);
    } else {
#pragma unroll
      for (int j = 0; j < 4; ++j) for_gate.x[j] = g.x[j] * activation_slope(x.x[j], activation);
    }
    put_four<kAligned>(gate_grad + row * gate_grad_stride, i, cols, for_gate);
  }
}

dim3 grid_of(const ix_mat* m) {
  return dim3(blocks_of(m->rows, 1), std::clamp(blocks_of(m->cols, kThreads * 8), 1u, 64u));
}

bool same(const ix_mat* a, const ix_mat* b) { return a->dtype == b->dtype && a->rows == b->rows && a->cols == b->cols; }

}  // namespace

int32_t glu(ix_device* device, int32_t activation, const ix_mat* gate, const ix_mat* up, const ix_mat* out,
            ix_status* status) {
  Call call(device, status, "glu", out->rows, out->cols);
  const int32_t code = call.begin();
  if (code != IX_OK) return code;
  if (!is_float(out->dtype) || !same(gate, out) || (up != nullptr && !same(up, out)))
    return call.fail(IX_INVALID, "shapes or dtypes disagree");
  const bool aligned = four_aligned(gate) && four_aligned(out) && (up == nullptr || four_aligned(up));
  return with_type(out->dtype, [&](auto type) {
    using T = typename decltype(type)::type;
    return call.launch(aligned ? activate_rows<T, true> : activate_rows<T, false>, grid_of(out), kThreads, 0,
                       static_cast<const T*>(gate->data), gate->stride,
                       static_cast<const T*>(up != nullptr ? up->data : nullptr), up != nullptr ? up->stride : 0,
                       static_cast<T*>(out->data), out->stride, out->cols, activation);
  });
}

int32_t glu_backward(ix_device* device, int32_t activation, const ix_mat* gate, const ix_mat* up, const ix_mat* grad,
                     const ix_mat* gate_grad, const ix_mat* up_grad, ix_status* status) {
  Call call(device, status, "glu_backward", grad->rows, grad->cols);
  const int32_t code = call.begin();
  if (code != IX_OK) return code;
  if (!is_float(grad->dtype) || !same(gate, grad) || !same(gate_grad, grad) || (up == nullptr) != (up_grad == nullptr))
    return call.fail(IX_INVALID, "shapes or dtypes disagree");
  if (up != nullptr && (!same(up, grad) || !same(up_grad, grad)))
    return call.fail(IX_INVALID, "shapes or dtypes disagree");
  const bool aligned = four_aligned(gate) && four_aligned(grad) && four_aligned(gate_grad) &&
                       (up == nullptr || (four_aligned(up) && four_aligned(up_grad)));
  return with_type(grad->dtype, [&](auto type) {
    using T = typename decltype(type)::type;
    return call.launch(aligned ? activate_backward<T, true> : activate_backward<T, false>, grid_of(grad), kThreads, 0,
                       static_cast<const T*>(gate->data), gate->stride,
                       static_cast<const T*>(up != nullptr ? up->data : nullptr), up != nullptr ? up->stride : 0,
                       static_cast<const T*>(grad->data), grad->stride, static_cast<T*>(gate_grad->data),
                       gate_grad->stride, static_cast<T*>(up_grad != nullptr ? up_grad->data : nullptr),
                       up_grad != nullptr ? up_grad->stride : 0, grad->cols, activation);
  });
}

}  // namespace implex::cuda

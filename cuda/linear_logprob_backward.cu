// linear_logprob_backward: with dz[i, v] = grad[i] ([v = target] - softmax(i)[v]),
//   hidden_grad = dz · weight (overwritten),  weight_grad += dz^T · hidden.
// With a soft cap dz is also multiplied by the cap's slope at the logit.
//
// Logits are made again, a block of rows by a block of kBackwardColumns columns at a time; dz stays in the workspace,
// in the products' dtype, and both products read it. Two schemes make dz:
//   fused    the head's own tiles write dz from their registers: nothing else touches memory;
//   product  the library makes f32 logits, a pass turns them into dz: 10 more bytes a logit, but the library's rate.
// The sm_90a tiles take fused, where they should be as fast as the library; all else takes product. By card, dtype and
// alignment, never by the number of rows, which would change a row's bits; IMPLEX_CUDA_HEAD overrides. The scaled
// exponentials of the forward pass cannot be kept instead: backend.h's operation is a function of its arguments.
// Floor: 6 N D V operations over the rate of the matrix units.
#include <algorithm>

#include "gpu/head.cuh"

namespace implex::cuda {

namespace {

constexpr int kThreads = 256;

// kCapped: `logits` are the products before the cap.
template <typename T, bool kCapped>
__global__ void __launch_bounds__(kThreads)
    logit_gradients(const float* logits, int64_t stride, int64_t columns, const int32_t* targets, int32_t first,
                    SoftCap cap, const float* lse, const float* grad, T* gradients) {
  const int64_t row = blockIdx.x;
  const int64_t target = static_cast<int64_t>(targets[row]) - first;
  const float row_lse = lse[row], row_grad = grad[row];
  const int64_t step = static_cast<int64_t>(gridDim.y) * kThreads * 4;
  // The stride is a multiple of 8: whole fours.
  for (int64_t i = (static_cast<int64_t>(blockIdx.y) * kThreads + threadIdx.x) * 4; i < stride; i += step) {
    Four v = load_four(logits + row * stride + i);
#pragma unroll
    for (int j = 0; j < 4; ++j)
      v.x[j] = i + j < columns
                   ? product_gradient<kCapped>(cap, logit_of<kCapped>(cap, v.x[j]), row_lse, row_grad, i + j == target)
                   : 0.0f;
    store_four(gradients + row * stride + i, v);
  }
}

bool fused_scheme(const ix_device* device, const HeadTask& task, int32_t dtype) {
  if (device->settings.head != HeadScheme::kAutomatic) return device->settings.head == HeadScheme::kFused;
  return hopper_serves(device, dtype, task) || device->products == nullptr;
}

}  // namespace

int32_t linear_logprob_backward(ix_device* device, const ix_mat* hidden, const ix_weight* weight,
                                const int32_t* targets, float soft_cap, const float* lse, const float* grad,
                                const ix_mat* hidden_grad, float* weight_grad, ix_status* status) {
  Call call(device, status, "linear_logprob_backward", hidden->rows, hidden->cols, weight->rows);
  int32_t code = call.begin();
  if (code != IX_OK) return code;
  if (!weight->trainable) return call.fail(IX_INVALID, "the weight was not made trainable");
  if (hidden->dtype != weight->dtype || hidden->cols != weight->cols || hidden_grad->rows != hidden->rows ||
      hidden_grad->cols != hidden->cols || hidden_grad->dtype != IX_F32)
    return call.fail(IX_INVALID, "shapes or dtypes disagree with the weight [%lld, %lld]",
                     static_cast<long long>(weight->rows), static_cast<long long>(weight->cols));
  if (!is_soft_cap(soft_cap)) return call.fail(IX_INVALID, "a soft cap of %g", static_cast<double>(soft_cap));
  if (hidden->rows == 0) return IX_OK;
  const int64_t vocabulary = weight->rows, depth = weight->cols;
  const size_t size = element_size(hidden->dtype);
  const int64_t most_columns = backward_columns(vocabulary);

  HeadTask task = {};
  task.hidden = hidden->data;
  task.hidden_stride = hidden->stride;
  task.weight = weight->data;
  task.rows = hidden->rows;
  task.columns = most_columns;
  task.depth = depth;
  task.gradient_stride = backward_stride(most_columns);
  task.cap = soft_cap_of(soft_cap);
  const bool fused = fused_scheme(device, task, hidden->dtype);
  const int64_t rows =
      backward_rows(hidden->rows, vocabulary, fused ? size : size + sizeof(float), device->settings.workspace);
  const size_t block = static_cast<size_t>(rows * backward_stride(most_columns));
  char* gradients = nullptr;
  float* logits = nullptr;
  code = call.scratch(Workspace::kGradients, block * size, &gradients);
  if (code == IX_OK && !fused) code = call.scratch(Workspace::kLogits, block * sizeof(float), &logits);
  for (int64_t row = 0; row < hidden->rows && code == IX_OK; row += rows) {
    const int64_t count = std::min(rows, hidden->rows - row);
    const char* h = static_cast<const char*>(hidden->data) + static_cast<size_t>(row * hidden->stride) * size;
    float* h_grad = static_cast<float*>(hidden_grad->data) + row * hidden_grad->stride;
    for (int64_t first = 0; first < vocabulary && code == IX_OK; first += kBackwardColumns) {
      const int64_t columns = std::min(kBackwardColumns, vocabulary - first);
      const int64_t stride = backward_stride(columns);
      const char* w = static_cast<const char*>(weight->data) + static_cast<size_t>(first * depth) * size;
      if (fused) {
        task.hidden = h;
        task.weight = w;
        task.rows = count;
        task.columns = columns;
        task.targets = targets + row;
        task.first = static_cast<int32_t>(first);
        task.lse = lse + row;
        task.grad = grad + row;
        task.gradients = gradients;
        task.gradient_stride = stride;
        code = head(call, hidden->dtype, task, true);
      } else {
        const ProductTask product_task = {count,         columns, depth,   h, hidden->stride, 1,      w,     depth, 1,
                                          hidden->dtype, nullptr, nullptr, 0, logits,         IX_F32, stride};
        code = product(call, product_task, false);
        if (code == IX_OK)
          code = with_type(hidden->dtype, [&](auto type) {
            using T = typename decltype(type)::type;
            return call.launch(soft_cap > 0 ? logit_gradients<T, true> : logit_gradients<T, false>,
                               dim3(blocks_of(count, 1), blocks_of(stride, kThreads * 16)), kThreads, 0,
                               static_cast<const float*>(logits), stride, columns, targets + row,
                               static_cast<int32_t>(first), task.cap, lse + row, grad + row,
                               reinterpret_cast<T*>(gradients));
          });
      }
      if (code == IX_OK) {
        const ProductTask to_hidden = {count,
                                       depth,
                                       columns,
                                       gradients,
                                       stride,
                                       1,
                                       w,
                                       1,
                                       depth,
                                       hidden->dtype,
                                       nullptr,
                                       first == 0 ? nullptr : h_grad,
                                       hidden_grad->stride,
                                       h_grad,
                                       IX_F32,
                                       hidden_grad->stride};
        code = product(call, to_hidden, false);
      }
      if (code == IX_OK && weight_grad != nullptr) {
        float* w_grad = weight_grad + first * depth;
        const ProductTask to_weight = {columns,        depth,         count,   gradients, 1,     stride, h,      1,
                                       hidden->stride, hidden->dtype, nullptr, w_grad,    depth, w_grad, IX_F32, depth};
        code = product(call, to_weight, true);
      }
    }
  }
  return code;
}

}  // namespace implex::cuda

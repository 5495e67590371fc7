// norm_backward and linear_reward_backward. With x̂ the normalised row, s its scale and g = grad * gamma:
//   in_grad = s (g - [mean g] - x̂ mean(g x̂)), the bracket for layer norm only;
//   gamma_grad += sum over rows of grad x̂,  beta_grad += sum of grad.
// For the linear head grad is row_grad[i] head, and head_grad += sum of row_grad[i] (x̂ gamma + beta).
//
// Three passes: the scales of all rows; sums over blocks of kSumRows rows, a thread a column, added up in order; the
// rows' gradients. Sums come before rows because in_grad may be the memory of grad. Floor: the bytes of in, grad and
// in_grad over the memory's bandwidth; in and grad are read twice.
#include "device.h"
#include "gpu/norm_row.cuh"

namespace implex::cuda {

namespace {

constexpr int kColumnThreads = 128;

// The gradient of the normed rows: a matrix, or the outer product of row_grad and head.
template <typename T>
struct MatrixGrad {
  const T* data;
  int64_t stride;
  template <bool kAligned>
  __device__ Four four(int64_t row, int64_t i, int64_t cols) const {
    return get_four<kAligned>(data + row * stride, i, cols);
  }
  __device__ float one(int64_t row, int64_t i) const { return to_float(data[row * stride + i]); }
};

struct HeadGrad {
  const float* row_grad;
  const float* head;
  template <bool kAligned>
  __device__ Four four(int64_t row, int64_t i, int64_t cols) const {
    Four v = get_four<kAligned>(head, i, cols);
    const float scale = row_grad[row];
#pragma unroll
    for (int j = 0; j < 4; ++j) v.x[j] *= scale;
    return v;
  }
  __device__ float one(int64_t row, int64_t i) const { return row_grad[row] * head[i]; }
};

template <int kGroup, bool kAligned, typename T>
__global__ void __launch_bounds__(kNormThreads)
    row_scales(const T* in, int64_t stride, int64_t rows, int64_t cols, int32_t kind, float eps, RowScale* scales) {
  __shared__ float scratch[kNormThreads / kWarp];
  const int64_t row = static_cast<int64_t>(blockIdx.x) * (kNormThreads / kGroup) + threadIdx.x / kGroup;
  if (row >= rows) return;
  const int thread = static_cast<int>(threadIdx.x) % kGroup;
  const RowScale s = row_scale<kGroup, kAligned>(in + row * stride, cols, kind, eps, thread, scratch);
  if (thread == 0) scales[row] = s;
}

// Sums of one block of rows for one column; null pointers are not wanted. head_sums: of x̂ gamma + beta.
template <typename T, typename Grad>
__global__ void __launch_bounds__(kColumnThreads)
    column_sums(const T* in, int64_t stride, Grad grad, const RowScale* scales, int64_t rows, int64_t cols,
                const float* gamma, const float* beta, const float* row_grad, float* gamma_sums, float* beta_sums,
                float* head_sums) {
  const int64_t col = static_cast<int64_t>(blockIdx.y) * kColumnThreads + threadIdx.x;
  if (col >= cols) return;
  const int64_t first = static_cast<int64_t>(blockIdx.x) * kSumRows;
  const int64_t last = first + kSumRows < rows ? first + kSumRows : rows;
  const float weight = gamma != nullptr ? gamma[col] : 1.0f;
  const float shift = beta != nullptr ? beta[col] : 0.0f;
  float for_gamma = 0.0f, for_beta = 0.0f, for_head = 0.0f;
  for (int64_t row = first; row < last; ++row) {
    const RowScale s = scales[row];
    const float normed = (to_float(in[row * stride + col]) - s.mean) * s.scale;
    const float upstream = grad.one(row, col);
    for_gamma += upstream * normed;
    for_beta += upstream;
    if (head_sums != nullptr) for_head += row_grad[row] * (normed * weight + shift);
  }
  const int64_t at = static_cast<int64_t>(blockIdx.x) * cols + col;
  if (gamma_sums != nullptr) gamma_sums[at] = for_gamma;
  if (beta_sums != nullptr) beta_sums[at] = for_beta;
  if (head_sums != nullptr) head_sums[at] = for_head;
}

template <int kGroup, bool kAligned, typename T, typename Grad, typename Out>
__global__ void __launch_bounds__(kNormThreads)
    row_gradients(const T* in, int64_t stride, Grad grad, const RowScale* scales, int64_t rows, int64_t cols,
                  int32_t kind, const float* gamma, Out* in_grad, int64_t in_grad_stride, int32_t accumulate) {
  __shared__ float scratch[kNormThreads / kWarp];
  const int64_t row = static_cast<int64_t>(blockIdx.x) * (kNormThreads / kGroup) + threadIdx.x / kGroup;
  if (row >= rows) return;
  const int thread = static_cast<int>(threadIdx.x) % kGroup;
  const T* from = in + row * stride;
  const RowScale s = scales[row];
  const auto scaled_gradient = [&](int64_t i) {
    Four g = grad.template four<kAligned>(row, i, cols);
    if (gamma != nullptr) {
      const Four w = get_four<kAligned>(gamma, i, cols);
#pragma unroll
      for (int j = 0; j < 4; ++j) g.x[j] *= w.x[j];
    }
    return g;
  };
  // Elements past the row's end have a gradient of 0 and so add nothing.
  float with_x = 0.0f, alone = 0.0f;
  for (int64_t i = thread * 4; i < cols; i += kGroup * 4) {
    const Four x = get_four<kAligned>(from, i, cols);
    const Four g = scaled_gradient(i);
#pragma unroll
    for (int j = 0; j < 4; ++j) {
      with_x += g.x[j] * ((x.x[j] - s.mean) * s.scale);
      alone += g.x[j];
    }
  }
  const float count = static_cast<float>(cols);
  const float mean_with_x = group_sum<kGroup>(with_x, scratch) / count;
  const float mean_alone = kind == IX_NORM_LAYER ? group_sum<kGroup>(alone, scratch) / count : 0.0f;
  Out* to = in_grad + row * in_grad_stride;
  for (int64_t i = thread * 4; i < cols; i += kGroup * 4) {
    const Four x = get_four<kAligned>(from, i, cols);
    Four g = scaled_gradient(i);
#pragma unroll
    for (int j = 0; j < 4; ++j) g.x[j] = (g.x[j] - mean_alone - (x.x[j] - s.mean) * s.scale * mean_with_x) * s.scale;
    if (accumulate != 0) {
      const Four old = get_four<kAligned>(to, i, cols);
#pragma unroll
      for (int j = 0; j < 4; ++j) g.x[j] += old.x[j];
    }
    put_four<kAligned>(to, i, cols, g);
  }
}

struct Sums {
  float* gamma;
  float* beta;
  float* head;
  const float* row_grad;
};

template <typename Grad>
int32_t backward(const Call& call, const ix_norm* norm, const ix_mat* in, const Grad& grad, bool grad_aligned,
                 const ix_mat* in_grad, int32_t accumulate, const Sums& sums) {
  const int64_t rows = in->rows, cols = in->cols;
  if (rows == 0) return IX_OK;
  const bool aligned =
      grad_aligned && four_aligned(in) && four_aligned(in_grad) && four_aligned(norm->gamma, IX_F32, cols, cols);
  RowScale* scales = nullptr;
  int32_t code = call.scratch(Workspace::kStatistics, static_cast<size_t>(rows) * sizeof(RowScale), &scales);
  if (code != IX_OK) return code;
  return with_type(in->dtype, [&](auto from) -> int32_t {
    using T = typename decltype(from)::type;
    const T* data = static_cast<const T*>(in->data);
    int32_t result = with_group(cols, [&](auto group) {
      constexpr int kGroup = decltype(group)::value;
      return call.launch(aligned ? row_scales<kGroup, true, T> : row_scales<kGroup, false, T>,
                         blocks_of(rows, kNormThreads / kGroup), kNormThreads, 0, data, in->stride, rows, cols,
                         norm->kind, norm->eps, scales);
    });
    if (result == IX_OK && (sums.gamma != nullptr || sums.beta != nullptr || sums.head != nullptr)) {
      const int64_t blocks = (rows + kSumRows - 1) / kSumRows;
      // Each sum's array has room for the next level of add_column_sums behind it.
      const int64_t size = (blocks + (blocks + kSumRows - 1) / kSumRows) * cols;
      float* partials = nullptr;
      result = call.scratch(Workspace::kPartials, static_cast<size_t>(3 * size) * sizeof(float), &partials);
      if (result == IX_OK)
        result = call.launch(column_sums<T, Grad>, dim3(static_cast<unsigned>(blocks), blocks_of(cols, kColumnThreads)),
                             kColumnThreads, 0, data, in->stride, grad, scales, rows, cols, norm->gamma, norm->beta,
                             sums.row_grad, sums.gamma != nullptr ? partials : nullptr,
                             sums.beta != nullptr ? partials + size : nullptr,
                             sums.head != nullptr ? partials + 2 * size : nullptr);
      if (result == IX_OK && sums.gamma != nullptr) result = add_column_sums(call, partials, blocks, cols, sums.gamma);
      if (result == IX_OK && sums.beta != nullptr)
        result = add_column_sums(call, partials + size, blocks, cols, sums.beta);
      if (result == IX_OK && sums.head != nullptr)
        result = add_column_sums(call, partials + 2 * size, blocks, cols, sums.head);
    }
    if (result != IX_OK) return result;
    return with_group(cols, [&](auto group) {
      return with_type(in_grad->dtype, [&](auto to) {
        constexpr int kGroup = decltype(group)::value;
        using Out = typename decltype(to)::type;
        return call.launch(
            aligned ? row_gradients<kGroup, true, T, Grad, Out> : row_gradients<kGroup, false, T, Grad, Out>,
            blocks_of(rows, kNormThreads / kGroup), kNormThreads, 0, data, in->stride, grad, scales, rows, cols,
            norm->kind, norm->gamma, static_cast<Out*>(in_grad->data), in_grad->stride, accumulate);
      });
    });
  });
}

}  // namespace

int32_t norm_backward(ix_device* device, const ix_norm* norm, const ix_mat* in, const ix_mat* grad,
                      const ix_mat* in_grad, int32_t accumulate, float* gamma_grad, float* beta_grad,
                      ix_status* status) {
  Call call(device, status, "norm_backward", in->rows, in->cols);
  const int32_t code = call.begin();
  if (code != IX_OK) return code;
  if (in->rows != grad->rows || in->cols != grad->cols || in_grad->rows != in->rows || in_grad->cols != in->cols ||
      !is_float(in->dtype) || !is_float(grad->dtype) || !is_float(in_grad->dtype))
    return call.fail(IX_INVALID, "shapes or dtypes disagree");
  return with_type(grad->dtype, [&](auto type) {
    using T = typename decltype(type)::type;
    return backward(call, norm, in, MatrixGrad<T>{static_cast<const T*>(grad->data), grad->stride}, four_aligned(grad),
                    in_grad, accumulate, Sums{gamma_grad, beta_grad, nullptr, nullptr});
  });
}

int32_t linear_reward_backward(ix_device* device, const ix_norm* norm, const ix_mat* in, const float* head,
                               const float* row_grad, const ix_mat* in_grad, float* gamma_grad, float* beta_grad,
                               float* head_grad, ix_status* status) {
  Call call(device, status, "linear_reward_backward", in->rows, in->cols);
  const int32_t code = call.begin();
  if (code != IX_OK) return code;
  if (in_grad->rows != in->rows || in_grad->cols != in->cols || in_grad->dtype != IX_F32 || !is_float(in->dtype))
    return call.fail(IX_INVALID, "shapes or dtypes disagree");
  return backward(call, norm, in, HeadGrad{row_grad, head}, four_aligned(head, IX_F32, in->cols, in->cols), in_grad, 0,
                  Sums{gamma_grad, beta_grad, head_grad, row_grad});
}

}  // namespace implex::cuda

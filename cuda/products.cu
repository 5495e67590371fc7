// gemm, gemm_backward_input, gemm_backward_weight, by cuBLASLt or the plain product.
//
// A product that the library cannot finish (bias on a bf16 output, an f32 residual on a bf16 output) goes to f32
// scratch and is finished by a pass over it. Which way a product goes depends on shapes of weights and on strides,
// never on the number of rows. Floor: 2 M N K operations over the rate of the matrix units, or the weight's bytes over
// the bandwidth.
#include <algorithm>

#include "cublaslt.h"

namespace implex::cuda {

namespace {

constexpr int kThreads = 256;

template <typename Out>
__global__ void __launch_bounds__(kThreads)
    finish(const float* in, int64_t cols, const float* bias, const float* residual, int64_t residual_stride, Out* out,
           int64_t out_stride) {
  const int64_t row = blockIdx.x;
  const int64_t step = static_cast<int64_t>(gridDim.y) * kThreads * 4;
  for (int64_t i = (static_cast<int64_t>(blockIdx.y) * kThreads + threadIdx.x) * 4; i < cols; i += step) {
    Four v = get_four<false>(in + row * cols, i, cols);
    if (bias != nullptr) {
      const Four b = get_four<false>(bias, i, cols);
#pragma unroll
      for (int j = 0; j < 4; ++j) v.x[j] += b.x[j];
    }
    if (residual != nullptr) {
      const Four r = get_four<false>(residual + row * residual_stride, i, cols);
#pragma unroll
      for (int j = 0; j < 4; ++j) v.x[j] += r.x[j];
    }
    put_four<false>(out + row * out_stride, i, cols, v);
  }
}

// Row-major out [rows, cols] is column-major d [cols, rows]: the library's a is the task's b.
LibraryProduct library_product(const ProductTask& t, bool rows_fixed) {
  LibraryProduct p = {};
  p.m = t.cols;
  p.n = t.rows;
  p.k = t.depth;
  p.a = t.b;
  p.a_transposed = t.b_depth == 1;
  p.lda = p.a_transposed ? t.b_col : t.b_depth;
  p.b = t.a;
  p.b_transposed = t.a_depth != 1;
  p.ldb = p.b_transposed ? t.a_depth : t.a_row;
  p.d = t.out;
  p.ldd = t.out_stride;
  p.c = t.residual;
  p.ldc = t.residual_stride;
  p.accumulate = t.residual != nullptr;
  p.dtype = t.dtype;
  p.out_dtype = t.out_dtype;
  p.bias = t.bias;
  p.depth_varies = rows_fixed;
  return p;
}

bool unit_stride(int64_t a, int64_t b) { return a == 1 || b == 1; }

}  // namespace

int32_t product(const Call& call, const ProductTask& t, bool rows_fixed) {
  if (t.rows == 0 || t.cols == 0) return IX_OK;
  Products* library = call.device->products.get();
  if (library == nullptr || !unit_stride(t.a_row, t.a_depth) || !unit_stride(t.b_col, t.b_depth))
    return plain_product(call, t);
  LibraryProduct p = library_product(t, rows_fixed);
  bool direct = library_aligned(p) && !(p.accumulate && p.out_dtype != IX_F32);
  int32_t code = IX_OK;
  if (direct) code = library->serves(call, p, &direct);
  if (code != IX_OK) return code;
  if (direct) return library->run(call, p);
  if (p.bias == nullptr && !p.accumulate) return plain_product(call, t);
  // Without bias and residual, into scratch; then those.
  float* scratch = nullptr;
  ProductTask bare = t;
  bare.bias = nullptr;
  bare.residual = nullptr;
  bare.out_dtype = IX_F32;
  bare.out_stride = t.cols;
  code = call.scratch(Workspace::kProduct, static_cast<size_t>(t.rows * t.cols) * sizeof(float), &scratch);
  if (code != IX_OK) return code;
  bare.out = scratch;
  p = library_product(bare, rows_fixed);
  bool served = library_aligned(p);
  if (served) code = library->serves(call, p, &served);
  if (code != IX_OK) return code;
  if (!served) return plain_product(call, t);
  code = library->run(call, p);
  if (code != IX_OK) return code;
  const dim3 grid(blocks_of(t.rows, 1), std::clamp(blocks_of(t.cols, kThreads * 8), 1u, 64u));
  return with_type(t.out_dtype, [&](auto type) {
    using Out = typename decltype(type)::type;
    return call.launch(finish<Out>, grid, kThreads, 0, static_cast<const float*>(scratch), t.cols, t.bias, t.residual,
                       t.residual_stride, static_cast<Out*>(t.out), t.out_stride);
  });
}

namespace {

bool residual_agrees(const ix_mat* residual, const ix_mat* out) {
  return residual == nullptr ||
         (residual->dtype == IX_F32 && residual->rows == out->rows && residual->cols == out->cols);
}

}  // namespace

int32_t gemm(ix_device* device, const ix_mat* in, const ix_weight* weight, const ix_epilogue* epilogue,
             const ix_mat* out, ix_status* status) {
  Call call(device, status, "gemm", out->rows, out->cols, in->cols);
  const int32_t code = call.begin();
  if (code != IX_OK) return code;
  const ix_mat* residual = epilogue->residual;
  if (in->dtype != weight->dtype || in->cols != weight->cols || out->cols != weight->rows || in->rows != out->rows ||
      !is_float(out->dtype) || !residual_agrees(residual, out))
    return call.fail(IX_INVALID, "shapes or dtypes disagree with the weight [%lld, %lld]",
                     static_cast<long long>(weight->rows), static_cast<long long>(weight->cols));
  const ProductTask task = {out->rows,
                            out->cols,
                            in->cols,
                            in->data,
                            in->stride,
                            1,
                            weight->data,
                            weight->cols,
                            1,
                            in->dtype,
                            epilogue->bias,
                            residual != nullptr ? static_cast<const float*>(residual->data) : nullptr,
                            residual != nullptr ? residual->stride : 0,
                            out->data,
                            out->dtype,
                            out->stride};
  return product(call, task, false);
}

int32_t gemm_backward_input(ix_device* device, const ix_mat* grad, const ix_weight* weight, const ix_mat* residual,
                            const ix_mat* out, ix_status* status) {
  Call call(device, status, "gemm_backward_input", out->rows, out->cols, grad->cols);
  const int32_t code = call.begin();
  if (code != IX_OK) return code;
  if (!weight->trainable) return call.fail(IX_INVALID, "the weight was not made trainable");
  if (grad->dtype != weight->dtype || grad->cols != weight->rows || out->cols != weight->cols ||
      grad->rows != out->rows || !is_float(out->dtype) || !residual_agrees(residual, out))
    return call.fail(IX_INVALID, "shapes or dtypes disagree with the weight [%lld, %lld]",
                     static_cast<long long>(weight->rows), static_cast<long long>(weight->cols));
  const ProductTask task = {out->rows,
                            out->cols,
                            grad->cols,
                            grad->data,
                            grad->stride,
                            1,
                            weight->data,
                            1,
                            weight->cols,
                            grad->dtype,
                            nullptr,
                            residual != nullptr ? static_cast<const float*>(residual->data) : nullptr,
                            residual != nullptr ? residual->stride : 0,
                            out->data,
                            out->dtype,
                            out->stride};
  return product(call, task, false);
}

int32_t gemm_backward_weight(ix_device* device, const ix_mat* grad, const ix_mat* in, float* weight_grad,
                             float* bias_grad, ix_status* status) {
  Call call(device, status, "gemm_backward_weight", grad->cols, in->cols, grad->rows);
  int32_t code = call.begin();
  if (code != IX_OK) return code;
  if (grad->rows != in->rows || grad->dtype != in->dtype || !is_float(grad->dtype))
    return call.fail(IX_INVALID, "shapes or dtypes disagree");
  if (grad->rows == 0) return IX_OK;
  if (weight_grad != nullptr) {
    const ProductTask task = {grad->cols, in->cols,    grad->rows, grad->data,  1,       grad->stride,
                              in->data,   1,           in->stride, grad->dtype, nullptr, weight_grad,
                              in->cols,   weight_grad, IX_F32,     in->cols};
    code = product(call, task, true);
    if (code != IX_OK) return code;
  }
  return bias_grad != nullptr ? add_column_sums_of(call, grad, bias_grad) : IX_OK;
}

}  // namespace implex::cuda

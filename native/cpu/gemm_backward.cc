// The two products of a linear layer's backward pass.
#include <algorithm>
#include <cstring>

#include "cpu/device.h"
#include "cpu/weight_gradient.h"

namespace implex::cpu {

int32_t gemm_backward_input(ix_device* device, const ix_mat* grad, const ix_weight* weight, const ix_mat* residual,
                            const ix_mat* out, ix_status* status) {
  if (weight->transposed == nullptr)
    return fail(status, IX_INVALID, "gemm_backward_input: the weight was not made trainable");
  return product(device, grad, packed_transposed(*weight), nullptr, residual, out, status);
}

// weight_grad = gradᵀ · in with the rows as depth: in is packed once, grad transposed, and the tokens are summed in
// their order.
int32_t add_weight_gradient(ix_device* device, const ix_mat* grad, const PackedRows& in, float* weight_grad,
                            ix_status* status) {
  const KernelTable& kernels = *device->kernels;
  const int64_t rows = grad->rows;
  const int64_t stride = (rows + 1) / 2 * 2;
  char* transposed = device->workspace.take(Workspace::kTransposed,
                                            static_cast<size_t>(grad->cols * stride) * element_size(grad->dtype));
  if (transposed == nullptr) {
    return fail(status, IX_OUT_OF_MEMORY, "out of memory for the gradient of a weight [%lld, %lld]",
                static_cast<long long>(grad->cols), static_cast<long long>(in.cols));
  }
  constexpr int64_t kColumns = 64;
  const size_t size = element_size(grad->dtype);
  for_each_task((grad->cols + kColumns - 1) / kColumns, static_cast<double>(grad->cols * rows), [&](int64_t task) {
    const int64_t column = task * kColumns;
    const int64_t count = std::min(kColumns, grad->cols - column);
    kernels.transpose(static_cast<const char*>(grad->data) + static_cast<size_t>(column) * size, grad->dtype,
                      grad->stride, rows, count, transposed + static_cast<size_t>(column * stride) * size, stride);
  });
  const ix_mat a = {transposed, grad->dtype, grad->cols, rows, stride};
  const ix_mat out = {weight_grad, IX_F32, grad->cols, in.cols, in.cols};
  const Packed with = {in.panels, grad->dtype, in.cols, rows, rows, depth_bytes(grad->dtype, kernels.panel, rows)};
  return product(device, &a, with, nullptr, &out, &out, status);
}

int32_t pack_rows(ix_device* device, const ix_mat* in, PackedRows* packed, ix_status* status) {
  const KernelTable& kernels = *device->kernels;
  const int64_t panels = (in->cols + kernels.panel - 1) / kernels.panel;
  const size_t bytes = static_cast<size_t>(panels * depth_bytes(in->dtype, kernels.panel, in->rows));
  char* to = device->workspace.take(Workspace::kPacked, bytes);
  if (to == nullptr) {
    return fail(status, IX_OUT_OF_MEMORY, "out of memory packing [%lld, %lld]", static_cast<long long>(in->rows),
                static_cast<long long>(in->cols));
  }
  // Columns past the end and the half of an odd depth's last pair, which no row fills, must be zero.
  if (in->cols % kernels.panel != 0 || (in->dtype == IX_BF16 && in->rows % 2 != 0)) std::memset(to, 0, bytes);
  packed->cols = in->cols;
  packed->panels = to;
  constexpr int64_t kRows = 64;
  for_each_task((in->rows + kRows - 1) / kRows, static_cast<double>(in->rows * in->cols), [&](int64_t task) {
    const int64_t row = task * kRows;
    const int64_t count = std::min(kRows, in->rows - row);
    kernels.pack_depth(row_of(in, row), in->dtype, in->stride, row, count, in->cols, in->rows, to, in->dtype);
  });
  return IX_OK;
}

int32_t gemm_backward_weight(ix_device* device, const ix_mat* grad, const ix_mat* in, float* weight_grad,
                             float* bias_grad, ix_status* status) {
  if (grad->rows != in->rows || grad->dtype != in->dtype)
    return fail(status, IX_INVALID, "gemm_backward_weight: shapes or dtypes disagree");
  if (grad->rows == 0) return IX_OK;  // a product over no depth would leave its tile as it was
  if (weight_grad != nullptr) {
    PackedRows packed;
    int32_t code = pack_rows(device, in, &packed, status);
    if (code == IX_OK) code = add_weight_gradient(device, grad, packed, weight_grad, status);
    if (code != IX_OK) return code;
  }
  if (bias_grad != nullptr) {
    constexpr int64_t kColumns = 256;
    const size_t size = element_size(grad->dtype);
    for_each_task((grad->cols + kColumns - 1) / kColumns, static_cast<double>(grad->rows * grad->cols),
                  [&](int64_t task) {
                    const int64_t column = task * kColumns;
                    const int64_t count = std::min(kColumns, grad->cols - column);
                    for (int64_t row = 0; row < grad->rows; ++row)
                      device->kernels->add_row(row_of(grad, row) + static_cast<size_t>(column) * size, grad->dtype,
                                               count, bias_grad + column);
                  });
  }
  return IX_OK;
}

}  // namespace implex::cpu

// Backward of the operations that treat each row by itself, and the scattering of rows.
//
// Sums over rows (a norm's gamma, the head) are made per block of rows into partial sums that are then added in the
// order of the blocks, whichever thread made them.
#include <algorithm>
#include <cstring>
#include <new>
#include <numeric>
#include <vector>

#include "cpu/device.h"

namespace implex::cpu {

namespace {

constexpr int64_t kSumRows = 32;  // rows of a partial sum; part of the numerical contract

// `body(row, partial)` adds a row's share to `partial` [width]; `total` becomes the partials added in order.
template <typename F>
bool sum_over_rows(int64_t rows, int64_t width, std::vector<float>* total, double cost, const F& body) {
  const int64_t blocks = (rows + kSumRows - 1) / kSumRows;
  std::vector<float> partials;
  try {
    total->assign(static_cast<size_t>(width), 0.0f);
    partials.assign(static_cast<size_t>(blocks * width), 0.0f);
  } catch (const std::bad_alloc&) {
    return false;
  }
  for_each_task(blocks, cost * static_cast<double>(rows), [&](int64_t block) {
    const int64_t end = std::min(rows, (block + 1) * kSumRows);
    for (int64_t row = block * kSumRows; row < end; ++row) body(row, &partials[static_cast<size_t>(block * width)]);
  });
  for (int64_t block = 0; block < blocks; ++block)
    for (int64_t i = 0; i < width; ++i)
      (*total)[static_cast<size_t>(i)] += partials[static_cast<size_t>(block * width + i)];
  return true;
}

}  // namespace

int32_t norm_backward(ix_device* device, const ix_norm* norm, const ix_mat* in, const ix_mat* grad,
                      const ix_mat* in_grad, int32_t accumulate, float* gamma_grad, float* beta_grad,
                      ix_status* status) {
  if (in->rows != grad->rows || in->cols != grad->cols || in_grad->rows != in->rows || in_grad->cols != in->cols)
    return fail(status, IX_INVALID, "norm_backward: shapes disagree");
  const int64_t width = in->cols;
  // gamma and beta side by side in one partial sum.
  std::vector<float> sums;
  const bool done =
      sum_over_rows(in->rows, 2 * width, &sums, 10.0 * static_cast<double>(width), [&](int64_t row, float* partial) {
        device->kernels->norm_backward_row(row_of(in, row), in->dtype, width, norm->kind, norm->gamma, norm->eps,
                                           row_of(grad, row), grad->dtype, mutable_row_of(in_grad, row), in_grad->dtype,
                                           accumulate, gamma_grad ? partial : nullptr,
                                           beta_grad ? partial + width : nullptr);
      });
  if (!done)
    return fail(status, IX_OUT_OF_MEMORY, "norm_backward: out of memory for %lld rows",
                static_cast<long long>(in->rows));
  for (int64_t i = 0; i < width; ++i) {
    if (gamma_grad) gamma_grad[i] += sums[static_cast<size_t>(i)];
    if (beta_grad) beta_grad[i] += sums[static_cast<size_t>(width + i)];
  }
  return IX_OK;
}

int32_t glu_backward(ix_device* device, int32_t activation, const ix_mat* gate, const ix_mat* up, const ix_mat* grad,
                     const ix_mat* gate_grad, const ix_mat* up_grad, ix_status* status) {
  if (gate->dtype != grad->dtype || gate->rows != grad->rows || gate->cols != grad->cols ||
      gate_grad->rows != grad->rows || gate_grad->dtype != grad->dtype || (up == nullptr) != (up_grad == nullptr))
    return fail(status, IX_INVALID, "glu_backward: shapes or dtypes disagree");
  for_each_row(grad->rows, 30.0 * static_cast<double>(grad->cols), [&](int64_t row) {
    device->kernels->glu_backward_row(row_of(gate, row), up ? row_of(up, row) : nullptr, row_of(grad, row), grad->dtype,
                                      grad->cols, activation, mutable_row_of(gate_grad, row),
                                      up_grad ? mutable_row_of(up_grad, row) : nullptr);
  });
  return IX_OK;
}

namespace {

// Rows of `in` grouped by destination, each group in ascending order; groups as [begin, end) of `order`.
struct Groups {
  std::vector<int32_t> order;
  std::vector<int64_t> begin;  // one more than there are groups
};

Groups group_by(const int32_t* destination, int64_t count) {
  Groups g;
  g.order.resize(static_cast<size_t>(count));
  std::iota(g.order.begin(), g.order.end(), 0);
  std::stable_sort(g.order.begin(), g.order.end(),
                   [&](int32_t a, int32_t b) { return destination[a] < destination[b]; });
  for (size_t i = 0; i < g.order.size(); ++i)
    if (i == 0 || destination[g.order[i]] != destination[g.order[i - 1]]) g.begin.push_back(static_cast<int64_t>(i));
  g.begin.push_back(count);
  return g;
}

}  // namespace

int32_t embedding_backward(ix_device* device, const int32_t* ids, const ix_mat* in, float* grad, int64_t vocabulary,
                           ix_status* status) {
  for (int64_t i = 0; i < in->rows; ++i)
    if (ids[i] < 0 || ids[i] >= vocabulary)
      return fail(status, IX_INVALID, "embedding_backward: token id %d is outside the vocabulary", ids[i]);
  const ix_mat out = {grad, IX_F32, vocabulary, in->cols, in->cols};
  return scatter_rows(device, in, ids, &out, 1, status);
}

int32_t scatter_rows(ix_device* device, const ix_mat* in, const int32_t* rows, const ix_mat* out, int32_t accumulate,
                     ix_status* status) {
  if (in->cols != out->cols || out->dtype != IX_F32)
    return fail(status, IX_INVALID, "scatter_rows: shapes or dtypes disagree");
  Groups groups;
  try {
    groups = group_by(rows, in->rows);
  } catch (const std::bad_alloc&) {
    return fail(status, IX_OUT_OF_MEMORY, "scatter_rows: out of memory ordering %lld rows",
                static_cast<long long>(in->rows));
  }
  if (accumulate == 0) {
    for_each_row(out->rows, static_cast<double>(out->cols) / 4, [&](int64_t row) {
      std::memset(mutable_row_of(out, row), 0, static_cast<size_t>(out->cols) * sizeof(float));
    });
  }
  for_each_row(static_cast<int64_t>(groups.begin.size()) - 1, 2.0 * static_cast<double>(out->cols), [&](int64_t group) {
    for (int64_t i = groups.begin[static_cast<size_t>(group)]; i < groups.begin[static_cast<size_t>(group + 1)]; ++i) {
      const int32_t row = groups.order[static_cast<size_t>(i)];
      device->kernels->add_row(row_of(in, row), in->dtype, in->cols,
                               reinterpret_cast<float*>(mutable_row_of(out, rows[row])));
    }
  });
  return IX_OK;
}

int32_t cast(ix_device* device, const ix_mat* in, const ix_mat* out, ix_status* status) {
  if (in->rows != out->rows || in->cols != out->cols) return fail(status, IX_INVALID, "cast: shapes disagree");
  for_each_row(in->rows, static_cast<double>(in->cols) / 4, [&](int64_t row) {
    device->kernels->convert_row(row_of(in, row), in->dtype, in->cols, mutable_row_of(out, row), out->dtype);
  });
  return IX_OK;
}

int32_t linear_reward_backward(ix_device* device, const ix_norm* norm, const ix_mat* in, const float* head,
                               const float* row_grad, const ix_mat* in_grad, float* gamma_grad, float* beta_grad,
                               float* head_grad, ix_status* status) {
  if (in_grad->rows != in->rows || in_grad->cols != in->cols || in_grad->dtype != IX_F32)
    return fail(status, IX_INVALID, "linear_reward_backward: shapes or dtypes disagree");
  const KernelTable& kernels = *device->kernels;
  const int64_t width = in->cols;
  // Partial sums: gamma, beta, head, then two rows of scratch whose sum nobody wants.
  std::vector<float> sums;
  const bool done =
      sum_over_rows(in->rows, 5 * width, &sums, 20.0 * static_cast<double>(width), [&](int64_t row, float* partial) {
        float* normed = partial + 3 * width;
        float* upstream = partial + 4 * width;
        kernels.norm_row(row_of(in, row), in->dtype, width, norm->kind, norm->gamma, norm->beta, norm->eps, normed,
                         IX_F32);
        kernels.add_scaled(normed, row_grad[row], width, partial + 2 * width);
        for (int64_t i = 0; i < width; ++i) upstream[i] = row_grad[row] * head[i];
        kernels.norm_backward_row(row_of(in, row), in->dtype, width, norm->kind, norm->gamma, norm->eps, upstream,
                                  IX_F32, mutable_row_of(in_grad, row), IX_F32, 0, partial, partial + width);
      });
  if (!done)
    return fail(status, IX_OUT_OF_MEMORY, "linear_reward_backward: out of memory for %lld rows",
                static_cast<long long>(in->rows));
  for (int64_t i = 0; i < width; ++i) {
    if (gamma_grad) gamma_grad[i] += sums[static_cast<size_t>(i)];
    if (beta_grad) beta_grad[i] += sums[static_cast<size_t>(width + i)];
    if (head_grad) head_grad[i] += sums[static_cast<size_t>(2 * width + i)];
  }
  return IX_OK;
}

}  // namespace implex::cpu

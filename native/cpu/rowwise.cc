// Operations that treat each row by itself: embedding, gather, norm, gated activation, rotary positions.
#include <cstring>

#include "cpu/device.h"

namespace implex::cpu {

int32_t embedding(ix_device* device, const ix_weight* table, const int32_t* ids, const ix_mat* out, ix_status* status) {
  if (out->dtype != IX_F32 || out->cols != table->cols)
    return fail(status, IX_INVALID, "embedding: the output must be f32 [N, D]");
  for (int64_t i = 0; i < out->rows; ++i)
    if (ids[i] < 0 || ids[i] >= table->rows)
      return fail(status, IX_INVALID, "embedding: token id %d is outside the vocabulary", ids[i]);
  for_each_row(out->rows, static_cast<double>(out->cols), [&](int64_t row) {
    float* to = reinterpret_cast<float*>(mutable_row_of(out, row));
    if (table->dtype == IX_F32) {
      device->kernels->unpack_f32(static_cast<const float*>(table->panels), ids[row], table->cols, to);
    } else {
      device->kernels->unpack_bf16(static_cast<const uint16_t*>(table->panels), ids[row], table->cols, to);
    }
  });
  return IX_OK;
}

int32_t gather_rows(ix_device*, const ix_mat* in, const int32_t* rows, const ix_mat* out, ix_status* status) {
  if (in->dtype != out->dtype || in->cols != out->cols)
    return fail(status, IX_INVALID, "gather_rows: shapes or dtypes disagree");
  const size_t bytes = static_cast<size_t>(out->cols) * element_size(out->dtype);
  for_each_row(out->rows, static_cast<double>(out->cols) / 4,
               [&](int64_t row) { std::memcpy(mutable_row_of(out, row), row_of(in, rows[row]), bytes); });
  return IX_OK;
}

int32_t norm(ix_device* device, const ix_norm* norm, const ix_mat* in, const ix_mat* out, ix_status* status) {
  if (in->rows != out->rows || in->cols != out->cols) return fail(status, IX_INVALID, "norm: shapes disagree");
  for_each_row(out->rows, 4.0 * static_cast<double>(out->cols), [&](int64_t row) {
    device->kernels->norm_row(row_of(in, row), in->dtype, in->cols, norm->kind, norm->gamma, norm->beta, norm->eps,
                              mutable_row_of(out, row), out->dtype);
  });
  return IX_OK;
}

int32_t scaled_add(ix_device* device, const ix_mat* in, float scale, const ix_mat* residual, const ix_mat* out,
                   ix_status* status) {
  if (in->rows != out->rows || in->cols != out->cols ||
      (residual != nullptr &&
       (residual->dtype != IX_F32 || residual->rows != out->rows || residual->cols != out->cols)))
    return fail(status, IX_INVALID, "scaled_add: shapes or dtypes disagree");
  for_each_row(out->rows, static_cast<double>(out->cols), [&](int64_t row) {
    device->kernels->scaled_add_row(row_of(in, row), in->dtype, scale,
                                    residual ? reinterpret_cast<const float*>(row_of(residual, row)) : nullptr,
                                    out->cols, mutable_row_of(out, row), out->dtype);
  });
  return IX_OK;
}

int32_t glu(ix_device* device, int32_t activation, const ix_mat* gate, const ix_mat* up, const ix_mat* out,
            ix_status* status) {
  if (gate->dtype != out->dtype || gate->rows != out->rows || gate->cols != out->cols ||
      (up != nullptr && (up->dtype != out->dtype || up->rows != out->rows || up->cols != out->cols)))
    return fail(status, IX_INVALID, "glu: shapes or dtypes disagree");
  for_each_row(out->rows, 20.0 * static_cast<double>(out->cols), [&](int64_t row) {
    device->kernels->glu_row(row_of(gate, row), up ? row_of(up, row) : nullptr, out->dtype, out->cols, activation,
                             mutable_row_of(out, row));
  });
  return IX_OK;
}

int32_t rope(ix_device* device, const ix_batch* batch, const ix_rope* rope, const int32_t* rows, const ix_mat* x,
             ix_status* status) {
  if (x->cols != static_cast<int64_t>(rope->heads) * rope->head_dim)
    return fail(status, IX_INVALID, "rope: the matrix is not [N, heads * head_dim]");
  if (rows == nullptr && x->rows != static_cast<int64_t>(batch->positions.size()))
    return fail(status, IX_INVALID, "rope: rows disagree with the batch");
  const int32_t half = rope->rotary_dim / 2;
  for_each_row(x->rows, 6.0 * rope->heads * half, [&](int64_t row) {
    const int64_t position = batch->positions[static_cast<size_t>(rows ? rows[row] : row)];
    device->kernels->rope_row(mutable_row_of(x, row), x->dtype, rope->heads, rope->head_dim, rope->rotary_dim,
                              rope->cosines + position * half, rope->sines + position * half, rope->inverse);
  });
  return IX_OK;
}

}  // namespace implex::cpu

// rope: rotates pairs (i, i + rotary_dim / 2) of each head's first rotary_dim values by the angle of the row's
// position, in place; `inverse` by the negative angle.
//
// One block a row, one thread a pair at a time. Floor: twice the rotated bytes over the memory's bandwidth; the tables
// stay in the second-level cache.
#include "device.h"

namespace implex::cuda {

namespace {

constexpr int kThreads = 128;

template <typename T>
__global__ void __launch_bounds__(kThreads)
    rotate(T* x, int64_t stride, const int32_t* positions, const int32_t* rows, const float* cosines,
           const float* sines, int32_t heads, int32_t head_dim, int32_t half, float sign) {
  const int64_t row = blockIdx.x;
  const int64_t position = positions[rows != nullptr ? rows[row] : row];
  const float* c = cosines + position * half;
  const float* s = sines + position * half;
  for (int32_t pair = static_cast<int32_t>(threadIdx.x); pair < heads * half; pair += kThreads) {
    const int32_t head = pair / half;
    const int32_t i = pair - head * half;
    T* first = x + row * stride + static_cast<int64_t>(head) * head_dim + i;
    T* second = first + half;
    const float a = to_float(*first);
    const float b = to_float(*second);
    const float sine = s[i] * sign;
    *first = from_float<T>(a * c[i] - b * sine);
    *second = from_float<T>(b * c[i] + a * sine);
  }
}

}  // namespace

int32_t rope(ix_device* device, const ix_batch* batch, const ix_rope* rope, const int32_t* rows, const ix_mat* x,
             ix_status* status) {
  Call call(device, status, "rope", x->rows, x->cols);
  const int32_t code = call.begin();
  if (code != IX_OK) return code;
  if (x->cols != static_cast<int64_t>(rope->heads) * rope->head_dim || !is_float(x->dtype))
    return call.fail(IX_INVALID, "the matrix is not [N, heads * head_dim]");
  if (rows == nullptr && x->rows != batch->tokens) return call.fail(IX_INVALID, "rows disagree with the batch");
  const int32_t half = rope->rotary_dim / 2;
  if (half == 0) return IX_OK;
  return with_type(x->dtype, [&](auto type) {
    using T = typename decltype(type)::type;
    return call.launch(rotate<T>, blocks_of(x->rows, 1), kThreads, 0, static_cast<T*>(x->data), x->stride,
                       batch->positions, rows, rope->cosines, rope->sines, rope->heads, rope->head_dim, half,
                       rope->inverse != 0 ? -1.0f : 1.0f);
  });
}

}  // namespace implex::cuda

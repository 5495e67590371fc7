// embedding: out f32 [N, D] = rows of the table [V, D] named by ids. An id outside the table gives NaN, which the
// engine reports with the loss: the host has checked ids long before.
//
// One block a row. Floor: N D (4 + element size) bytes over the memory's bandwidth.
#include "device.h"

namespace implex::cuda {

namespace {

constexpr int kThreads = 128;

template <typename T, bool kAligned>
__global__ void __launch_bounds__(kThreads)
    embed(const T* table, int64_t vocabulary, int64_t cols, const int32_t* ids, float* out, int64_t out_stride) {
  const int64_t row = blockIdx.x;
  const int64_t id = ids[row];
  float* to = out + row * out_stride;
  const bool inside = id >= 0 && id < vocabulary;
  for (int64_t i = threadIdx.x * 4; i < cols; i += kThreads * 4) {
    const float nan = __uint_as_float(0x7fc00000u);
    const Four v = inside ? get_four<kAligned>(table + id * cols, i, cols) : Four{{nan, nan, nan, nan}};
    put_four<kAligned>(to, i, cols, v);
  }
}

}  // namespace

int32_t embedding(ix_device* device, const ix_weight* table, const int32_t* ids, const ix_mat* out, ix_status* status) {
  Call call(device, status, "embedding", out->rows, out->cols);
  const int32_t code = call.begin();
  if (code != IX_OK) return code;
  if (out->dtype != IX_F32 || out->cols != table->cols) return call.fail(IX_INVALID, "the output must be f32 [N, D]");
  const bool aligned = four_aligned(table->data, table->dtype, table->cols, table->cols) && four_aligned(out);
  return with_type(table->dtype, [&](auto type) {
    using T = typename decltype(type)::type;
    return call.launch(aligned ? embed<T, true> : embed<T, false>, blocks_of(out->rows, 1), kThreads, 0,
                       static_cast<const T*>(table->data), table->rows, table->cols, ids,
                       static_cast<float*>(out->data), out->stride);
  });
}

}  // namespace implex::cuda

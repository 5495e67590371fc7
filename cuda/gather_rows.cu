// gather_rows: out[i] = in[rows[i]], both of one dtype.
//
// One block a row. Floor: twice the bytes of the output over the memory's bandwidth.
#include "device.h"

namespace implex::cuda {

namespace {

constexpr int kThreads = 128;

template <typename T, bool kAligned>
__global__ void __launch_bounds__(kThreads)
    gather(const T* in, int64_t in_stride, const int32_t* rows, T* out, int64_t out_stride, int64_t cols) {
  const T* from = in + static_cast<int64_t>(rows[blockIdx.x]) * in_stride;
  T* to = out + static_cast<int64_t>(blockIdx.x) * out_stride;
  for (int64_t i = threadIdx.x * 4; i < cols; i += kThreads * 4)
    put_four<kAligned>(to, i, cols, get_four<kAligned>(from, i, cols));
}

}  // namespace

int32_t gather_rows(ix_device* device, const ix_mat* in, const int32_t* rows, const ix_mat* out, ix_status* status) {
  Call call(device, status, "gather_rows", out->rows, out->cols);
  const int32_t code = call.begin();
  if (code != IX_OK) return code;
  if (in->dtype != out->dtype || in->cols != out->cols || !is_float(in->dtype))
    return call.fail(IX_INVALID, "shapes or dtypes disagree");
  const bool aligned = four_aligned(in) && four_aligned(out);
  return with_type(in->dtype, [&](auto type) {
    using T = typename decltype(type)::type;
    return call.launch(aligned ? gather<T, true> : gather<T, false>, blocks_of(out->rows, 1), kThreads, 0,
                       static_cast<const T*>(in->data), in->stride, rows, static_cast<T*>(out->data), out->stride,
                       out->cols);
  });
}

}  // namespace implex::cuda

// cast: out = in, rounded to the output's dtype.
//
// One block a row, or several for long rows (the optimiser's flat arrays come as one row). Floor: the bytes of both
// over the memory's bandwidth.
#include <algorithm>

#include "device.h"

namespace implex::cuda {

namespace {

constexpr int kThreads = 256;

template <typename From, typename To, bool kAligned>
__global__ void __launch_bounds__(kThreads)
    convert_rows(const From* in, int64_t in_stride, To* out, int64_t out_stride, int64_t cols) {
  const From* from = in + static_cast<int64_t>(blockIdx.x) * in_stride;
  To* to = out + static_cast<int64_t>(blockIdx.x) * out_stride;
  const int64_t step = static_cast<int64_t>(gridDim.y) * kThreads * 4;
  for (int64_t i = (static_cast<int64_t>(blockIdx.y) * kThreads + threadIdx.x) * 4; i < cols; i += step)
    put_four<kAligned>(to, i, cols, get_four<kAligned>(from, i, cols));
}

}  // namespace

int32_t cast(ix_device* device, const ix_mat* in, const ix_mat* out, ix_status* status) {
  Call call(device, status, "cast", in->rows, in->cols);
  const int32_t code = call.begin();
  if (code != IX_OK) return code;
  if (in->rows != out->rows || in->cols != out->cols || !is_float(in->dtype) || !is_float(out->dtype))
    return call.fail(IX_INVALID, "shapes or dtypes disagree");
  const bool aligned = four_aligned(in) && four_aligned(out);
  const dim3 grid(blocks_of(in->rows, 1), std::clamp(blocks_of(in->cols, kThreads * 16), 1u, 4096u));
  return with_type(in->dtype, [&](auto from) {
    return with_type(out->dtype, [&](auto to) {
      using From = typename decltype(from)::type;
      using To = typename decltype(to)::type;
      return call.launch(aligned ? convert_rows<From, To, true> : convert_rows<From, To, false>, grid, kThreads, 0,
                         static_cast<const From*>(in->data), in->stride, static_cast<To*>(out->data), out->stride,
                         in->cols);
    });
  });
}

}  // namespace implex::cuda

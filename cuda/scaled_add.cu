// scaled_add: out = scale * in + residual, or scale * in; in and out of any dtype, the residual f32. out may be either.
//
// One block a row, or several for long rows, four elements at a time; a thread reads all it needs before it writes.
// Floor: the bytes of all three over the memory's bandwidth.
#include <algorithm>

#include "device.h"

namespace implex::cuda {

namespace {

constexpr int kThreads = 256;

template <typename In, typename Out, bool kAligned>
__global__ void __launch_bounds__(kThreads)
    scale_rows(const In* in, int64_t in_stride, float scale, const float* residual, int64_t residual_stride, Out* out,
               int64_t out_stride, int64_t cols) {
  const int64_t row = blockIdx.x;
  const int64_t step = static_cast<int64_t>(gridDim.y) * kThreads * 4;
  for (int64_t i = (static_cast<int64_t>(blockIdx.y) * kThreads + threadIdx.x) * 4; i < cols; i += step) {
    Four v = get_four<kAligned>(in + row * in_stride, i, cols);
    if (residual != nullptr) {
      const Four r = get_four<kAligned>(residual + row * residual_stride, i, cols);
#pragma unroll
      for (int j = 0; j < 4; ++j) v.x[j] = fmaf(scale, v.x[j], r.x[j]);
    } else {
#pragma unroll
      for (int j = 0; j < 4; ++j) v.x[j] *= scale;
    }
    put_four<kAligned>(out + row * out_stride, i, cols, v);
  }
}

}  // namespace

int32_t scaled_add(ix_device* device, const ix_mat* in, float scale, const ix_mat* residual, const ix_mat* out,
                   ix_status* status) {
  Call call(device, status, "scaled_add", out->rows, out->cols);
  const int32_t code = call.begin();
  if (code != IX_OK) return code;
  if (in->rows != out->rows || in->cols != out->cols || !is_float(in->dtype) || !is_float(out->dtype) ||
      (residual != nullptr &&
       (residual->dtype != IX_F32 || residual->rows != out->rows || residual->cols != out->cols)))
    return call.fail(IX_INVALID, "shapes or dtypes disagree");
  const bool aligned = four_aligned(in) && four_aligned(out) && (residual == nullptr || four_aligned(residual));
  const dim3 grid(blocks_of(out->rows, 1), std::clamp(blocks_of(out->cols, kThreads * 8), 1u, 4096u));
  return with_type(in->dtype, [&](auto from) {
    return with_type(out->dtype, [&](auto to) {
      using In = typename decltype(from)::type;
      using Out = typename decltype(to)::type;
      return call.launch(aligned ? scale_rows<In, Out, true> : scale_rows<In, Out, false>, grid, kThreads, 0,
                         static_cast<const In*>(in->data), in->stride, scale,
                         static_cast<const float*>(residual != nullptr ? residual->data : nullptr),
                         residual != nullptr ? residual->stride : 0, static_cast<Out*>(out->data), out->stride,
                         out->cols);
    });
  });
}

}  // namespace implex::cuda

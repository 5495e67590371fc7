// norm: RMS or layer norm of each row, f32 or bf16 in and out; out may be in.
//
// A warp a row up to 512 columns (the norms of heads), a block of 256 threads above. A row is read once from memory and
// again from the first-level cache. Floor: the bytes of input and output over the memory's bandwidth.
#include "device.h"
#include "gpu/norm_row.cuh"

namespace implex::cuda {

namespace {

template <int kGroup, bool kAligned, typename In, typename Out>
__global__ void __launch_bounds__(kNormThreads)
    norm_rows(const In* in, int64_t in_stride, Out* out, int64_t out_stride, int64_t rows, int64_t cols, int32_t kind,
              const float* gamma, const float* beta, float eps) {
  __shared__ float scratch[kNormThreads / kWarp];
  const int64_t row = static_cast<int64_t>(blockIdx.x) * (kNormThreads / kGroup) + threadIdx.x / kGroup;
  if (row >= rows) return;
  const int thread = static_cast<int>(threadIdx.x) % kGroup;
  const In* from = in + row * in_stride;
  Out* to = out + row * out_stride;
  const RowScale s = row_scale<kGroup, kAligned>(from, cols, kind, eps, thread, scratch);
  for (int64_t i = thread * 4; i < cols; i += kGroup * 4) {
    Four v = get_four<kAligned>(from, i, cols);
#pragma unroll
    for (int j = 0; j < 4; ++j) v.x[j] = (v.x[j] - s.mean) * s.scale;
    if (gamma != nullptr) {
      const Four g = get_four<kAligned>(gamma, i, cols);
#pragma unroll
      for (int j = 0; j < 4; ++j) v.x[j] *= g.x[j];
    }
    if (beta != nullptr) {
      const Four b = get_four<kAligned>(beta, i, cols);
#pragma unroll
      for (int j = 0; j < 4; ++j) v.x[j] += b.x[j];
    }
    put_four<kAligned>(to, i, cols, v);
  }
}

}  // namespace

int32_t norm(ix_device* device, const ix_norm* norm, const ix_mat* in, const ix_mat* out, ix_status* status) {
  Call call(device, status, "norm", out->rows, out->cols);
  const int32_t code = call.begin();
  if (code != IX_OK) return code;
  if (in->rows != out->rows || in->cols != out->cols || !is_float(in->dtype) || !is_float(out->dtype))
    return call.fail(IX_INVALID, "shapes or dtypes disagree");
  const bool aligned = four_aligned(in) && four_aligned(out) && four_aligned(norm->gamma, IX_F32, in->cols, in->cols) &&
                       four_aligned(norm->beta, IX_F32, in->cols, in->cols);
  return with_group(in->cols, [&](auto group) {
    constexpr int kGroup = decltype(group)::value;
    return with_type(in->dtype, [&](auto from) {
      return with_type(out->dtype, [&](auto to) {
        using In = typename decltype(from)::type;
        using Out = typename decltype(to)::type;
        return call.launch(aligned ? norm_rows<kGroup, true, In, Out> : norm_rows<kGroup, false, In, Out>,
                           blocks_of(in->rows, kNormThreads / kGroup), kNormThreads, 0,
                           static_cast<const In*>(in->data), in->stride, static_cast<Out*>(out->data), out->stride,
                           in->rows, in->cols, norm->kind, norm->gamma, norm->beta, norm->eps);
      });
    });
  });
}

}  // namespace implex::cuda

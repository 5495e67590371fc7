// linear_reward: reward[k] = mean over rows [first[k], first[k] + count[k]) of head · norm(row).
//
// A row's norm and dot product in one pass by a warp or a block, then a warp a group adds its rows in double. The rows
// are few (one a response, or the response's tokens). Floor: their bytes over the memory's bandwidth.
#include <vector>

#include "device.h"
#include "gpu/norm_row.cuh"

namespace implex::cuda {

namespace {

template <int kGroup, bool kAligned, typename T>
__global__ void __launch_bounds__(kNormThreads)
    head_dots(const T* in, int64_t stride, int64_t rows, int64_t cols, int32_t kind, const float* gamma,
              const float* beta, float eps, const float* head, float* dots) {
  __shared__ float scratch[kNormThreads / kWarp];
  const int64_t row = static_cast<int64_t>(blockIdx.x) * (kNormThreads / kGroup) + threadIdx.x / kGroup;
  if (row >= rows) return;
  const int thread = static_cast<int>(threadIdx.x) % kGroup;
  const T* from = in + row * stride;
  const RowScale s = row_scale<kGroup, kAligned>(from, cols, kind, eps, thread, scratch);
  float dot = 0.0f;
  for (int64_t i = thread * 4; i < cols; i += kGroup * 4) {
    Four v = get_four<kAligned>(from, i, cols);
    const Four u = get_four<kAligned>(head, i, cols);  // 0 past the end
    Four g = {{1.0f, 1.0f, 1.0f, 1.0f}}, b = {{0.0f, 0.0f, 0.0f, 0.0f}};
    if (gamma != nullptr) g = get_four<kAligned>(gamma, i, cols);
    if (beta != nullptr) b = get_four<kAligned>(beta, i, cols);
#pragma unroll
    for (int j = 0; j < 4; ++j) dot += ((v.x[j] - s.mean) * s.scale * g.x[j] + b.x[j]) * u.x[j];
  }
  dot = group_sum<kGroup>(dot, scratch);
  if (thread == 0) dots[row] = dot;
}

// A warp a group.
__global__ void __launch_bounds__(kWarp)
    group_means(const float* dots, const int32_t* first, const int32_t* count, float* reward) {
  const int32_t from = first[blockIdx.x];
  const int32_t rows = count[blockIdx.x];
  double sum = 0;
  for (int32_t i = static_cast<int32_t>(threadIdx.x); i < rows; i += kWarp) sum += static_cast<double>(dots[from + i]);
  sum = warp_sum(sum);
  if (threadIdx.x == 0) reward[blockIdx.x] = static_cast<float>(sum / rows);
}

}  // namespace

int32_t linear_reward(ix_device* device, const ix_norm* norm, const ix_mat* in, const float* head, const int32_t* first,
                      const int32_t* count, int32_t groups, float* reward, ix_status* status) {
  Call call(device, status, "linear_reward", in->rows, in->cols);
  int32_t code = call.begin();
  if (code != IX_OK) return code;
  if (!is_float(in->dtype)) return call.fail(IX_INVALID, "dtype %d", in->dtype);
  for (int32_t g = 0; g < groups; ++g)
    if (first[g] < 0 || count[g] <= 0 || first[g] + static_cast<int64_t>(count[g]) > in->rows)
      return call.fail(IX_INVALID, "group %d lies outside the rows", g);
  if (groups == 0) return IX_OK;
  const size_t ints = static_cast<size_t>(groups) * sizeof(int32_t);
  const size_t ints_aligned = (ints + 255) / 256 * 256;
  char* memory = nullptr;
  code =
      call.scratch(Workspace::kStatistics, 2 * ints_aligned + static_cast<size_t>(in->rows) * sizeof(float), &memory);
  if (code == IX_OK) code = call.upload(memory, first, ints);
  if (code == IX_OK) code = call.upload(memory + ints_aligned, count, ints);
  if (code != IX_OK) return code;
  float* dots = reinterpret_cast<float*>(memory + 2 * ints_aligned);
  const int64_t cols = in->cols;
  const bool aligned = four_aligned(in) && four_aligned(head, IX_F32, cols, cols) &&
                       four_aligned(norm->gamma, IX_F32, cols, cols) && four_aligned(norm->beta, IX_F32, cols, cols);
  code = with_group(cols, [&](auto group) {
    constexpr int kGroup = decltype(group)::value;
    return with_type(in->dtype, [&](auto type) {
      using T = typename decltype(type)::type;
      return call.launch(aligned ? head_dots<kGroup, true, T> : head_dots<kGroup, false, T>,
                         blocks_of(in->rows, kNormThreads / kGroup), kNormThreads, 0, static_cast<const T*>(in->data),
                         in->stride, in->rows, cols, norm->kind, norm->gamma, norm->beta, norm->eps, head, dots);
    });
  });
  if (code != IX_OK) return code;
  return call.launch(group_means, static_cast<unsigned>(groups), kWarp, 0, static_cast<const float*>(dots),
                     reinterpret_cast<const int32_t*>(memory), reinterpret_cast<const int32_t*>(memory + ints_aligned),
                     reward);
}

}  // namespace implex::cuda

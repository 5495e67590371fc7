// The explicit reward: the head's dot product with the final norm of a row, averaged over a group of rows (one row: the
// last token).
#include <new>
#include <vector>

#include "cpu/device.h"

namespace implex::cpu {

int32_t linear_reward(ix_device* device, const ix_norm* norm, const ix_mat* in, const float* head, const int32_t* first,
                      const int32_t* count, int32_t groups, float* reward, ix_status* status) {
  for (int32_t g = 0; g < groups; ++g)
    if (first[g] < 0 || count[g] <= 0 || first[g] + static_cast<int64_t>(count[g]) > in->rows)
      return fail(status, IX_INVALID, "linear_reward: group %d lies outside the %lld rows", g,
                  static_cast<long long>(in->rows));
  std::vector<float> dots;
  std::vector<float> normed;
  const KernelTable& kernels = *device->kernels;
  const int64_t width = in->cols;
  constexpr int64_t kBlock = 16;
  const int64_t tasks = (in->rows + kBlock - 1) / kBlock;
  try {
    dots.resize(static_cast<size_t>(in->rows));
    normed.resize(static_cast<size_t>(tasks * width));
  } catch (const std::bad_alloc&) {
    return fail(status, IX_OUT_OF_MEMORY, "linear_reward: out of memory for %lld rows",
                static_cast<long long>(in->rows));
  }
  for_each_task(tasks, 6.0 * static_cast<double>(in->rows * width), [&](int64_t task) {
    float* row_buffer = &normed[static_cast<size_t>(task * width)];
    const int64_t end = task * kBlock + kBlock < in->rows ? task * kBlock + kBlock : in->rows;
    for (int64_t row = task * kBlock; row < end; ++row) {
      kernels.norm_row(row_of(in, row), in->dtype, width, norm->kind, norm->gamma, norm->beta, norm->eps, row_buffer,
                       IX_F32);
      dots[static_cast<size_t>(row)] = kernels.dot(row_buffer, head, width);
    }
  });
  for (int32_t g = 0; g < groups; ++g) {
    double sum = 0;
    for (int32_t i = 0; i < count[g]; ++i) sum += static_cast<double>(dots[static_cast<size_t>(first[g] + i)]);
    reward[g] = static_cast<float>(sum / count[g]);
  }
  return IX_OK;
}

}  // namespace implex::cpu

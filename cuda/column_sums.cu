// Sums over the rows of a matrix: blocks of kSumRows rows, then blocks of those, each in order. Used for the gradients
// of biases and of norms.
//
// A thread a column, so rows are read in whole lines. Floor: the matrix's bytes over the memory's bandwidth.
#include "device.h"

namespace implex::cuda {

namespace {

constexpr int kThreads = 128;

// One block of rows; the last level (`total` not null) is a single block and is added to it.
template <typename T>
__global__ void __launch_bounds__(kThreads)
    sum_block(const T* in, int64_t stride, int64_t rows, int64_t cols, float* out, float* total) {
  const int64_t col = static_cast<int64_t>(blockIdx.y) * kThreads + threadIdx.x;
  if (col >= cols) return;
  const int64_t first = static_cast<int64_t>(blockIdx.x) * kSumRows;
  const int64_t last = first + kSumRows < rows ? first + kSumRows : rows;
  float sum = 0.0f;
  for (int64_t row = first; row < last; ++row) sum += to_float(in[row * stride + col]);
  if (total != nullptr)
    total[col] += sum;
  else
    out[static_cast<int64_t>(blockIdx.x) * cols + col] = sum;
}

}  // namespace

int32_t add_column_sums(const Call& call, float* in, int64_t rows, int64_t cols, float* out) {
  float* from = in;
  float* to = in + rows * cols;  // room for one level
  while (rows > 0) {
    const int64_t blocks = (rows + kSumRows - 1) / kSumRows;
    const bool last = blocks == 1;
    const int32_t code =
        call.launch(sum_block<float>, dim3(static_cast<unsigned>(blocks), blocks_of(cols, kThreads)), kThreads, 0,
                    static_cast<const float*>(from), cols, rows, cols, to, last ? out : nullptr);
    if (code != IX_OK || last) return code;
    float* const free_again = from;
    from = to;
    to = free_again;
    rows = blocks;
  }
  return IX_OK;
}

int32_t add_column_sums_of(const Call& call, const ix_mat* in, float* out) {
  const int64_t blocks = (in->rows + kSumRows - 1) / kSumRows;
  if (blocks == 0) return IX_OK;
  float* partials = nullptr;
  int32_t code = call.scratch(
      Workspace::kPartials,
      static_cast<size_t>((blocks + (blocks + kSumRows - 1) / kSumRows) * in->cols) * sizeof(float), &partials);
  if (code != IX_OK) return code;
  code = with_type(in->dtype, [&](auto type) {
    using T = typename decltype(type)::type;
    return call.launch(sum_block<T>, dim3(static_cast<unsigned>(blocks), blocks_of(in->cols, kThreads)), kThreads, 0,
                       static_cast<const T*>(in->data), in->stride, in->rows, in->cols, partials,
                       static_cast<float*>(nullptr));
  });
  return code != IX_OK ? code : add_column_sums(call, partials, blocks, in->cols, out);
}

}  // namespace implex::cuda

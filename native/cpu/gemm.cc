// Products with packed weights, split into tiles of rows by panels. How a product is split never changes its bits
// (kernels/table.h).
#include <algorithm>
#include <atomic>

#include "cpu/device.h"

namespace implex::cpu {

namespace {

constexpr int64_t kRowBlock =
    96;  // rows of a tile: with 256 columns of accumulators they stay in the second-level cache
constexpr int64_t kTileWidth = 256;

}  // namespace

Packed packed(const ix_weight& w) { return {w.panels, w.dtype, w.rows, w.cols, w.cols, w.panel_bytes}; }
Packed packed_transposed(const ix_weight& w) {
  return {w.transposed, w.dtype, w.cols, w.rows, w.rows, w.transposed_panel_bytes};
}

int32_t product(ix_device* device, const ix_mat* in, const Packed& with, const float* bias, const ix_mat* residual,
                const ix_mat* out, ix_status* status) {
  if (in->dtype != with.dtype || in->cols != with.depth || out->cols != with.columns || in->rows != out->rows ||
      (residual != nullptr &&
       (residual->dtype != IX_F32 || residual->rows != out->rows || residual->cols != out->cols)))
    return fail(status, IX_INVALID, "product [%lld, %lld] by [%lld, %lld] to [%lld, %lld]: shapes or dtypes disagree",
                static_cast<long long>(in->rows), static_cast<long long>(in->cols), static_cast<long long>(with.depth),
                static_cast<long long>(with.columns), static_cast<long long>(out->rows),
                static_cast<long long>(out->cols));
  const KernelTable& kernels = *device->kernels;
  const int64_t panels = (with.columns + kernels.panel - 1) / kernels.panel;
  const int64_t row_blocks = (out->rows + kRowBlock - 1) / kRowBlock;
  // Fewer columns a task when there would be too few tasks for the pool.
  int64_t panels_per_task = std::max<int64_t>(1, kTileWidth / kernels.panel);
  const int64_t enough = 4 * static_cast<int64_t>(ThreadPool::instance().size());
  while (panels_per_task > 1 && row_blocks * ((panels + panels_per_task - 1) / panels_per_task) < enough)
    panels_per_task /= 2;
  const int64_t column_blocks = (panels + panels_per_task - 1) / panels_per_task;
  std::atomic<bool> no_memory{false};
  const double cost =
      static_cast<double>(out->rows) * static_cast<double>(with.columns) * static_cast<double>(with.depth) / 16;
  for_each_task(row_blocks * column_blocks, cost, [&](int64_t task) {
    const int64_t row = task / column_blocks * kRowBlock;
    const int64_t panel = task % column_blocks * panels_per_task;
    const int64_t m = std::min(kRowBlock, out->rows - row);
    const int64_t count = std::min(panels_per_task, panels - panel);
    const int64_t width = count * kernels.panel;
    float* c = thread_scratch(static_cast<size_t>(m * width));
    if (c == nullptr) {
      no_memory.store(true, std::memory_order_relaxed);
      return;
    }
    const void* from = static_cast<const char*>(with.panels) + panel * with.panel_bytes;
    const TileArgs tile = {row_of(in, row), in->stride, from, with.depth, m, count, c, with.panel_depth};
    (with.dtype == IX_F32 ? kernels.tile_f32 : kernels.tile_bf16)(&tile);
    const int64_t column = panel * kernels.panel;
    const int64_t n = std::min(width, with.columns - column);
    for (int64_t i = 0; i < m; ++i) {
      kernels.finish_row(c + i * width, n, bias ? bias + column : nullptr,
                         residual ? reinterpret_cast<const float*>(row_of(residual, row + i)) + column : nullptr,
                         mutable_row_of(out, row + i) + column * static_cast<int64_t>(element_size(out->dtype)),
                         out->dtype);
    }
  });
  if (no_memory.load()) return fail(status, IX_OUT_OF_MEMORY, "out of memory for a product's tile");
  return IX_OK;
}

int32_t gemm(ix_device* device, const ix_mat* in, const ix_weight* weight, const ix_epilogue* epilogue,
             const ix_mat* out, ix_status* status) {
  return product(device, in, packed(*weight), epilogue->bias, epilogue->residual, out, status);
}

}  // namespace implex::cpu

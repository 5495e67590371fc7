// Backward of the fused head. Logits are recomputed by chunks of rows and vocabulary, turned into loss gradients in
// place of the tile, and used at once for both products: no [N, V] array lives past a chunk.
#include <algorithm>
#include <atomic>

#include "cpu/device.h"
#include "cpu/weight_gradient.h"

namespace implex::cpu {

namespace {

constexpr int64_t kRows = 1024;        // rows of a chunk; part of the numerical contract, like the next
constexpr int64_t kVocabulary = 2048;  // columns of a chunk
constexpr int64_t kRowBlock = 96;
constexpr int64_t kTileWidth = 256;

}  // namespace

int32_t linear_logprob_backward(ix_device* device, const ix_mat* hidden, const ix_weight* weight,
                                const int32_t* targets, float soft_cap, const float* lse, const float* grad,
                                const ix_mat* hidden_grad, float* weight_grad, ix_status* status) {
  if (weight->transposed == nullptr)
    return fail(status, IX_INVALID, "linear_logprob_backward: the weight was not made trainable");
  if (hidden->dtype != weight->dtype || hidden->cols != weight->cols || hidden_grad->rows != hidden->rows ||
      hidden_grad->cols != hidden->cols || hidden_grad->dtype != IX_F32)
    return fail(status, IX_INVALID, "linear_logprob_backward: shapes or dtypes disagree");
  const KernelTable& kernels = *device->kernels;
  const int64_t vocabulary = weight->rows;
  const size_t size = element_size(hidden->dtype);
  // [rows, kVocabulary] gradients of the logits, in the products' dtype
  char* chunk = device->workspace.take(
      Workspace::kLogits,
      static_cast<size_t>(std::min(kRows, hidden->rows) * std::min(kVocabulary, (vocabulary + 1) / 2 * 2)) * size);
  if (chunk == nullptr) {
    return fail(status, IX_OUT_OF_MEMORY, "linear_logprob_backward: out of memory for a chunk of logits");
  }
  const int64_t tile_panels = std::max<int64_t>(1, kTileWidth / weight->panel);
  for (int64_t row = 0; row < hidden->rows; row += kRows) {
    const int64_t rows = std::min(kRows, hidden->rows - row);
    const ix_mat h = {const_cast<char*>(row_of(hidden, row)), hidden->dtype, rows, hidden->cols, hidden->stride};
    const ix_mat h_grad = {mutable_row_of(hidden_grad, row), IX_F32, rows, hidden->cols, hidden_grad->stride};
    PackedRows packed;
    if (weight_grad != nullptr) {
      const int32_t code = pack_rows(device, &h, &packed, status);
      if (code != IX_OK) return code;
    }
    for (int64_t first = 0; first < vocabulary; first += kVocabulary) {
      const int64_t columns = std::min(kVocabulary, vocabulary - first);
      const ix_mat dz = {chunk, hidden->dtype, rows, columns, (columns + 1) / 2 * 2};
      const int64_t first_panel = first / weight->panel;
      const int64_t panels = (columns + weight->panel - 1) / weight->panel;
      const int64_t column_blocks = (panels + tile_panels - 1) / tile_panels;
      const int64_t row_blocks = (rows + kRowBlock - 1) / kRowBlock;
      std::atomic<bool> no_memory{false};
      const double cost =
          static_cast<double>(rows) * static_cast<double>(columns) * static_cast<double>(weight->cols) / 16;
      for_each_task(row_blocks * column_blocks, cost, [&](int64_t task) {
        const int64_t r = task % row_blocks * kRowBlock;
        const int64_t panel = task / row_blocks * tile_panels;
        const int64_t m = std::min(kRowBlock, rows - r);
        const int64_t count = std::min(tile_panels, panels - panel);
        const int64_t width = count * weight->panel;
        float* c = thread_scratch(static_cast<size_t>(m * width));
        if (c == nullptr) {
          no_memory.store(true, std::memory_order_relaxed);
          return;
        }
        const TileArgs tile = {
            row_of(&h, r), h.stride, weight->panel_at(first_panel + panel), weight->cols, m, count, c, weight->cols};
        (weight->dtype == IX_F32 ? kernels.tile_f32 : kernels.tile_bf16)(&tile);
        const int64_t column = panel * weight->panel;
        const int64_t n = std::min(width, columns - column);
        for (int64_t i = 0; i < m; ++i) {
          const int64_t at = row + r + i;
          if (soft_cap > 0.0f) kernels.soft_cap_row(c + i * width, n, soft_cap);
          kernels.logit_gradient_row(c + i * width, n, soft_cap, lse[at], grad[at], targets[at] - first - column,
                                     mutable_row_of(&dz, r + i) + static_cast<size_t>(column) * size, dz.dtype);
        }
      });
      if (no_memory.load()) return fail(status, IX_OUT_OF_MEMORY, "linear_logprob_backward: out of memory for a tile");
      Packed with = packed_transposed(*weight);
      with.depth = columns;
      with.panels = static_cast<const char*>(with.panels) + first * weight->panel * static_cast<int64_t>(size);
      int32_t code = product(device, &dz, with, nullptr, first == 0 ? nullptr : &h_grad, &h_grad, status);
      if (code == IX_OK && weight_grad != nullptr)
        code = add_weight_gradient(device, &dz, packed, weight_grad + first * weight->cols, status);
      if (code != IX_OK) return code;
    }
  }
  return IX_OK;
}

}  // namespace implex::cpu

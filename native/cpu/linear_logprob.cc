// ln softmax(hidden · weight^T)[target] without an [N, V] array: logits live in a tile of one thread's cache and are
// folded into a running maximum and sum of exponentials (online log-sum-exp).
//
// The vocabulary is cut into chunks of fixed size; each (block of rows, chunk) is a task that leaves a partial
// (maximum, sum) per row, and the partials are merged in the order of the chunks. Neither the rows beside a row nor the
// number of threads can change its bits.
#include <algorithm>
#include <atomic>
#include <cmath>
#include <new>
#include <vector>

#include "cpu/device.h"

namespace implex::cpu {

namespace {

constexpr int64_t kRowBlock = 96;
constexpr int64_t kTileWidth = 256;
constexpr int64_t kVocabularyChunk = 2048;  // columns; part of the numerical contract: changing it changes bits

struct Partial {
  float maximum;
  float sum;
};

}  // namespace

int32_t linear_logprob(ix_device* device, const ix_mat* hidden, const ix_weight* weight, const int32_t* targets,
                       float soft_cap, float* logp, float* lse, ix_status* status) {
  if (hidden->dtype != weight->dtype || hidden->cols != weight->cols)
    return fail(status, IX_INVALID, "linear_logprob: shapes or dtypes disagree");
  const KernelTable& kernels = *device->kernels;
  const int64_t n = hidden->rows;
  const int64_t vocabulary = weight->rows;
  for (int64_t i = 0; i < n; ++i)
    if (targets[i] < 0 || targets[i] >= vocabulary)
      return fail(status, IX_INVALID, "linear_logprob: target %d is outside the vocabulary", targets[i]);
  const int64_t chunks = (vocabulary + kVocabularyChunk - 1) / kVocabularyChunk;
  const int64_t row_blocks = (n + kRowBlock - 1) / kRowBlock;
  const int64_t chunk_panels = kVocabularyChunk / weight->panel;
  const int64_t tile_panels = std::max<int64_t>(1, kTileWidth / weight->panel);
  std::vector<Partial> partials;
  try {
    partials.resize(static_cast<size_t>(n * chunks));
  } catch (const std::bad_alloc&) {
    return fail(status, IX_OUT_OF_MEMORY, "linear_logprob: out of memory for the partial sums of %lld rows",
                static_cast<long long>(n));
  }
  std::atomic<bool> no_memory{false};
  const double cost = static_cast<double>(n) * static_cast<double>(vocabulary) * static_cast<double>(weight->cols) / 16;
  // Row blocks vary fastest: a chunk of the weight is read from memory once and then found in cache.
  for_each_task(row_blocks * chunks, cost, [&](int64_t task) {
    const int64_t chunk = task / row_blocks;
    const int64_t row = task % row_blocks * kRowBlock;
    const int64_t m = std::min(kRowBlock, n - row);
    float* c = thread_scratch(static_cast<size_t>(m * tile_panels * weight->panel));
    if (c == nullptr) {
      no_memory.store(true, std::memory_order_relaxed);
      return;
    }
    for (int64_t i = 0; i < m; ++i) partials[static_cast<size_t>((row + i) * chunks + chunk)] = {-3.0e38f, 0.0f};
    const int64_t end = std::min(weight->panel_count(), (chunk + 1) * chunk_panels);
    for (int64_t panel = chunk * chunk_panels; panel < end; panel += tile_panels) {
      const int64_t count = std::min(tile_panels, end - panel);
      const int64_t width = count * weight->panel;
      const int64_t column = panel * weight->panel;
      const TileArgs tile = {row_of(hidden, row), hidden->stride, weight->panel_at(panel), weight->cols, m, count, c,
                             weight->cols};
      (weight->dtype == IX_F32 ? kernels.tile_f32 : kernels.tile_bf16)(&tile);
      for (int64_t i = 0; i < m; ++i) {
        if (soft_cap > 0.0f) kernels.soft_cap_row(c + i * width, std::min(width, vocabulary - column), soft_cap);
        Partial& partial = partials[static_cast<size_t>((row + i) * chunks + chunk)];
        kernels.fold_logits(c + i * width, std::min(width, vocabulary - column), &partial.maximum, &partial.sum);
        const int64_t at = targets[row + i] - column;
        if (at >= 0 && at < width) logp[row + i] = c[i * width + at];  // the target's logit, for the merge below
      }
    }
  });
  if (no_memory.load()) return fail(status, IX_OUT_OF_MEMORY, "linear_logprob: out of memory for a tile of logits");
  for_each_row(n, 20.0 * static_cast<double>(chunks), [&](int64_t row) {
    const Partial* partial = &partials[static_cast<size_t>(row * chunks)];
    float maximum = partial[0].maximum;
    for (int64_t i = 1; i < chunks; ++i) maximum = std::max(maximum, partial[i].maximum);
    double sum = 0;
    for (int64_t i = 0; i < chunks; ++i)
      sum += static_cast<double>(partial[i].sum) *
             std::exp(static_cast<double>(partial[i].maximum) - static_cast<double>(maximum));
    const double total = static_cast<double>(maximum) + std::log(sum);
    logp[row] = static_cast<float>(static_cast<double>(logp[row]) - total);
    if (lse) lse[row] = static_cast<float>(total);
  });
  return IX_OK;
}

}  // namespace implex::cpu

// How the language-model head is cut up. Plain C++, tested without a GPU.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>

namespace implex::cuda {

// Columns of the vocabulary that leave one partial maximum and sum a row: part of the numerical contract. Small enough
// that 128256 columns keep 132 multiprocessors busy with one tile of rows (126 chunks).
constexpr int64_t kVocabularyChunk = 1024;
inline int64_t vocabulary_chunks(int64_t vocabulary) { return (vocabulary + kVocabularyChunk - 1) / kVocabularyChunk; }

// Rows that go over the whole vocabulary together: their hidden states (32 MiB at D = 2048) stay in the second-level
// cache while the weight streams past once. Changes no bit.
constexpr int64_t kForwardRows = 8192;
// Extra memory of the forward pass: a partial (maximum, sum) a row and chunk, and the target's logit a row.
inline size_t partial_bytes(int64_t rows, int64_t vocabulary) {
  return static_cast<size_t>(std::min(rows, kForwardRows) * vocabulary_chunks(vocabulary)) * 8;
}

// Backward: gradients of logits for a block of rows by a block of columns at a time. The columns depend on the
// vocabulary only, since a row's hidden gradient is summed block by block; the rows on the memory allowed, and with
// them last bits of the weight's gradient.
constexpr int64_t kBackwardColumns = 32768;
inline int64_t backward_columns(int64_t vocabulary) { return std::min(vocabulary, kBackwardColumns); }
// Elements between rows of the block: 16-byte rows for both dtypes.
inline int64_t backward_stride(int64_t columns) { return (columns + 7) / 8 * 8; }
// `logit_bytes`: a logit takes in the workspace (its gradient, and with the product scheme the f32 logit).
inline int64_t backward_rows(int64_t rows, int64_t vocabulary, size_t logit_bytes, size_t workspace) {
  constexpr int64_t kStep = 128;
  const size_t a_row = static_cast<size_t>(backward_stride(backward_columns(vocabulary))) * logit_bytes;
  const int64_t fitting = static_cast<int64_t>(workspace / a_row) / kStep * kStep;
  return std::min(rows, std::max(fitting, kStep));
}

}  // namespace implex::cuda

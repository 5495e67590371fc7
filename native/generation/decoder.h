// Decoder: passes over a batch a few tokens at a time, with the keys and values of all tokens so far kept on the
// device. Prompts are computed once; any number of sequences continue each of them, all at the same pace.
//
// The batch is the one data structure of scoring, laid out in advance: the prompts back to back, then for each sequence
// a segment of `room` tokens whose parent is its prompt. So the rows that one step adds to the cache lie `room` apart,
// which is a matrix with a stride, and attention is asked for rows of a batch as always.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "core/cancel.h"
#include "core/ragged_batch.h"
#include "model/transformer.h"

namespace implex {

class Decoder {
 public:
  // prompts: parentless segments only. sequences: the prompt of each. room: tokens that each sequence may get.
  // Throws Error(kOutOfMemory) with the size of the cache.
  Decoder(Transformer& model, const RaggedBatch& prompts, std::vector<int32_t> sequences, int64_t room,
          const CancelFlag& cancel);

  // Computes the prompts. Result: Transformer::logit_rows of each prompt's last token, [prompts, D]. Valid until the
  // next call, as below.
  ix_mat prefill(const CancelFlag& cancel);

  // Gives sequence live[i] the token tokens[i], as its step-th; all sequences that are still live at once, steps
  // counted from 0. Result: the same of these tokens, [live, D].
  ix_mat step(int64_t step, const std::vector<int32_t>& live, const std::vector<int32_t>& tokens,
              const CancelFlag& cancel);

 private:
  struct Pass {
    int32_t* ids = nullptr;   // [n]
    int32_t* rows = nullptr;  // [n]
    int32_t* from = nullptr;  // [most]
    LayerBuffers layer;
    ix_mat normed = {};  // [n, D]
    ix_mat result = {};  // [results, D]
  };
  void place(Arena::Plan& plan);
  // Runs tokens `ids`, which are those named `rows` of the batch; their keys and values go to the rows of the cache
  // that begin at `first` and lie `stride` apart: place i gets row from[i].
  void run(const std::vector<int32_t>& ids, const std::vector<int32_t>& rows, int64_t first, int64_t stride,
           const std::vector<int32_t>& from, const CancelFlag& cancel);
  void upload(void* to, const std::vector<int32_t>& values);

  Transformer& model_;
  const RaggedBatch& prompts_;
  std::vector<int32_t> sequences_;
  int64_t room_;
  int64_t tokens_;  // of the whole layout
  Arena arena_;
  Pass pass_;
  std::vector<DeviceBuffer> memory_;  // keys and values of each layer in turn
  std::vector<ix_mat> cache_;
  std::unique_ptr<DeviceBatch> shape_;
};

}  // namespace implex

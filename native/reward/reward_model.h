// RewardModel: a loaded transformer on one device and the read-outs that turn it into a reward model.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "core/cancel.h"
#include "core/dtype.h"
#include "core/ragged_batch.h"
#include "model/spec.h"
#include "model/transformer.h"

namespace implex {

struct LoadOptions {
  std::string device = "cpu";  // "cpu", or the name that the module at device_path gives itself
  std::string device_path;     // shared library that implements backend.h; unused for "cpu"
  DType dtype = DType::kF32;   // kF32 or kBf16: storage of the weights
};

enum class Readout {
  kLogprob,       // sum over the segment's tokens of ln p(token | before)
  kRewardLast,    // u·h at the last token
  kRewardMean,    // mean of u·h over the segment's tokens
  kRewardTokens,  // u·h at every token of the segment
  kNextToken,     // p(target_token | the whole sequence up to the segment's end)
  kHiddenLast,    // the last token's hidden state after the final norm
};

// One ragged batch (design: "The one data structure"). Plain data, owned by the caller, unchanged.
struct ScoreRequest {
  std::vector<int32_t> tokens;
  std::vector<Segment> segments;
  std::vector<int32_t> scored;  // indices into segments
  // kRewardLast, kNextToken, kHiddenLast: tokens of the batch to read at, where that is not the last one of each scored
  // segment; then `scored` is empty.
  std::vector<int32_t> read_at;
  Readout readout = Readout::kLogprob;
  int32_t target_token = -1;    // kNextToken
  int32_t other_token = -1;     // kNextToken: also p(other_token); -1: not
  bool token_logprobs = false;  // kLogprob: also return each token's term
};

struct ScoreResult {
  // One per entry of `scored`, or of `read_at`. kRewardTokens: one per token, the scored segments back to back. In the
  // place of one: kHiddenLast hidden_size, a head of several rows one for each of these, kNextToken with an other token
  // two.
  std::vector<double> values;
  std::vector<float>
      token_logprobs;  // the scored segments' tokens back to back; a parentless segment's first token has none (0)
  // Tokens that each expert got, those of all layers with experts back to back; see Transformer::expert_load.
  std::vector<double> expert_load;
};

// Throws Error(kTensorDtype | kDeviceUnavailable | kOutOfMemory).
std::shared_ptr<Device> open_device(const LoadOptions& options);

class RewardModel {
 public:
  // Reads every weight, checks shapes and finiteness, and moves them to the device. With a sink the weights are
  // trainable. Blocking; call off the event loop.
  RewardModel(std::shared_ptr<Device> device, const ModelSpec& spec, DType dtype, WeightSink* sink,
              const CancelFlag& cancel);

  // A model with the adapters of `spec` that shares the base's weights; see load_adapters. Its head is the spec's, or
  // the base's. Blocking.
  RewardModel(const RewardModel& base, const ModelSpec& spec, const CancelFlag& cancel);

  // Blocking; calls on one model must not overlap. Throws Error or std::bad_alloc; the model stays usable after one.
  // Values are not finite where activations overflow: for the caller to judge, row by row.
  ScoreResult score(const ScoreRequest& request, const CancelFlag& cancel);

  // The explicit reward's head, [rows, hidden_size]; training is for one row. Must not overlap a call of score().
  void set_head(const std::vector<float>& weight);

  bool has_head() const { return head().data() != nullptr; }
  bool has_unembedding() const { return transformer_.weights().logits_weight(transformer_.spec()) != nullptr; }
  size_t weight_bytes() const { return transformer_.weights().bytes; }
  std::string device_name() const { return transformer_.device().name(); }  // "cpu", "cuda"
  std::string kernel_set() const {
    return transformer_.device().kernel_set();
  }  // results are bit-identical only under one of these

  // For training.
  Transformer& transformer() { return transformer_; }
  const Transformer& transformer() const { return transformer_; }
  const DeviceBuffer& head() const { return heads_.front(); }

 private:
  ScoreResult read_out(const ScoreRequest& request, const RaggedBatch& batch, const CancelFlag& cancel);
  ScoreResult logprob(const ScoreRequest& request, const RaggedBatch& batch, const CancelFlag& cancel);
  ScoreResult next_token(const ScoreRequest& request, const RaggedBatch& batch, const CancelFlag& cancel);
  ScoreResult reward(const ScoreRequest& request, const RaggedBatch& batch, const CancelFlag& cancel);
  ScoreResult hidden(const ScoreRequest& request, const RaggedBatch& batch, const CancelFlag& cancel);

  Transformer transformer_;
  std::vector<DeviceBuffer> heads_ =
      std::vector<DeviceBuffer>(1);  // the head's rows; the first is empty without a head
};

// What a read-out predicts for one segment: its tokens, each from the token before; without a parent the first has no
// predecessor.
void append_predictions(const RaggedBatch& batch, int32_t segment, std::vector<int32_t>* predictors,
                        std::vector<int32_t>* targets);

// Checks that every index in `scored` names a segment. Throws Error(kBatchInvalid).
void check_scored(const RaggedBatch& batch, const std::vector<int32_t>& scored);

}  // namespace implex

// Trainer: a reward model with trainable parameters, a loss, and an optimiser. Knows nothing of files of data or of
// runs.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "reward/loss.h"
#include "reward/reward_model.h"
#include "train/parameters.h"

namespace implex {

enum class Objective {
  kExplicit,    // Bradley-Terry over head · h
  kImplicit,    // Bradley-Terry over β (ln π - reference)
  kGenerative,  // -ln p(Yes) on chosen, -ln p(No) on rejected, at the end of verification prompts
  kSft,         // -ln π(chosen)
};

// Which of a response's tokens an explicit reward is read at: the last, or the mean over all.
enum class Pooling { kLast, kMean };

enum class OptimizerKind { kAdamW, kRmsProp, kSgd };

struct OptimizerOptions {
  OptimizerKind kind = OptimizerKind::kAdamW;
  double beta1 = 0.9, beta2 = 0.999;  // rmsprop: beta2 is its smoothing constant alpha
  double epsilon = 1e-8;
  double weight_decay = 0;
  DecayOn weight_decay_on = DecayOn::kAll;
  double momentum = 0;  // rmsprop, sgd
};

struct TrainOptions {
  Objective objective = Objective::kExplicit;
  Pooling pooling = Pooling::kLast;  // explicit
  double beta = 0.01;                // implicit
  bool length_normalized = false;    // implicit: β (ln π - reference) / response tokens
  BradleyTerry loss;
  int32_t yes_token = -1, no_token = -1;  // generative
  OptimizerOptions optimizer;
  Frozen frozen;
  bool recompute =
      false;  // keep only each layer's input and compute the rest again: less memory, about a third more time
  std::vector<float> head;  // explicit: the head to start from when the checkpoint has none
};

// A micro-batch. Scored segments: chosen and rejected of each pair in turn (sft: chosen only).
struct TrainRequest {
  std::vector<int32_t> tokens;
  std::vector<Segment> segments;
  std::vector<int32_t> scored;
  std::vector<double> reference;  // implicit: the reference's log-prob of each scored segment, or empty for none
  std::vector<double> margin;     // per pair, or empty for 0
  double scale = 1;               // 1 / pairs of the whole step: gradients of the mean loss add up over micro-batches
};

struct TrainResult {
  std::vector<double> losses;   // one per pair
  std::vector<double> rewards;  // as scored: explicit r, implicit β(…), generative p(Yes), sft ln π
};

// Bytes.
struct TrainMemory {
  size_t weights = 0;     // what the products use
  size_t parameters = 0;  // f32 values and gradients
  size_t moments = 0;
  size_t activations = 0;
  size_t saving = 0;  // the whole model in f32, which whoever saves it may hold at once
};

// What training will take at least, from the spec alone: `weights` without a device's padding or second layouts, no
// activations. Throws Error(kConfigInvalid) as the constructor of Trainer does.
TrainMemory least_memory(const ModelSpec& spec, DType dtype, const TrainOptions& options);

class Trainer {
 public:
  // Blocking. Throws Error(kConfigInvalid) for options that do not fit the model, and what loading throws.
  Trainer(const ModelSpec& spec, const LoadOptions& load, const TrainOptions& options, const CancelFlag& cancel);

  // Forward and backward of one micro-batch; adds to the gradients. With gradients false only the losses and rewards. A
  // loss that is not finite throws Error(kNotFinite) that names the pair of the micro-batch and the first bad tensor;
  // zero_gradients() or load_state() must follow. A pass that fails or is cancelled half-way leaves incomplete
  // gradients, which step() refuses until then.
  TrainResult accumulate(const TrainRequest& request, bool gradients, const CancelFlag& cancel);

  // Norm of the gradient; then clips it to max_norm (0: no clipping; PyTorch's rule), takes one optimiser step and
  // zeroes the gradients. Throws Error(kNotFinite) naming the first parameter whose gradient is not finite, or
  // Error(kAborted) for incomplete gradients, before anything is changed.
  double step(double learning_rate, double max_norm);
  void zero_gradients();
  int64_t steps() const { return steps_; }

  const Parameters& parameters() const { return parameters_; }
  std::vector<float> parameter(const std::string& role) const;
  std::vector<float> gradient(const std::string& role) const;

  // Everything that the next step depends on: values, moments, step count. save is atomic; load checks layout and
  // checksum.
  void save_state(const std::string& path) const;
  void load_state(const std::string& path);

  // What a micro-batch of so many tokens takes at most. rows: tokens that a read-out asks about, each time counted;
  // that is the tokens of the scored segments for log-probs and the explicit mean, the scored segments for the explicit
  // last token and the generative kind.
  TrainMemory memory(int64_t tokens, int64_t rows) const;

  RewardModel& model() { return model_; }

 private:
  Transformer::Keep keep(bool gradients) const;
  [[noreturn]] void report_not_finite(size_t pair);

  TrainResult explicit_pass(const TrainRequest& request, const RaggedBatch& batch, bool gradients,
                            const CancelFlag& cancel);
  TrainResult logprob_pass(const TrainRequest& request, const RaggedBatch& batch, bool gradients,
                           const CancelFlag& cancel);
  // Losses of pairs or sequences from what a pass found, and the scaled loss gradient of it: Bradley-Terry of the
  // result's rewards, supervised fine-tuning of the sequences' log-probs (its rewards), generative of the log-probs of
  // Yes and No in turn.
  std::vector<double> bradley_terry(const TrainRequest& request, TrainResult* result);
  std::vector<double> supervised(const TrainRequest& request, TrainResult* result);
  std::vector<float> generative(const TrainRequest& request, const std::vector<float>& logp, TrainResult* result);
  void add_loss(double loss, TrainResult* result);

  std::shared_ptr<Device> device_;
  TrainOptions options_;
  Parameters parameters_;
  RewardModel model_;
  TransformerGradients gradients_;
  size_t saving_bytes_ = 0;
  int64_t steps_ = 0;
  bool incomplete_ = false;  // a backward pass began and did not end
};

}  // namespace implex

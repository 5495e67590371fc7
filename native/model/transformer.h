// Transformer: the forward pass of a decoder-only model over one ragged batch, written once against backend.h.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "core/arena.h"
#include "core/cancel.h"
#include "core/ragged_batch.h"
#include "model/layer.h"
#include "model/weights.h"

namespace implex {

// Gradients of all parameters, f32, added to; null where not wanted. For the tied embedding both uses add to
// `embedding`.
struct TransformerGradients : ModelTensors<float*, LinearGradient, NormGradient> {
  int64_t first_layer = 0;  // layers before this one, and the embedding, want no gradients: the pass stops here
};

class Transformer {
 public:
  // Loads the weights; blocking. With a sink they are trainable.
  Transformer(std::shared_ptr<Device> device, const ModelSpec& spec, DType dtype, WeightSink* sink,
              const CancelFlag& cancel);
  // The same with the adapters of `spec`: see load_adapters.
  Transformer(const Transformer& base, const ModelSpec& spec, const CancelFlag& cancel);
  ~Transformer();

  // Where a caller's own arrays of a batch live: they share the pass's arena. Asked twice, once to measure and once to
  // place.
  class Layout {
   public:
    virtual ~Layout() = default;
    virtual void place(Arena::Plan& plan) = 0;
  };

  // What a forward pass leaves behind for a backward pass.
  enum class Keep { kNothing, kLayerInputs /* the rest of a layer is recomputed */, kAll };

  // Runs the batch. Result: the residual stream after the last layer, before the final norm, f32 [rows, D], for the
  // tokens named by `rows` (ascending, unique): the last layer computes queries and MLP for those only. Valid until the
  // next call.
  ix_mat forward(const RaggedBatch& batch, const std::vector<int32_t>& rows, Layout& layout, Keep keep,
                 const CancelFlag& cancel);

  // After a forward pass that kept something: where the caller puts the gradient of its result, f32 [rows, D], before
  // backward().
  ix_mat result_gradient() const;
  void backward(const TransformerGradients& gradients, const CancelFlag& cancel);

  // Arena bytes that a pass over `tokens` tokens and `rows` rows takes, the caller's layout not counted.
  size_t pass_bytes(int64_t tokens, int64_t rows, Keep keep) const;
  // How many tokens each expert got in the last pass, [X] for each layer, empty for a layer without experts. The last
  // layer computes the rows that the read-out needs only.
  const std::vector<std::vector<int64_t>>& expert_load() const { return expert_load_; }
  // Names the first of the kept activations that holds a value that is not finite, or returns "".
  std::string first_bad_activation();

  // The parts of a pass that generation shares with scoring.
  // Makes sure that ropes() reaches so many positions.
  void ensure_rope_tables(int64_t positions);
  const RopeTable* ropes() const { return ropes_.data(); }
  Layer layer(int64_t index) const;
  // The residual stream before the first layer.
  void embed(const int32_t* ids, const ix_mat& out) const;
  // What the unembedding is multiplied with: the final norm of the stream, times the logits' scale. The soft cap comes
  // after the product.
  void logit_rows(const ix_mat& stream, const ix_mat& out) const;
  // grad: f32, overwritten where logits have a scale.
  void logit_rows_backward(const ix_mat& stream, const ix_mat& grad, const ix_mat& stream_grad,
                           const NormGradient& gradient) const;
  float logit_soft_cap() const { return static_cast<float>(spec_.logit_soft_cap); }

  const ModelSpec& spec() const { return spec_; }
  DType dtype() const { return dtype_; }
  Device& device() const { return *device_; }
  const TransformerWeights& weights() const { return weights_; }
  TransformerWeights& mutable_weights() { return weights_; }
  size_t arena_bytes() const { return arena_.bytes(); }

 private:
  struct Pass;
  void place(Pass& pass, Arena::Plan& plan, int64_t tokens, int64_t rows, Keep keep) const;
  LayerShape shape_of_layer(int64_t layer) const;
  float embedding_scale() const;

  std::shared_ptr<Device> device_;
  ModelSpec spec_;
  DType dtype_;
  TransformerWeights weights_;
  Arena arena_;
  std::vector<std::vector<int64_t>> expert_load_;
  std::vector<RopeTable> ropes_;  // of rope_positions_ positions
  std::vector<DeviceBuffer> rope_memory_;
  int64_t rope_positions_ = 0;
  std::unique_ptr<Pass> pass_;  // of the last forward
};

}  // namespace implex

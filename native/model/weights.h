// TransformerWeights: a checkpoint's weights on a device, and how they get there.
#pragma once

#include <string>
#include <vector>

#include "core/cancel.h"
#include "core/device.h"
#include "model/spec.h"
#include "model/tensors.h"

namespace implex {

// A projection's low-rank adapter, or empty.
struct LowRank {
  DeviceWeight a, b;
  float scale = 0;
};

struct Linear {
  DeviceWeight weight;
  DeviceBuffer bias;  // f32 [rows]; empty without one
  LowRank low;
};

struct Norm {
  DeviceBuffer gamma;  // f32
  DeviceBuffer beta;   // f32; empty without one

  ix_norm table(const ModelSpec& spec) const {
    return {spec.norm == NormKind::kRms ? IX_NORM_RMS : IX_NORM_LAYER, gamma.as<float>(), beta.as<float>(),
            static_cast<float>(spec.norm_eps)};
  }
};

using LayerWeights = LayerTensors<Linear, Norm>;

struct TransformerWeights : ModelTensors<DeviceWeight, Linear, Norm> {
  std::vector<float> head;  // explicit reward's head [hidden_size], or empty
  size_t bytes = 0;         // on the device

  // The matrix that turns hidden states into logits, or null.
  ix_weight* logits_weight(const ModelSpec& spec) const {
    return spec.tied_embedding ? embedding.get() : unembedding ? unembedding.get() : nullptr;
  }
};

// Sees every parameter's f32 values as they are loaded: rows [first, first + count) of a [rows, cols] matrix; a vector
// is one row. The added rows of an embedding come too; the head does not.
class WeightSink {
 public:
  virtual ~WeightSink() = default;
  virtual void take(const std::string& role, int64_t first, int64_t count, int64_t cols, const float* values) = 0;
};

// With a sink the weights are made trainable. Throws Error naming the role and the tensor: missing, misshapen, not
// finite, truncated, no memory.
TransformerWeights load_weights(Device& device, const ModelSpec& spec, DType dtype, WeightSink* sink,
                                const CancelFlag& cancel);

// The weights of a model with the adapters of `spec`, which share those of `base` on the device: only the adapters'
// matrices and the head, if the spec has one, are loaded. Throws Error as load_weights does, and kConfigInvalid when
// the models are not otherwise alike.
TransformerWeights load_adapters(Device& device, const TransformerWeights& base, const ModelSpec& base_spec,
                                 const ModelSpec& spec, DType dtype, const CancelFlag& cancel);

// The row that added rows of this matrix are given. Throws Error as load_weights does.
std::vector<float> mean_row(const WeightSource& source, const CancelFlag& cancel);

}  // namespace implex

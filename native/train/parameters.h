// Parameters: what a run trains, as flat f32 arrays on the device (values, gradients, the optimiser's two moments), so
// that a step, a checkpoint and a gradient's norm are single loops.
#pragma once

#include <cstdint>
#include <string>
#include <unordered_map>
#include <vector>

#include "core/device.h"
#include "model/transformer.h"
#include "model/weights.h"

namespace implex {

struct ParameterEntry {
  std::string role;  // as in WeightSource
  int64_t rows = 0, cols = 0;
  int64_t offset = 0;   // floats into the flat arrays
  bool vector = false;  // a bias, or a norm's gamma or beta
  int64_t count() const { return rows * cols; }
};

// Which parameters weight decay goes to. Matrices are what transformers' Trainer chooses: all but biases and norms, so
// embeddings and the head too.
enum class DecayOn { kAll, kMatrices };

// Neighbors in the flat arrays that a step treats alike.
struct DecayRange {
  int64_t offset = 0, count = 0;  // floats, padding included
  bool decays = true;
};

// Parts that can be frozen.
struct Frozen {
  bool embedding = false;  // with tied embeddings also the unembedding
  bool unembedding = false;
  bool blocks = false;  // projections and their biases
  bool norms = false;
  bool head = false;
};

// Whether a role is trained: `head` only by an explicit objective, the unembedding only by those that use it.
struct ParameterChoice {
  Frozen frozen;
  bool uses_head = false;
  bool uses_unembedding = true;
};

class Parameters {
 public:
  // Lays out the roles of the spec that the choice trains. Throws Error(kConfigInvalid) when nothing is left to train.
  Parameters(const ModelSpec& spec, const ParameterChoice& choice);

  // Allocates the arrays; `moments` per parameter: 0, 1 or 2.
  void allocate(Device& device, int moments);
  static size_t bytes(int64_t size, int moments) {
    return static_cast<size_t>(size) * sizeof(float) * static_cast<size_t>(2 + moments);
  }

  const std::vector<ParameterEntry>& entries() const { return entries_; }
  const ParameterEntry* find(const std::string& role) const;
  // The flat arrays from first to last float, in as few ranges as the rule allows.
  std::vector<DecayRange> decay_ranges(DecayOn on) const;
  int64_t size() const { return size_; }  // floats, padding between entries included
  float* values() const { return values_.as<float>(); }
  float* gradients() const { return gradients_.as<float>(); }
  float* first() const { return first_.as<float>(); }
  float* second() const { return second_.as<float>(); }

  std::vector<float> download(const ParameterEntry& entry, const float* array) const;
  void upload(const ParameterEntry& entry, int64_t at, const float* from, int64_t count);

  // Gradient pointers by the model's structure.
  TransformerGradients gradient_table(const ModelSpec& spec) const;
  float* gradient_of(const std::string& role) const;

  // Writes the values back into what the model computes with.
  void refresh(const ModelSpec& spec, TransformerWeights& weights, const DeviceBuffer& head) const;

 private:
  void copy_vector(const ParameterEntry& entry, double offset, const DeviceBuffer& to) const;

  std::vector<ParameterEntry> entries_;
  std::unordered_map<std::string, size_t> index_;
  int64_t size_ = 0;
  Device* device_ = nullptr;
  DeviceBuffer values_, gradients_, first_, second_;
};

}  // namespace implex

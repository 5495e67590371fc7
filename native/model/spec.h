// ModelSpec: a decoder-only transformer as data. The engine is written once against these fields and knows no model
// family; lib/checkpoint/families.ts turns a config.json into one (lib/native/spec.ts has the same names in
// camelCase).
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "core/dtype.h"

namespace implex {

enum class NormKind { kRms, kLayer };
enum class Activation { kSilu, kGelu, kGeluTanh };

// Every `stride` rows from `start`, a block of `block` rows: one of q, k, v inside a head-interleaved fused projection
// (GPT-NeoX).
struct RowSelection {
  int64_t start = 0;
  int64_t block = 0;
  int64_t stride = 0;
};

// Where one weight lies: a byte range of a file, row-major.
struct WeightSource {
  std::string role;    // e.g. "layers.0.q"; the list is in lib/native/spec.ts
  std::string tensor;  // name in the file, for messages
  std::string file;
  uint64_t offset = 0;
  uint64_t bytes = 0;
  DType dtype = DType::kF32;
  std::vector<int64_t> shape;
  bool has_selection = false;
  RowSelection selection;
};

struct ModelSpec {
  std::string family;
  int64_t vocab_size = 0;
  int64_t added_tokens = 0;  // rows appended to both embeddings: the mean of the existing ones
  int64_t hidden_size = 0;
  int64_t layers = 0;
  int64_t heads = 0;
  int64_t kv_heads = 0;
  int64_t head_dim = 0;
  int64_t intermediate_size = 0;
  int64_t max_positions = 0;
  NormKind norm = NormKind::kRms;
  double norm_eps = 0;
  Activation activation = Activation::kSilu;
  bool gated = true;
  bool parallel_residual = false;
  bool qk_norm = false;
  int64_t rotary_dim = 0;
  std::vector<double> inverse_frequencies;  // [rotary_dim / 2]
  bool tied_embedding = false;
  std::vector<WeightSource> weights;

  int64_t vocabulary() const { return vocab_size + added_tokens; }
};

// Throws Error(kConfigInvalid) when a number is out of range or two disagree.
void validate(const ModelSpec& spec);

}  // namespace implex

// ModelSpec: a decoder-only transformer as data. The engine is written once against these fields and knows no model
// family; lib/checkpoint/families.ts turns a config.json into one (lib/native/spec.ts has the same names in
// camelCase).
#pragma once

#include <cstdint>
#include <map>
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

// Rotary positions: angle = position * frequency.
struct RopeSpec {
  int64_t rotary_dim = 0;
  std::vector<double> inverse_frequencies;  // [rotary_dim / 2]
  double scale = 1;                         // of cosines and sines
};

enum class QkNorm { kNone, kHead, kWidth };

struct ExpertsSpec {
  int64_t count = 0;  // 0: a dense MLP
  int64_t per_token = 0;
  bool normalize = false;
};

struct LayerSpec {
  bool pre_norm = true;    // before attention and before the MLP
  bool post_norm = false;  // after each, before it is added to the stream
  int64_t window = 0;      // positions that a query sees, its own included; 0: all
  double attention_scale = 1;
  double attention_soft_cap = 0;  // 0: none
  int64_t rope = 0;               // index in ModelSpec::ropes, or -1
  QkNorm qk_norm = QkNorm::kNone;
  int64_t intermediate_size = 0;  // of the MLP, or of each expert
  ExpertsSpec experts;
};

// A low-rank adapter of a projection: y = W x + scale · B (A x). A and B are the weights ROLE.lora_a [rank, columns]
// and ROLE.lora_b [rows, rank].
struct AdapterSpec {
  int64_t rank = 0;
  double scale = 1;
};

struct ModelSpec {
  std::string family;
  int64_t vocab_size = 0;
  int64_t added_tokens = 0;  // rows appended to both embeddings: the mean of the existing ones
  int64_t hidden_size = 0;
  std::vector<LayerSpec> layers;
  int64_t heads = 0;
  int64_t kv_heads = 0;
  int64_t head_dim = 0;
  int64_t max_positions = 0;
  NormKind norm = NormKind::kRms;
  double norm_eps = 0;
  double norm_offset = 0;  // added to the stored gamma of every norm
  Activation activation = Activation::kSilu;
  bool gated = true;
  bool parallel_residual = false;
  std::vector<RopeSpec> ropes;
  double embedding_scale = 1;  // rounded to the dtype of the weights
  double residual_scale = 1;   // of what attention and MLP add to the stream
  double logit_scale = 1;
  double logit_soft_cap = 0;  // 0: none
  bool tied_embedding = false;
  std::map<std::string, AdapterSpec> adapters;  // by the role of their projection
  std::vector<WeightSource> weights;

  int64_t layer_count() const { return static_cast<int64_t>(layers.size()); }
  int64_t vocabulary() const { return vocab_size + added_tokens; }
};

// Throws Error(kConfigInvalid) when a number is out of range or two disagree.
void validate(const ModelSpec& spec);

}  // namespace implex

// Layout of the flat arrays and the way back into the model.
#include "train/parameters.h"

#include <algorithm>
#include <cstdlib>

namespace implex {

namespace {

constexpr int64_t kAlignment = 64;  // floats between entries: each starts on a cache line

bool ends_with(const std::string& text, const std::string& tail) {
  return text.size() >= tail.size() && text.compare(text.size() - tail.size(), tail.size(), tail) == 0;
}

bool is_norm(const std::string& role) { return role.find("norm") != std::string::npos; }

bool trained(const std::string& role, const ModelSpec& spec, const ParameterChoice& choice) {
  if (role == "head") return choice.uses_head && !choice.frozen.head;
  if (role == "embedding") return !choice.frozen.embedding && !(spec.tied_embedding && choice.frozen.unembedding);
  if (role == "unembedding") return choice.uses_unembedding && !spec.tied_embedding && !choice.frozen.unembedding;
  return is_norm(role) ? !choice.frozen.norms : !choice.frozen.blocks;
}

// Whether load_weights() reads it, so that refresh() finds a weight behind every entry. A spec may list what its own
// numbers leave no place for, such as a gate in an MLP without one.
bool has_place(const std::string& role, const ModelSpec& spec) {
  const std::string base = ends_with(role, "_bias") ? role.substr(0, role.size() - 5) : role;
  if (role == "embedding" || role == "unembedding" || base == "final_norm") return true;
  const size_t dot = base.rfind('.');
  if (dot == std::string::npos) return false;
  const std::string name = base.substr(dot + 1);
  const bool known = name == "attention_norm" || name == "mlp_norm" || name == "q" || name == "k" || name == "v" ||
                     name == "o" || name == "up" || name == "down" || (spec.gated && name == "gate") ||
                     (spec.qk_norm && (name == "q_norm" || name == "k_norm"));
  if (!known) return false;
  const std::string prefix = "layers.";
  if (dot <= prefix.size() || base.compare(0, prefix.size(), prefix) != 0) return false;
  const int64_t layer = std::strtoll(base.c_str() + prefix.size(), nullptr, 10);
  return layer >= 0 && layer < spec.layers && base.compare(0, dot, prefix + std::to_string(layer)) == 0;
}

}  // namespace

Parameters::Parameters(const ModelSpec& spec, const ParameterChoice& choice) {
  const auto add = [&](const std::string& role, int64_t rows, int64_t cols) {
    if (!trained(role, spec, choice)) return;
    index_[role] = entries_.size();
    entries_.push_back({role, rows, cols, size_});
    size_ += (rows * cols + kAlignment - 1) / kAlignment * kAlignment;
  };
  for (const WeightSource& source : spec.weights) {
    const std::string& role = source.role;
    if (role == "head") continue;
    if (!has_place(role, spec))
      throw Error(ErrorCode::kConfigInvalid, "weight role " + role + " has no place in this model");
    if (role == "embedding" || role == "unembedding") {
      add(role, spec.vocabulary(), spec.hidden_size);
      continue;
    }
    const size_t dot = role.rfind('.');
    const std::string name = dot == std::string::npos ? role : role.substr(dot + 1);
    const int64_t q = spec.heads * spec.head_dim;
    const int64_t kv = spec.kv_heads * spec.head_dim;
    const int64_t d = spec.hidden_size;
    const int64_t f = spec.intermediate_size;
    const bool bias = ends_with(name, "_bias");
    const std::string base = bias ? name.substr(0, name.size() - 5) : name;
    int64_t rows = 0, cols = d;
    if (base == "q") rows = q;
    if (base == "k" || base == "v") rows = kv;
    if (base == "o") rows = d, cols = q;
    if (base == "gate" || base == "up") rows = f;
    if (base == "down") rows = d, cols = f;
    if (is_norm(base)) {
      add(role, 1, base == "q_norm" || base == "k_norm" ? spec.head_dim : d);
    } else if (bias) {
      add(role, 1, rows);
    } else {
      add(role, rows, cols);
    }
  }
  if (choice.uses_head) add("head", 1, spec.hidden_size);
  if (entries_.empty()) throw Error(ErrorCode::kConfigInvalid, "every parameter is frozen: there is nothing to train");
}

void Parameters::allocate(Device& device, int moments) {
  device_ = &device;
  const size_t bytes = static_cast<size_t>(size_) * sizeof(float);
  const auto zeroed = [&] {
    DeviceBuffer buffer(device, bytes);
    device.call(&ix_backend::fill_zero, buffer.data(), bytes);
    return buffer;
  };
  values_ = zeroed();
  gradients_ = zeroed();
  if (moments > 0) first_ = zeroed();
  if (moments > 1) second_ = zeroed();
}

const ParameterEntry* Parameters::find(const std::string& role) const {
  const auto found = index_.find(role);
  return found == index_.end() ? nullptr : &entries_[found->second];
}

std::vector<float> Parameters::download(const ParameterEntry& entry, const float* array) const {
  std::vector<float> values(static_cast<size_t>(entry.count()));
  device_->call(&ix_backend::download, static_cast<void*>(values.data()),
                static_cast<const void*>(array + entry.offset), values.size() * sizeof(float));
  return values;
}

void Parameters::upload(const ParameterEntry& entry, int64_t at, const float* from, int64_t count) {
  device_->call(&ix_backend::upload, static_cast<void*>(values() + entry.offset + at), static_cast<const void*>(from),
                static_cast<size_t>(count) * sizeof(float));
}

float* Parameters::gradient_of(const std::string& role) const {
  const ParameterEntry* entry = find(role);
  return entry ? gradients() + entry->offset : nullptr;
}

TransformerGradients Parameters::gradient_table(const ModelSpec& spec) const {
  TransformerGradients g;
  g.embedding = gradient_of("embedding");
  g.unembedding = gradient_of("unembedding");
  g.final_norm = {gradient_of("final_norm"), gradient_of("final_norm_bias")};
  g.first_layer = g.embedding ? 0 : spec.layers;
  for (int64_t i = spec.layers - 1; i >= 0; --i) {
    const std::string at = "layers." + std::to_string(i) + ".";
    for (const ParameterEntry& entry : entries_)
      if (entry.role.compare(0, at.size(), at) == 0) g.first_layer = std::min(g.first_layer, i);
  }
  for (int64_t i = 0; i < spec.layers; ++i) {
    const std::string at = "layers." + std::to_string(i) + ".";
    const auto norm = [&](const char* name) {
      return NormGradient{gradient_of(at + name), gradient_of(at + name + "_bias")};
    };
    const auto linear = [&](const char* name) {
      return LinearGradient{gradient_of(at + name), gradient_of(at + name + "_bias")};
    };
    LayerGradients l;
    l.attention_norm = norm("attention_norm");
    l.q_norm = norm("q_norm");
    l.k_norm = norm("k_norm");
    l.mlp_norm = norm("mlp_norm");
    l.q = linear("q");
    l.k = linear("k");
    l.v = linear("v");
    l.o = linear("o");
    l.gate = linear("gate");
    l.up = linear("up");
    l.down = linear("down");
    g.layers.push_back(l);
  }
  return g;
}

void Parameters::copy_vector(const ParameterEntry& entry, const DeviceBuffer& to) const {
  const ix_mat from = {values() + entry.offset, IX_F32, 1, entry.count(), entry.count()};
  const ix_mat out = {to.data(), IX_F32, 1, entry.count(), entry.count()};
  device_->call(&ix_backend::cast, &from, &out);
}

void Parameters::refresh(TransformerWeights& w, const DeviceBuffer& head) const {
  const auto matrix = [&](const std::string& role, const DeviceWeight& weight) {
    if (const ParameterEntry* entry = find(role))
      device_->call(&ix_backend::weight_refresh, weight.get(), static_cast<const float*>(values() + entry->offset));
  };
  const auto vector = [&](const std::string& role, const DeviceBuffer& buffer) {
    if (const ParameterEntry* entry = find(role)) copy_vector(*entry, buffer);
  };
  const auto linear = [&](const std::string& role, const Linear& l) {
    matrix(role, l.weight);
    vector(role + "_bias", l.bias);
  };
  const auto norm = [&](const std::string& role, const Norm& n) {
    vector(role, n.gamma);
    vector(role + "_bias", n.beta);
  };
  matrix("embedding", w.embedding);
  matrix("unembedding", w.unembedding);
  for (size_t i = 0; i < w.layers.size(); ++i) {
    const LayerWeights& l = w.layers[i];
    const std::string at = "layers." + std::to_string(i) + ".";
    norm(at + "attention_norm", l.attention_norm);
    norm(at + "q_norm", l.q_norm);
    norm(at + "k_norm", l.k_norm);
    norm(at + "mlp_norm", l.mlp_norm);
    linear(at + "q", l.q);
    linear(at + "k", l.k);
    linear(at + "v", l.v);
    linear(at + "o", l.o);
    linear(at + "gate", l.gate);
    linear(at + "up", l.up);
    linear(at + "down", l.down);
  }
  norm("final_norm", w.final_norm);
  vector("head", head);
}

}  // namespace implex

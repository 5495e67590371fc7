// Layout of the flat arrays and the way back into the model.
#include "train/parameters.h"

#include <algorithm>

namespace implex {

namespace {

constexpr int64_t kAlignment = 64;  // floats between entries: each starts on a cache line

bool trained(TensorKind kind, const ModelSpec& spec, const ParameterChoice& choice) {
  const Frozen& frozen = choice.frozen;
  if (!spec.adapters.empty()) return kind == TensorKind::kAdapter;
  switch (kind) {
    case TensorKind::kAdapter:
      return true;
    case TensorKind::kEmbedding:
      return !frozen.embedding && !(spec.tied_embedding && frozen.unembedding);
    case TensorKind::kUnembedding:
      return choice.uses_unembedding && !frozen.unembedding;
    case TensorKind::kProjection:
    case TensorKind::kBias:
    case TensorKind::kRouter:
      return !frozen.blocks;
    case TensorKind::kNorm:
      break;
  }
  return !frozen.norms;
}

}  // namespace

Parameters::Parameters(const ModelSpec& spec, const ParameterChoice& choice) {
  const auto add = [&](const std::string& role, int64_t rows, int64_t cols, bool vector) {
    index_[role] = entries_.size();
    entries_.push_back({role, rows, cols, size_, vector});
    size_ += (rows * cols + kAlignment - 1) / kAlignment * kAlignment;
  };
  std::unordered_map<std::string, TensorPlace> places;
  for (TensorPlace& place : tensor_places(spec)) places.emplace(place.role, place);
  for (const WeightSource& source : spec.weights) {
    if (source.role == "head") continue;
    // A spec may list what its own numbers leave no place for, such as a gate in an MLP without one.
    const auto found = places.find(source.role);
    if (found == places.end())
      throw Error(ErrorCode::kConfigInvalid, "weight role " + source.role + " has no place in this model",
                  {.parameter = source.role, .tensor = source.tensor});
    const TensorPlace& place = found->second;
    const bool vector = place.kind == TensorKind::kBias || place.kind == TensorKind::kNorm;
    if (trained(place.kind, spec, choice)) add(place.role, place.rows, place.cols, vector);
  }
  if (choice.uses_head && !choice.frozen.head) add("head", 1, spec.hidden_size, false);
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

std::vector<DecayRange> Parameters::decay_ranges(DecayOn on) const {
  if (on == DecayOn::kAll) return {{0, size_, true}};
  std::vector<DecayRange> ranges;
  for (size_t i = 0; i < entries_.size(); ++i) {
    const int64_t end = i + 1 < entries_.size() ? entries_[i + 1].offset : size_;
    const bool decays = !entries_[i].vector;
    if (ranges.empty() || ranges.back().decays != decays) ranges.push_back({entries_[i].offset, 0, decays});
    ranges.back().count = end - ranges.back().offset;
  }
  return ranges;
}

std::vector<float> Parameters::download(const ParameterEntry& entry, const float* array) const {
  std::vector<float> values(static_cast<size_t>(entry.count()));
  device_->call(&ix_backend::download, values.data(), array + entry.offset, values.size() * sizeof(float));
  return values;
}

void Parameters::upload(const ParameterEntry& entry, int64_t at, const float* from, int64_t count) {
  device_->call(&ix_backend::upload, values() + entry.offset + at, from, static_cast<size_t>(count) * sizeof(float));
}

float* Parameters::gradient_of(const std::string& role) const {
  const ParameterEntry* entry = find(role);
  return entry ? gradients() + entry->offset : nullptr;
}

TransformerGradients Parameters::gradient_table(const ModelSpec& spec) const {
  TransformerGradients g;
  resize_layers(spec, g);
  g.first_layer = gradient_of("embedding") ? 0 : spec.layer_count();
  visit_tensors(spec, g, [&](const TensorPlace& place, float*& gradient) {
    gradient = gradient_of(place.role);
    if (gradient != nullptr && place.layer >= 0) g.first_layer = std::min(g.first_layer, place.layer);
  });
  return g;
}

void Parameters::copy_vector(const ParameterEntry& entry, double offset, const DeviceBuffer& to) const {
  const ix_mat from = {values() + entry.offset, IX_F32, 1, entry.count(), entry.count()};
  const ix_mat out = {to.data(), IX_F32, 1, entry.count(), entry.count()};
  if (offset == 0) {
    device_->call(&ix_backend::cast, &from, &out);
    return;
  }
  const DeviceBuffer ones = DeviceBuffer::of(*device_, std::vector<float>(static_cast<size_t>(entry.count()), 1.0f));
  const ix_mat one = {ones.data(), IX_F32, 1, entry.count(), entry.count()};
  device_->call(&ix_backend::scaled_add, &one, static_cast<float>(offset), &from, &out);
}

void Parameters::refresh(const ModelSpec& spec, TransformerWeights& weights, const DeviceBuffer& head) const {
  const auto vector = [&](const std::string& role, double offset, const DeviceBuffer& buffer) {
    if (const ParameterEntry* entry = find(role)) copy_vector(*entry, offset, buffer);
  };
  visit_tensors(
      spec, weights,
      EachOf{[&](const TensorPlace& place, const DeviceWeight& weight) {
               if (const ParameterEntry* entry = find(place.role))
                 device_->call(&ix_backend::weight_refresh, weight.get(), values() + entry->offset);
             },
             [&](const TensorPlace& place, const DeviceBuffer& buffer) { vector(place.role, place.offset, buffer); }});
  vector("head", 0, head);
}

}  // namespace implex

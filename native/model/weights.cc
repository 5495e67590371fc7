// Loading: for every tensor of the model its role is looked up in the spec's list, its shape checked, and its rows
// streamed to the device.
#include "model/weights.h"

#include <unordered_map>

#include "io/weight_reader.h"
#include "model/row_mean.h"

namespace implex {

namespace {

class Loader {
 public:
  Loader(Device& device, const ModelSpec& spec, DType dtype, WeightSink* sink, const CancelFlag& cancel)
      : device_(device), dtype_(dtype), sink_(sink), cancel_(cancel) {
    for (const WeightSource& source : spec.weights) {
      if (!sources_.emplace(source.role, &source).second)
        throw Error(ErrorCode::kConfigInvalid,
                    "weight role " + source.role + " is given twice (tensor " + source.tensor + ")",
                    {.parameter = source.role, .tensor = source.tensor});
    }
  }

  // The last `added` rows of the place are no rows of the checkpoint's: resized embeddings start out with the mean of
  // those before.
  DeviceWeight matrix(const TensorPlace& place, int64_t added) {
    const WeightSource& source = find(place.role);
    const int64_t rows = place.rows - added;
    check_shape(source, rows, place.cols);
    const DType dtype = place.kind == TensorKind::kRouter ? DType::kF32 : dtype_;
    DeviceWeight weight(device_, dtype, place.rows, place.cols, sink_ != nullptr);
    const auto write = [&](int64_t first, int64_t count, const float* values) {
      weight.write(first, count, values);
      if (sink_) sink_->take(place.role, first, count, place.cols, values);
    };
    RowMean mean(place.cols);
    reader_.read(source, cancel_, [&](int64_t first, int64_t count, const float* values) {
      write(first, count, values);
      if (added > 0) mean.add(count, values);
    });
    if (added > 0) {
      const std::vector<float> row = mean.mean();
      for (int64_t i = 0; i < added; ++i) write(rows + i, 1, row.data());
    }
    bytes_ += weight.bytes();
    return weight;
  }

  std::vector<float> host_vector(const std::string& role, int64_t size) {
    const WeightSource& source = find(role);
    check_shape(source, 1, size);
    std::vector<float> values(static_cast<size_t>(size));
    reader_.read(source, cancel_, [&](int64_t, int64_t, const float* from) { values.assign(from, from + size); });
    return values;
  }

  DeviceBuffer vector(const TensorPlace& place) {
    bytes_ += static_cast<size_t>(place.cols) * sizeof(float);
    std::vector<float> values = host_vector(place.role, place.cols);
    if (sink_) sink_->take(place.role, 0, 1, place.cols, values.data());
    if (place.offset != 0)
      for (float& value : values) value += static_cast<float>(place.offset);
    return DeviceBuffer::of(device_, values);
  }

  bool has(const std::string& role) const { return sources_.count(role) != 0; }
  size_t bytes() const { return bytes_; }

 private:
  const WeightSource& find(const std::string& role) const {
    const auto found = sources_.find(role);
    if (found == sources_.end())
      throw Error(ErrorCode::kTensorMissing, "the checkpoint has no tensor for " + role, {.parameter = role});
    return *found->second;
  }

  void check_shape(const WeightSource& source, int64_t rows, int64_t cols) {
    const WeightReader::Shape shape = reader_.shape(source);
    // A head may be stored as [1, D] or [D]; both read as one row.
    if (shape.rows != rows || shape.cols != cols)
      throw Error(ErrorCode::kTensorShape,
                  "tensor " + source.tensor + " in " + source.file + " (" + source.role + ") is [" +
                      std::to_string(shape.rows) + ", " + std::to_string(shape.cols) + "], the config asks for [" +
                      std::to_string(rows) + ", " + std::to_string(cols) + "]",
                  {.parameter = source.role, .tensor = source.tensor});
  }

  Device& device_;
  DType dtype_;
  WeightSink* sink_;
  const CancelFlag& cancel_;
  std::unordered_map<std::string, const WeightSource*> sources_;
  WeightReader reader_;
  size_t bytes_ = 0;
};

// Adapters that no projection takes are refused; the others' scales go to their place.
void set_adapter_scales(const ModelSpec& s, TransformerWeights& w) {
  size_t placed = 0;
  for (size_t i = 0; i < s.layers.size(); ++i) {
    const std::string at = "layers." + std::to_string(i) + ".";
    const auto set = [&](const std::string& name, Linear& part, int64_t, int64_t) {
      const auto adapter = s.adapters.find(at + name);
      if (adapter == s.adapters.end()) return;
      part.low.scale = static_cast<float>(adapter->second.scale);
      ++placed;
    };
    visit_attention_projections(s, w.layers[i], set);
    visit_mlp_projections(s, s.layers[i], w.layers[i], set);
  }
  if (placed != s.adapters.size())
    throw Error(ErrorCode::kConfigInvalid, "an adapter is for a projection that the model does not have");
}

}  // namespace

TransformerWeights load_weights(Device& device, const ModelSpec& s, DType dtype, WeightSink* sink,
                                const CancelFlag& cancel) {
  Loader loader(device, s, dtype, sink, cancel);
  TransformerWeights w;
  resize_layers(s, w);
  visit_tensors(s, w,
                EachOf{[&](const TensorPlace& place, DeviceWeight& to) {
                         if (!place.required && !loader.has(place.role)) return;
                         const bool table =
                             place.kind == TensorKind::kEmbedding || place.kind == TensorKind::kUnembedding;
                         to = loader.matrix(place, table ? s.added_tokens : 0);
                       },
                       [&](const TensorPlace& place, DeviceBuffer& to) {
                         if (place.required || loader.has(place.role)) to = loader.vector(place);
                       }});
  set_adapter_scales(s, w);
  if (loader.has("head")) w.head = loader.host_vector("head", s.hidden_size);
  w.bytes = loader.bytes();
  return w;
}

TransformerWeights load_adapters(Device& device, const TransformerWeights& base, const ModelSpec& base_spec,
                                 const ModelSpec& s, DType dtype, const CancelFlag& cancel) {
  std::unordered_map<std::string, const DeviceWeight*> matrices;
  std::unordered_map<std::string, const DeviceBuffer*> vectors;
  std::unordered_map<std::string, TensorPlace> places;
  visit_tensors(base_spec, base,
                EachOf{[&](const TensorPlace& place, const DeviceWeight& weight) {
                         matrices[place.role] = &weight;
                         places[place.role] = place;
                       },
                       [&](const TensorPlace& place, const DeviceBuffer& buffer) {
                         vectors[place.role] = &buffer;
                         places[place.role] = place;
                       }});
  const auto check = [&](const TensorPlace& place) {
    const auto found = places.find(place.role);
    if (found == places.end() || found->second.rows != place.rows || found->second.cols != place.cols)
      throw Error(ErrorCode::kConfigInvalid, "the model to adapt has another " + place.role, {.parameter = place.role});
  };
  Loader loader(device, s, dtype, nullptr, cancel);
  TransformerWeights w;
  resize_layers(s, w);
  visit_tensors(s, w,
                EachOf{[&](const TensorPlace& place, DeviceWeight& to) {
                         if (place.kind == TensorKind::kAdapter) {
                           to = loader.matrix(place, 0);
                         } else {
                           check(place);
                           to = matrices.at(place.role)->share();
                         }
                       },
                       [&](const TensorPlace& place, DeviceBuffer& to) {
                         check(place);
                         to = vectors.at(place.role)->share();
                       }});
  set_adapter_scales(s, w);
  w.head = loader.has("head") ? loader.host_vector("head", s.hidden_size) : base.head;
  w.bytes = loader.bytes();
  return w;
}

std::vector<float> mean_row(const WeightSource& source, const CancelFlag& cancel) {
  WeightReader reader;
  RowMean mean(reader.shape(source).cols);
  reader.read(source, cancel, [&](int64_t, int64_t count, const float* values) { mean.add(count, values); });
  return mean.mean();
}

}  // namespace implex

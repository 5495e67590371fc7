// Loading: roles are looked up in the spec's list, shapes checked against the spec's numbers, rows streamed to the
// device.
#include "model/weights.h"

#include <unordered_map>

#include "io/weight_reader.h"

namespace implex {

namespace {

class Loader {
 public:
  Loader(Device& device, const ModelSpec& spec, DType dtype, WeightSink* sink, const CancelFlag& cancel)
      : device_(device), dtype_(dtype), sink_(sink), cancel_(cancel) {
    for (const WeightSource& source : spec.weights) {
      if (!sources_.emplace(source.role, &source).second)
        throw Error(ErrorCode::kConfigInvalid,
                    "weight role " + source.role + " is given twice (tensor " + source.tensor + ")");
    }
  }

  // `added` rows after the checkpoint's are the mean of those before, as resized embeddings start out.
  DeviceWeight matrix(const std::string& role, int64_t rows, int64_t cols, int64_t added = 0) {
    const WeightSource& source = find(role);
    check_shape(source, rows, cols);
    DeviceWeight weight(device_, dtype_, rows + added, cols, sink_ != nullptr);
    std::vector<double> sum(added > 0 ? static_cast<size_t>(cols) : 0);
    reader_.read(source, cancel_, [&](int64_t first, int64_t count, const float* values) {
      weight.write(first, count, values);
      if (sink_) sink_->take(role, first, count, cols, values);
      if (added > 0) {
        for (int64_t i = 0; i < count * cols; ++i) sum[static_cast<size_t>(i % cols)] += static_cast<double>(values[i]);
      }
    });
    if (added > 0) {
      std::vector<float> mean(sum.size());
      for (size_t i = 0; i < sum.size(); ++i) mean[i] = static_cast<float>(sum[i] / static_cast<double>(rows));
      for (int64_t i = 0; i < added; ++i) {
        weight.write(rows + i, 1, mean.data());
        if (sink_) sink_->take(role, rows + i, 1, cols, mean.data());
      }
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

  DeviceBuffer vector(const std::string& role, int64_t size) {
    bytes_ += static_cast<size_t>(size) * sizeof(float);
    const std::vector<float> values = host_vector(role, size);
    if (sink_) sink_->take(role, 0, 1, size, values.data());
    return DeviceBuffer::of(device_, values);
  }

  Linear linear(const std::string& role, int64_t rows, int64_t cols) {
    Linear l;
    l.weight = matrix(role, rows, cols);
    if (has(role + "_bias")) l.bias = vector(role + "_bias", rows);
    return l;
  }

  Norm norm(const std::string& role, int64_t size) {
    Norm n;
    n.gamma = vector(role, size);
    if (has(role + "_bias")) n.beta = vector(role + "_bias", size);
    return n;
  }

  bool has(const std::string& role) const { return sources_.count(role) != 0; }
  size_t bytes() const { return bytes_; }

 private:
  const WeightSource& find(const std::string& role) const {
    const auto found = sources_.find(role);
    if (found == sources_.end()) throw Error(ErrorCode::kTensorMissing, "the checkpoint has no tensor for " + role);
    return *found->second;
  }

  void check_shape(const WeightSource& source, int64_t rows, int64_t cols) {
    const WeightReader::Shape shape = reader_.shape(source);
    // A head may be stored as [1, D] or [D]; both read as one row.
    if (shape.rows != rows || shape.cols != cols)
      throw Error(ErrorCode::kTensorShape, "tensor " + source.tensor + " in " + source.file + " (" + source.role +
                                               ") is [" + std::to_string(shape.rows) + ", " +
                                               std::to_string(shape.cols) + "], the config asks for [" +
                                               std::to_string(rows) + ", " + std::to_string(cols) + "]");
  }

  Device& device_;
  DType dtype_;
  WeightSink* sink_;
  const CancelFlag& cancel_;
  std::unordered_map<std::string, const WeightSource*> sources_;
  WeightReader reader_;
  size_t bytes_ = 0;
};

}  // namespace

TransformerWeights load_weights(Device& device, const ModelSpec& s, DType dtype, WeightSink* sink,
                                const CancelFlag& cancel) {
  Loader loader(device, s, dtype, sink, cancel);
  TransformerWeights w;
  w.embedding = loader.matrix("embedding", s.vocab_size, s.hidden_size, s.added_tokens);
  if (!s.tied_embedding && loader.has("unembedding"))
    w.unembedding = loader.matrix("unembedding", s.vocab_size, s.hidden_size, s.added_tokens);
  const int64_t q_size = s.heads * s.head_dim;
  const int64_t kv_size = s.kv_heads * s.head_dim;
  for (int64_t i = 0; i < s.layers; ++i) {
    const std::string at = "layers." + std::to_string(i) + ".";
    LayerWeights l;
    l.attention_norm = loader.norm(at + "attention_norm", s.hidden_size);
    l.q = loader.linear(at + "q", q_size, s.hidden_size);
    l.k = loader.linear(at + "k", kv_size, s.hidden_size);
    l.v = loader.linear(at + "v", kv_size, s.hidden_size);
    l.o = loader.linear(at + "o", s.hidden_size, q_size);
    if (s.qk_norm) {
      l.q_norm = loader.norm(at + "q_norm", s.head_dim);
      l.k_norm = loader.norm(at + "k_norm", s.head_dim);
    }
    l.mlp_norm = loader.norm(at + "mlp_norm", s.hidden_size);
    if (s.gated) l.gate = loader.linear(at + "gate", s.intermediate_size, s.hidden_size);
    l.up = loader.linear(at + "up", s.intermediate_size, s.hidden_size);
    l.down = loader.linear(at + "down", s.hidden_size, s.intermediate_size);
    w.layers.push_back(std::move(l));
  }
  w.final_norm = loader.norm("final_norm", s.hidden_size);
  if (loader.has("head")) w.head = loader.host_vector("head", s.hidden_size);
  w.bytes = loader.bytes();
  return w;
}

}  // namespace implex

// Passes over all layers: where each layer's buffers lie in the arena, and the walk forward and back.
#include "model/transformer.h"

#include <algorithm>
#include <cmath>

#include "core/recording.h"

namespace implex {

struct Transformer::Pass {
  Keep keep = Keep::kNothing;
  int64_t tokens = 0, rows = 0;
  std::unique_ptr<DeviceBatch> shape;
  int32_t* token_ids = nullptr;  // [T]
  int32_t* row_ids = nullptr;    // [R]
  // One per layer when everything is kept; else one that all layers share, and the last layer's.
  std::vector<LayerBuffers> layers;
  std::vector<ix_mat> inputs;  // f32 [T, D] of each layer; all the same matrix when nothing is kept
  BackwardBuffers backward;
};

Transformer::Transformer(std::shared_ptr<Device> device, const ModelSpec& spec, DType dtype, WeightSink* sink,
                         const CancelFlag& cancel)
    : device_(std::move(device)), spec_(spec), dtype_(dtype), arena_(*device_) {
  validate(spec_);
  weights_ = load_weights(*device_, spec_, dtype_, sink, cancel);
  device_->call(&ix_backend::synchronize);
  spec_.weights.clear();
}

Transformer::Transformer(const Transformer& base, const ModelSpec& spec, const CancelFlag& cancel)
    : device_(base.device_), spec_(spec), dtype_(base.dtype_), arena_(*device_) {
  validate(spec_);
  weights_ = load_adapters(*device_, base.weights_, base.spec_, spec_, dtype_, cancel);
  device_->call(&ix_backend::synchronize);
  spec_.weights.clear();
}

Transformer::~Transformer() = default;

// Where each matrix of LayerBuffers lies: in memory of its own ("own"), or in that of the buffer named. What one pass
// overwrites another must keep: the products' inputs for the gradients of weights, the stream for those of norms.
//
//               scoring             training            last layer             decoding (Decoder::place)
//   in          the one stream      inputs[i], own      inputs[i]              own
//   row_in      in                  in                  own [n, D]             in
//   normed      own                 own                 own                    own
//   row_normed  normed              normed              own [n, D]             normed
//   q, k, v     own                 own                 own                    own
//   q_raw       q                   own with qk_norm    as before it           q
//   k_raw       k                   own with qk_norm    as before it           k
//   attended    own                 own                 own                    own
//   lse         none                own                 as before it           none
//   mid         in                  own                 scoring: row_in        in
//   mlp_normed  row_normed*         own                 as before it           normed*
//   hidden      one block of kMlpRows rows for all layers, or fewer where the pass has fewer (place_mlp from here on)
//   gate        hidden              own, all rows       as before it           hidden
//   up          own, one block      own, all rows       as before it           own, one block
//   out         in                  inputs[i + 1]       row_in; training: own  in
//
// * own with a parallel residual, whose MLP norm is taken before attention is done. Layers share one set of these when
// scoring, and when training with recomputation (Keep::kLayerInputs) all but `in` and `out`; only with Keep::kAll has
// each layer its own. The last layer's set is apart: it has n = rows.
void Transformer::place(Pass& pass, Arena::Plan& plan, int64_t tokens, int64_t rows, Keep keep) const {
  const ModelSpec& s = spec_;
  const int64_t d = s.hidden_size;
  const int64_t q_size = s.heads * s.head_dim;
  const int64_t kv_size = s.kv_heads * s.head_dim;
  const bool training = keep != Keep::kNothing;
  pass.keep = keep;
  pass.tokens = tokens;
  pass.rows = rows;
  pass.token_ids = static_cast<int32_t*>(plan.take(static_cast<size_t>(tokens) * sizeof(int32_t)));
  pass.row_ids = static_cast<int32_t*>(plan.take(static_cast<size_t>(rows) * sizeof(int32_t)));

  pass.inputs.clear();
  const ix_mat stream = plan.matrix(DType::kF32, tokens, d);
  for (int64_t i = 0; i < s.layer_count(); ++i)
    pass.inputs.push_back(i == 0 || !training ? stream : plan.matrix(DType::kF32, tokens, d));

  const SharedBuffers scratch = place_shared(plan, s, dtype_, std::max(tokens, rows));
  // Buffers of a layer that computes n rows. In a scoring pass the stream is updated in place and the MLP reuses one
  // block of rows.
  const auto layer_buffers = [&](const LayerWidths& widths, int64_t n, bool last) {
    LayerBuffers b;
    b.normed = plan.matrix(dtype_, tokens, d);
    b.row_in = last ? plan.matrix(DType::kF32, n, d) : ix_mat{};
    b.row_normed = last ? plan.matrix(dtype_, n, d) : b.normed;
    b.q = plan.matrix(dtype_, n, q_size);
    b.k = plan.matrix(dtype_, tokens, kv_size);
    b.v = plan.matrix(dtype_, tokens, kv_size);
    const bool raw = training && widths.qk_norm;
    b.q_raw = raw ? plan.matrix(dtype_, n, q_size) : b.q;
    b.k_raw = raw ? plan.matrix(dtype_, tokens, kv_size) : b.k;
    b.attended = plan.matrix(dtype_, n, q_size);
    if (training) b.lse = static_cast<float*>(plan.take(static_cast<size_t>(n * s.heads) * sizeof(float)));
    if (training) b.mid = plan.matrix(DType::kF32, n, d);
    b.mlp_normed = training || s.parallel_residual ? plan.matrix(dtype_, n, d) : b.row_normed;
    place_mlp(plan, s, widths, dtype_, n, training, scratch, b);
    if (last) b.out = training ? plan.matrix(DType::kF32, n, d) : b.row_in;
    return b;
  };
  pass.layers.clear();
  const int64_t before_last = s.layer_count() - 1;
  const LayerBuffers shared =
      keep == Keep::kAll || before_last == 0 ? LayerBuffers{} : layer_buffers(widest(s), tokens, false);
  for (int64_t i = 0; i < before_last; ++i) {
    const LayerSpec& layer = s.layers[static_cast<size_t>(i)];
    LayerBuffers b = keep == Keep::kAll ? layer_buffers(widths_of(s, layer), tokens, false) : fitted(shared, layer);
    b.in = b.row_in = pass.inputs[static_cast<size_t>(i)];
    if (!training) b.mid = b.in;
    b.out = pass.inputs[static_cast<size_t>(i + 1)];
    pass.layers.push_back(b);
  }
  LayerBuffers b = layer_buffers(widths_of(s, s.layers.back()), rows, true);
  b.in = pass.inputs.back();
  if (!training) b.mid = b.row_in;
  pass.layers.push_back(b);

  if (!training) return;
  BackwardBuffers& g = pass.backward;
  const int64_t most = std::max(tokens, rows);
  g.stream = plan.matrix(DType::kF32, tokens, d);
  g.row_stream = plan.matrix(DType::kF32, rows, d);
  if (dtype_ != DType::kF32) g.cast = plan.matrix(dtype_, most, d);
  g.normed = plan.matrix(DType::kF32, tokens, d);
  g.row_normed = plan.matrix(DType::kF32, rows, d);
  g.attended = plan.matrix(dtype_, most, q_size);
  g.q = plan.matrix(dtype_, most, q_size);
  g.k = plan.matrix(dtype_, tokens, kv_size);
  g.v = plan.matrix(dtype_, tokens, kv_size);
  place_backward(plan, s, dtype_, most, g);
}

size_t Transformer::pass_bytes(int64_t tokens, int64_t rows, Keep keep) const {
  Pass pass;
  Arena::Plan measure(nullptr);
  place(pass, measure, tokens, rows, keep);
  return measure.used();
}

void Transformer::ensure_rope_tables(int64_t positions) {
  if (positions <= rope_positions_ || spec_.ropes.empty()) return;
  int64_t size = std::max<int64_t>(256, rope_positions_);
  while (size < positions) size *= 2;
  size = std::min(size, spec_.max_positions);
  rope_memory_.clear();
  ropes_.clear();
  for (const RopeSpec& rope : spec_.ropes) {
    std::vector<float> cosines, sines;
    cosines.reserve(static_cast<size_t>(size * rope.rotary_dim / 2));
    sines.reserve(cosines.capacity());
    for (int64_t position = 0; position < size; ++position) {
      for (const double frequency : rope.inverse_frequencies) {
        // The angle is rounded to f32 as transformers does; its cosine is then exact to f32, and so is the product.
        const float angle = static_cast<float>(position) * static_cast<float>(frequency);
        cosines.push_back(static_cast<float>(std::cos(static_cast<double>(angle)) * rope.scale));
        sines.push_back(static_cast<float>(std::sin(static_cast<double>(angle)) * rope.scale));
      }
    }
    rope_memory_.push_back(DeviceBuffer::of(*device_, cosines));
    rope_memory_.push_back(DeviceBuffer::of(*device_, sines));
    const size_t at = rope_memory_.size();
    ropes_.push_back({rope_memory_[at - 2].as<float>(), rope_memory_[at - 1].as<float>(), rope.rotary_dim});
  }
  rope_positions_ = size;
}

LayerShape Transformer::shape_of_layer(int64_t layer) const {
  return {pass_->shape->get(), layer + 1 == spec_.layer_count() ? pass_->row_ids : nullptr, ropes_.data()};
}

Layer Transformer::layer(int64_t index) const {
  return {*device_, spec_, dtype_, index, weights_.layers[static_cast<size_t>(index)]};
}

float Transformer::embedding_scale() const {
  const auto scale = static_cast<float>(spec_.embedding_scale);
  return dtype_ == DType::kF32 ? scale : bf16_to_f32(f32_to_bf16(scale));
}

void Transformer::embed(const int32_t* ids, const ix_mat& out) const {
  device_->call(&ix_backend::embedding, weights_.embedding.get(), ids, &out);
  if (spec_.embedding_scale != 1) device_->call(&ix_backend::scaled_add, &out, embedding_scale(), nullptr, &out);
}

void Transformer::logit_rows(const ix_mat& stream, const ix_mat& out) const {
  const ix_norm norm = weights_.final_norm.table(spec_);
  device_->call(&ix_backend::norm, &norm, &stream, &out);
  if (spec_.logit_scale != 1)
    device_->call(&ix_backend::scaled_add, &out, static_cast<float>(spec_.logit_scale), nullptr, &out);
}

void Transformer::logit_rows_backward(const ix_mat& stream, const ix_mat& grad, const ix_mat& stream_grad,
                                      const NormGradient& gradient) const {
  if (spec_.logit_scale != 1)
    device_->call(&ix_backend::scaled_add, &grad, static_cast<float>(spec_.logit_scale), nullptr, &grad);
  const ix_norm norm = weights_.final_norm.table(spec_);
  device_->call(&ix_backend::norm_backward, &norm, &stream, &grad, &stream_grad, 0, gradient.gamma, gradient.beta);
}

ix_mat Transformer::forward(const RaggedBatch& batch, const std::vector<int32_t>& rows, Layout& layout, Keep keep,
                            const CancelFlag& cancel) {
  Device& d = *device_;
  const int64_t tokens = batch.size();
  const auto row_count = static_cast<int64_t>(rows.size());
  pass_ = std::make_unique<Pass>();
  Arena::Plan measure(nullptr);
  place(*pass_, measure, tokens, row_count, keep);
  layout.place(measure);
  arena_.reserve(measure.used());
  Arena::Plan plan(&arena_);
  place(*pass_, plan, tokens, row_count, keep);
  layout.place(plan);
  expert_load_.assign(spec_.layers.size(), {});
  for (size_t i = 0; i < spec_.layers.size(); ++i) {
    expert_load_[i].assign(static_cast<size_t>(spec_.layers[i].experts.count), 0);
    pass_->layers[i].experts.load = &expert_load_[i];
  }

  int64_t positions = 0;
  for (const ix_segment& segment : batch.segments()) {
    const int64_t base = segment.parent < 0 ? 0 : batch.segments()[static_cast<size_t>(segment.parent)].length;
    positions = std::max(positions, base + segment.length);
  }
  ensure_rope_tables(positions);
  pass_->shape = std::make_unique<DeviceBatch>(d, batch.segments());
  d.call(&ix_backend::upload, pass_->token_ids, batch.tokens().data(), batch.tokens().size() * sizeof(int32_t));
  d.call(&ix_backend::upload, pass_->row_ids, rows.data(), rows.size() * sizeof(int32_t));
  Recording recording(d, keep == Keep::kNothing && tokens <= kRecordedTokens);
  embed(pass_->token_ids, pass_->inputs[0]);
  for (int64_t i = 0; i < spec_.layer_count(); ++i) {
    cancel.check();
    if (i > 0 && i % kRecordedLayers == 0) recording.next();
    layer(i).forward(shape_of_layer(i), pass_->layers[static_cast<size_t>(i)], keep != Keep::kNothing);
  }
  recording.end();
  return pass_->layers.back().out;
}

ix_mat Transformer::result_gradient() const { return pass_->backward.row_stream; }

void Transformer::backward(const TransformerGradients& gradients, const CancelFlag& cancel) {
  if (!pass_ || pass_->keep == Keep::kNothing)
    throw Error(ErrorCode::kInternal, "backward without a forward pass that kept its activations");
  Device& d = *device_;
  for (int64_t i = spec_.layer_count() - 1; i >= gradients.first_layer; --i) {
    cancel.check();
    const LayerBuffers& buffers = pass_->layers[static_cast<size_t>(i)];
    if (pass_->keep == Keep::kLayerInputs && i + 1 < spec_.layer_count()) {
      // Everything but the input was overwritten by the layers after. The recomputed output lands where the next
      // layer's input was, with the same bits.
      layer(i).forward(shape_of_layer(i), buffers, true);
    }
    layer(i).backward(shape_of_layer(i), buffers, gradients.layers[static_cast<size_t>(i)],
                      fitted(pass_->backward, spec_.layers[static_cast<size_t>(i)]));
  }
  if (gradients.first_layer == 0 && gradients.embedding != nullptr) {
    const ix_mat& grad = pass_->backward.stream;
    if (spec_.embedding_scale != 1) d.call(&ix_backend::scaled_add, &grad, embedding_scale(), nullptr, &grad);
    d.call(&ix_backend::embedding_backward, pass_->token_ids, &pass_->backward.stream, gradients.embedding,
           spec_.vocabulary());
  }
}

std::string Transformer::first_bad_activation() {
  if (!pass_ || pass_->keep == Keep::kNothing) return "";
  const auto bad = [&](const ix_mat& m) {
    double sum = 0;
    device_->call(&ix_backend::sum_of_squares, static_cast<const float*>(m.data), m.rows * m.cols, &sum);
    return !std::isfinite(sum);
  };
  for (int64_t i = 0; i < spec_.layer_count(); ++i)
    if (bad(pass_->inputs[static_cast<size_t>(i)]))
      return i == 0 ? "the embedding's output" : "the output of layer " + std::to_string(i - 1);
  return bad(pass_->layers.back().out) ? "the output of layer " + std::to_string(spec_.layer_count() - 1) : "";
}

}  // namespace implex

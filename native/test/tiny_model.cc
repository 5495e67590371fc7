// Random checkpoints and the reference transformer.
#include "tiny_model.h"

#include <algorithm>
#include <cmath>

#include "model/tensors.h"

namespace implex::test {

namespace {

std::string layer_role(int64_t layer, const std::string& name) {
  return "layers." + std::to_string(layer) + "." + name;
}

// Values here are multiples of 2^-10 below 2 in magnitude, which a half holds exactly.
uint16_t f16_of(double value) {
  if (value == 0) return 0;
  const int exponent = std::ilogb(value);
  const auto mantissa = static_cast<uint16_t>(std::ldexp(std::fabs(value), 10 - exponent) - 1024);
  return static_cast<uint16_t>((value < 0 ? 0x8000 : 0) | (exponent + 15) << 10 | mantissa);
}

class Writer {
 public:
  Writer(TinyModel& model, uint64_t seed, std::string path) : model_(model), random_(seed), path_(std::move(path)) {}

  std::vector<double> values(int64_t count, double scale, double middle = 0) {
    std::vector<double> result;
    for (int64_t i = 0; i < count; ++i) {
      const double value = middle + random_.uniform(-scale, scale);
      switch (model_.options.file_dtype) {
        case DType::kF16:
          result.push_back(std::nearbyint(value * 1024) / 1024);
          break;
        case DType::kBf16:
          result.push_back(static_cast<double>(rounded(value, IX_BF16)));
          break;
        default:
          result.push_back(static_cast<double>(static_cast<float>(value)));
      }
    }
    return result;
  }

  // Appends a tensor to the file, with a gap of odd length before it as real files may have between headers and data.
  WeightSource append(const std::string& role, const std::vector<double>& numbers, std::vector<int64_t> shape) {
    content.append(static_cast<size_t>(random_.below(7)), 'x');
    WeightSource source;
    source.role = role;
    source.tensor = "tensor." + role;
    source.file = path_;
    source.offset = content.size();
    source.dtype = model_.options.file_dtype;
    source.shape = std::move(shape);
    for (const double number : numbers) {
      const float f = static_cast<float>(number);
      const uint16_t half = source.dtype == DType::kF16 ? f16_of(number) : f32_to_bf16(f);
      if (source.dtype == DType::kF32)
        content.append(reinterpret_cast<const char*>(&f), sizeof f);
      else
        content.append(reinterpret_cast<const char*>(&half), sizeof half);
    }
    source.bytes = content.size() - source.offset;
    return source;
  }

  void add(const std::string& role, int64_t rows, int64_t cols, double scale, double middle = 0) {
    model_.weights[role] = values(rows * cols, scale, middle);
    model_.spec.weights.push_back(
        append(role, model_.weights[role],
               rows == 1 && role != "head" ? std::vector<int64_t>{cols} : std::vector<int64_t>{rows, cols}));
  }

  // q, k and v of each head side by side, as GPT-NeoX keeps them; `width` columns, or a vector when 0.
  void add_fused(int64_t layer, const char* suffix, int64_t heads, int64_t head_dim, int64_t width, double scale) {
    const int64_t cols = width == 0 ? 1 : width;
    const std::vector<double> fused = values(3 * heads * head_dim * cols, scale);
    WeightSource source = append(
        layer_role(layer, "qkv") + suffix, fused,
        width == 0 ? std::vector<int64_t>{3 * heads * head_dim} : std::vector<int64_t>{3 * heads * head_dim, cols});
    const char* names[] = {"q", "k", "v"};
    for (int64_t part = 0; part < 3; ++part) {
      source.role = layer_role(layer, names[part]) + suffix;
      source.has_selection = true;
      source.selection = {part * head_dim, head_dim, 3 * head_dim};
      model_.spec.weights.push_back(source);
      std::vector<double>& own = model_.weights[source.role];
      for (int64_t head = 0; head < heads; ++head)
        for (int64_t i = 0; i < head_dim * cols; ++i)
          own.push_back(fused[static_cast<size_t>((head * 3 + part) * head_dim * cols + i)]);
    }
  }

  std::string content;

 private:
  TinyModel& model_;
  Random random_;
  std::string path_;
};

void append_mean_rows(std::vector<double>& table, int64_t rows, int64_t cols, int64_t added) {
  for (int64_t i = 0; i < added; ++i) {
    for (int64_t c = 0; c < cols; ++c) {
      double sum = 0;
      for (int64_t r = 0; r < rows; ++r) sum += table[static_cast<size_t>(r * cols + c)];
      table.push_back(static_cast<double>(static_cast<float>(sum / static_cast<double>(rows))));
    }
  }
}

}  // namespace

RopeSpec rope_of(int64_t rotary_dim, double theta, double scale) {
  RopeSpec rope;
  rope.rotary_dim = rotary_dim;
  rope.scale = scale;
  for (int64_t i = 0; i < rotary_dim / 2; ++i)
    rope.inverse_frequencies.push_back(
        std::pow(theta, -2.0 * static_cast<double>(i) / static_cast<double>(rotary_dim)));
  return rope;
}

std::vector<TinyOptions> tiny_shapes() {
  ModelSpec base;
  base.vocab_size = 211;
  base.hidden_size = 40;
  base.layers.assign(2, LayerSpec{});
  base.heads = 4;
  base.kv_heads = 2;
  base.head_dim = 10;
  base.max_positions = 512;
  base.norm_eps = 1e-5;
  base.ropes = {rope_of(10)};
  const auto set = [](ModelSpec& spec, auto LayerSpec::*field, auto value) {
    for (LayerSpec& layer : spec.layers) layer.*field = value;
  };
  set(base, &LayerSpec::intermediate_size, int64_t{67});
  set(base, &LayerSpec::attention_scale, 1 / std::sqrt(10.0));

  TinyOptions llama;
  llama.spec = base;
  llama.spec.added_tokens = 2;
  llama.spec.tied_embedding = true;
  llama.file_dtype = DType::kBf16;

  TinyOptions large_vocabulary;  // two chunks of the log-prob read-out, untied, added rows
  large_vocabulary.name = "llama_untied";
  large_vocabulary.spec = base;
  large_vocabulary.spec.vocab_size = 2100;
  large_vocabulary.spec.added_tokens = 3;
  large_vocabulary.spec.kv_heads = 1;
  large_vocabulary.spec.layers.resize(1);

  TinyOptions qwen2;
  qwen2.name = "qwen2";
  qwen2.spec = base;
  qwen2.spec.kv_heads = 4;
  qwen2.spec.layers.resize(3, base.layers[0]);
  qwen2.attention_bias = true;
  qwen2.file_dtype = DType::kF16;

  TinyOptions qwen3;
  qwen3.name = "qwen3";
  qwen3.spec = base;
  qwen3.spec.head_dim = 16;
  qwen3.spec.ropes = {rope_of(16)};
  set(qwen3.spec, &LayerSpec::qk_norm, QkNorm::kHead);
  set(qwen3.spec, &LayerSpec::attention_scale, 1 / std::sqrt(16.0));
  qwen3.spec.norm_eps = 1e-6;

  TinyOptions neox;
  neox.name = "gpt_neox";
  neox.spec = base;
  neox.spec.kv_heads = 4;
  neox.spec.head_dim = 12;
  neox.spec.hidden_size = 48;
  neox.spec.ropes = {rope_of(4)};
  set(neox.spec, &LayerSpec::attention_scale, 1 / std::sqrt(12.0));
  neox.spec.norm = NormKind::kLayer;
  neox.spec.activation = Activation::kGelu;
  neox.spec.gated = false;
  neox.spec.parallel_residual = true;
  neox.all_biases = true;
  neox.fused_qkv = true;

  TinyOptions serial = neox;
  serial.name = "gpt_neox_serial";
  serial.spec.parallel_residual = false;
  serial.spec.activation = Activation::kGeluTanh;
  set(serial.spec, &LayerSpec::rope, int64_t{-1});

  // Windows are shorter than the sequences of random_batch, and caps and scales bite: one that is ignored shows.
  TinyOptions mistral;  // a window, and a layer without one that is not rotated
  mistral.name = "mistral_smollm3";
  mistral.spec = base;
  mistral.spec.layers.resize(3, base.layers[0]);
  mistral.spec.layers[0].window = mistral.spec.layers[2].window = 7;
  mistral.spec.layers[1].rope = -1;

  TinyOptions gemma2;
  gemma2.name = "gemma2";
  gemma2.spec = base;
  gemma2.spec.activation = Activation::kGeluTanh;
  gemma2.spec.norm_offset = 1;
  gemma2.spec.tied_embedding = true;
  gemma2.spec.embedding_scale = std::sqrt(40.0);
  gemma2.spec.logit_soft_cap = 2;
  set(gemma2.spec, &LayerSpec::post_norm, true);
  set(gemma2.spec, &LayerSpec::attention_soft_cap, 1.5);
  set(gemma2.spec, &LayerSpec::attention_scale, 0.4);
  gemma2.spec.layers[0].window = 5;

  TinyOptions gemma3 = gemma2;  // two rotations, norms of q and k with the offset
  gemma3.name = "gemma3";
  gemma3.spec.logit_soft_cap = 0;
  gemma3.spec.tied_embedding = false;
  gemma3.spec.ropes.push_back(rope_of(10, 100, 1.2));
  set(gemma3.spec, &LayerSpec::attention_soft_cap, 0.0);
  set(gemma3.spec, &LayerSpec::qk_norm, QkNorm::kHead);
  gemma3.spec.layers[0].rope = 1;

  TinyOptions olmo2;
  olmo2.name = "olmo2";
  olmo2.spec = base;
  set(olmo2.spec, &LayerSpec::pre_norm, false);
  set(olmo2.spec, &LayerSpec::post_norm, true);
  set(olmo2.spec, &LayerSpec::qk_norm, QkNorm::kWidth);

  TinyOptions granite;
  granite.name = "granite";
  granite.spec = base;
  granite.spec.embedding_scale = 3;
  granite.spec.residual_scale = 0.4;
  granite.spec.logit_scale = 0.25;
  set(granite.spec, &LayerSpec::attention_scale, 0.1);

  TinyOptions
      mixture;  // a dense layer between two of experts, which norm their weights and do not, and are of two sizes
  mixture.name = "mixture";
  mixture.spec = base;
  mixture.spec.layers.resize(3, base.layers[0]);
  mixture.spec.layers[0].experts = {5, 2, true};
  mixture.spec.layers[0].intermediate_size = 30;
  mixture.spec.layers[2].experts = {3, 3, false};
  mixture.spec.layers[2].intermediate_size = 44;

  TinyOptions scaled_mixture = mixture;  // experts whose sum is scaled and normed, and the last layer dense
  scaled_mixture.name = "scaled_mixture";
  scaled_mixture.spec.residual_scale = 0.6;
  scaled_mixture.spec.layers.resize(2);
  scaled_mixture.spec.layers[0].experts = {4, 1, false};
  set(scaled_mixture.spec, &LayerSpec::post_norm, true);

  TinyOptions adapted = qwen2;  // ranks and scales that differ, beside a bias and into the residual
  adapted.name = "adapters";
  adapted.spec.adapters = {{"layers.0.q", {3, 2}},    {"layers.0.v", {5, -0.7}}, {"layers.0.down", {2, 1.5}},
                           {"layers.2.o", {4, 0.5}},  {"layers.2.k", {1, 1}},    {"layers.1.gate", {3, 1}},
                           {"layers.2.up", {3, 0.25}}};

  TinyOptions adapted_mixture = scaled_mixture;
  adapted_mixture.name = "adapted_mixture";
  adapted_mixture.spec.adapters = {{"layers.0.experts.1.down", {3, 1}},
                                   {"layers.0.experts.0.gate", {2, 2}},
                                   {"layers.0.experts.3.up", {2, 1}},
                                   {"layers.0.o", {2, 1}},
                                   {"layers.1.down", {2, 1}}};

  return {llama, large_vocabulary, qwen2,   qwen3,          neox,    serial,         mistral, gemma2, gemma3,
          olmo2, granite,          mixture, scaled_mixture, adapted, adapted_mixture};
}

TinyModel make_tiny_model(const TinyOptions& options, uint64_t seed, const TemporaryFolder& folder) {
  TinyModel model;
  model.options = options;
  model.spec = options.spec;
  ModelSpec& s = model.spec;
  s.family = options.name;
  const std::string path = folder.path() + "/" + options.name + std::to_string(seed) + ".bin";
  Writer w(model, seed, path);
  const double in = 2.5 / std::sqrt(static_cast<double>(s.hidden_size));
  const bool biases = options.all_biases;
  const auto norm = [&](const std::string& role, int64_t size) {
    w.add(role, 1, size, 0.4, 1 - s.norm_offset);
    if (biases) w.add(role + "_bias", 1, size, 0.2);
  };
  w.add("embedding", s.vocab_size, s.hidden_size, 1);
  if (!s.tied_embedding && options.unembedding) w.add("unembedding", s.vocab_size, s.hidden_size, in);
  for (int64_t i = 0; i < s.layer_count(); ++i) {
    const LayerSpec& layer = s.layers[static_cast<size_t>(i)];
    const auto role = [&](const std::string& name) { return layer_role(i, name); };
    if (layer.pre_norm) norm(role("attention_norm"), s.hidden_size);
    if (options.fused_qkv) {
      w.add_fused(i, "", s.heads, s.head_dim, s.hidden_size, in);
      w.add_fused(i, "_bias", s.heads, s.head_dim, 0, 0.3);
    } else {
      w.add(role("q"), s.heads * s.head_dim, s.hidden_size, in);
      w.add(role("k"), s.kv_heads * s.head_dim, s.hidden_size, in);
      w.add(role("v"), s.kv_heads * s.head_dim, s.hidden_size, in);
      if (options.attention_bias) {
        w.add(role("q_bias"), 1, s.heads * s.head_dim, 0.3);
        w.add(role("k_bias"), 1, s.kv_heads * s.head_dim, 0.3);
        w.add(role("v_bias"), 1, s.kv_heads * s.head_dim, 0.3);
      }
    }
    w.add(role("o"), s.hidden_size, s.heads * s.head_dim, in);
    if (biases) w.add(role("o_bias"), 1, s.hidden_size, 0.2);
    if (layer.qk_norm != QkNorm::kNone) {
      const bool head = layer.qk_norm == QkNorm::kHead;
      w.add(role("q_norm"), 1, head ? s.head_dim : s.heads * s.head_dim, 0.4, 1 - s.norm_offset);
      w.add(role("k_norm"), 1, head ? s.head_dim : s.kv_heads * s.head_dim, 0.4, 1 - s.norm_offset);
    }
    if (layer.post_norm) norm(role("attention_post_norm"), s.hidden_size);
    if (layer.pre_norm) norm(role("mlp_norm"), s.hidden_size);
    const auto mlp = [&](const std::string& at) {
      // Several experts add up.
      const double scale = layer.experts.count > 0 ? 0.7 * in : in;
      if (s.gated) w.add(role(at + "gate"), layer.intermediate_size, s.hidden_size, scale);
      w.add(role(at + "up"), layer.intermediate_size, s.hidden_size, scale);
      if (biases) w.add(role(at + "up_bias"), 1, layer.intermediate_size, 0.2);
      w.add(role(at + "down"), s.hidden_size, layer.intermediate_size, scale);
      if (biases) w.add(role(at + "down_bias"), 1, s.hidden_size, 0.2);
    };
    if (layer.experts.count == 0) mlp("");
    if (layer.experts.count > 0) w.add(role("router"), layer.experts.count, s.hidden_size, in);
    for (int64_t e = 0; e < layer.experts.count; ++e) mlp("experts." + std::to_string(e) + ".");
    if (layer.post_norm) norm(role("mlp_post_norm"), s.hidden_size);
  }
  for (const TensorPlace& place : tensor_places(s))
    if (place.kind == TensorKind::kAdapter) w.add(place.role, place.rows, place.cols, in / 2);
  norm("final_norm", s.hidden_size);
  if (options.head) w.add("head", 1, s.hidden_size, 1);
  folder.write(path.substr(path.find_last_of('/') + 1), w.content);
  append_mean_rows(model.weights["embedding"], s.vocab_size, s.hidden_size, s.added_tokens);
  if (model.weights.count("unembedding"))
    append_mean_rows(model.weights["unembedding"], s.vocab_size, s.hidden_size, s.added_tokens);
  return model;
}

Reference::Reference(const TinyModel& model, DType dtype)
    : spec_(model.spec), rounded_(dtype == DType::kBf16), weights_(model.weights) {
  // Matrices are held in the run's dtype; norms, biases, routers and the head stay f32.
  for (auto& [role, values] : weights_) {
    const auto names = [&role = role](const char* part) { return role.find(part) != std::string::npos; };
    if (!names("norm") && !names("bias") && !names("router") && role != "head") values = round(values);
  }
}

std::vector<double> Reference::norm(const std::vector<double>& x, const std::string& role) const {
  const double n = static_cast<double>(x.size());
  double mean = 0, squares = 0;
  if (spec_.norm == NormKind::kLayer && role.find("q_norm") == std::string::npos &&
      role.find("k_norm") == std::string::npos)
    for (const double v : x) mean += v / n;
  for (const double v : x) squares += (v - mean) * (v - mean) / n;
  const std::vector<double>& gamma = weights_.at(role);
  const auto beta = weights_.find(role + "_bias");
  std::vector<double> y;
  for (size_t i = 0; i < x.size(); ++i)
    y.push_back((x[i] - mean) / std::sqrt(squares + spec_.norm_eps) * (gamma[i] + spec_.norm_offset) +
                (beta == weights_.end() ? 0 : beta->second[i]));
  return y;
}

std::vector<double> Reference::linear(const std::vector<double>& x, const std::string& role) const {
  const std::vector<double>& w = weights_.at(role);
  const auto bias = weights_.find(role + "_bias");
  std::vector<double> y;
  for (size_t row = 0; row < w.size() / x.size(); ++row) {
    double sum = bias == weights_.end() ? 0 : bias->second[row];
    for (size_t i = 0; i < x.size(); ++i) sum += w[row * x.size() + i] * x[i];
    y.push_back(sum);
  }
  const auto adapter = spec_.adapters.find(role);
  if (adapter == spec_.adapters.end()) return y;
  std::vector<double> low = linear(x, role + ".lora_a");
  for (double& value : low) value = round(value * adapter->second.scale);
  const std::vector<double> added = linear(low, role + ".lora_b");
  for (size_t i = 0; i < y.size(); ++i) y[i] += added[i];
  return y;
}

Reference::Rows Reference::forward(const std::vector<int32_t>& tokens) const {
  const ModelSpec& s = spec_;
  const auto width = static_cast<size_t>(s.hidden_size), size = static_cast<size_t>(s.head_dim);
  const auto activate = [&](double x) {
    switch (s.activation) {
      case Activation::kSilu:
        return x / (1 + std::exp(-x));
      case Activation::kGelu:
        return 0.5 * x * std::erfc(-x / std::sqrt(2.0));
      case Activation::kGeluTanh:
        break;
    }
    return 0.5 * x * (1 + std::tanh(std::sqrt(2 / M_PI) * (x + 0.044715 * x * x * x)));
  };
  const auto soft_cap = [](double x, double cap) { return cap > 0 ? cap * std::tanh(x / cap) : x; };
  // Norm and rotation of the heads of one q or k.
  const auto place = [&](const LayerSpec& layer, std::vector<double>& x, size_t position,
                         const std::string& norm_role) {
    const size_t normed = layer.qk_norm == QkNorm::kHead ? size : x.size();
    for (size_t at = 0; layer.qk_norm != QkNorm::kNone && at < x.size(); at += normed) {
      double* h = &x[at];
      const std::vector<double> y = round(norm(std::vector<double>(h, h + normed), norm_role));
      std::copy(y.begin(), y.end(), h);
    }
    if (layer.rope < 0) return;
    const RopeSpec& rope = s.ropes[static_cast<size_t>(layer.rope)];
    for (size_t head = 0; head < x.size() / size; ++head) {
      double* h = &x[head * size];
      const auto half = static_cast<size_t>(rope.rotary_dim / 2);
      for (size_t i = 0; i < half; ++i) {
        // The angle in f32 is a convention of transformers, which the engine follows.
        const double angle =
            static_cast<double>(static_cast<float>(position) * static_cast<float>(rope.inverse_frequencies[i]));
        const double a = h[i], b = h[i + half];
        const double cosine = std::cos(angle) * rope.scale, sine = std::sin(angle) * rope.scale;
        h[i] = round(a * cosine - b * sine);
        h[i + half] = round(b * cosine + a * sine);
      }
    }
  };
  const auto mlp = [&](const std::vector<double>& in, const std::string& at) {
    std::vector<double> inner = linear(in, at + "up");
    if (s.gated) {
      const std::vector<double> gate = round(linear(in, at + "gate"));
      for (size_t i = 0; i < inner.size(); ++i) inner[i] = round(activate(gate[i]) * round(inner[i]));
    } else {
      for (double& value : inner) value = round(activate(round(value)));
    }
    return linear(inner, at + "down");
  };
  const auto experts = [&](const LayerSpec& layer, const std::vector<double>& in, const std::string& at) {
    const std::vector<double> logits = linear(in, at + "router");
    std::vector<size_t> order(logits.size());
    for (size_t i = 0; i < order.size(); ++i) order[i] = i;
    std::stable_sort(order.begin(), order.end(), [&](size_t x, size_t y) { return logits[x] > logits[y]; });
    order.resize(static_cast<size_t>(layer.experts.per_token));
    choices_.insert(choices_.end(), order.begin(), order.end());
    double total = 0;
    if (layer.experts.normalize) {
      for (const size_t e : order) total += std::exp(logits[e]);
    } else {
      for (const double logit : logits) total += std::exp(logit);
    }
    std::vector<double> sum(in.size());
    for (const size_t e : order) {
      const std::vector<double> y = mlp(in, at + "experts." + std::to_string(e) + ".");
      for (size_t i = 0; i < sum.size(); ++i) sum[i] += std::exp(logits[e]) / total * y[i];
    }
    return sum;
  };
  // x += the branch, normed after if the layer does so.
  const auto add = [&](const LayerSpec& layer, std::vector<double>& x, std::vector<double> branch,
                       const std::string& norm_role) {
    if (layer.post_norm) branch = norm(branch, norm_role);
    for (size_t i = 0; i < width; ++i) x[i] += s.residual_scale * branch[i];
  };
  const double embedding_scale = round(s.embedding_scale);
  Rows stream;
  for (const int32_t token : tokens) {
    const auto row = weights_.at("embedding").begin() + static_cast<int64_t>(token) * s.hidden_size;
    stream.emplace_back(row, row + s.hidden_size);
    for (double& x : stream.back()) x *= embedding_scale;
  }
  for (int64_t index = 0; index < s.layer_count(); ++index) {
    const LayerSpec& layer = s.layers[static_cast<size_t>(index)];
    const auto role = [&](const char* name) { return layer_role(index, name); };
    const auto pre_norm = [&](const std::vector<double>& x, const char* name) {
      return round(layer.pre_norm ? norm(x, role(name)) : x);
    };
    Rows q, k, v;
    for (size_t t = 0; t < stream.size(); ++t) {
      const std::vector<double> x = pre_norm(stream[t], "attention_norm");
      q.push_back(round(linear(x, role("q"))));
      k.push_back(round(linear(x, role("k"))));
      v.push_back(round(linear(x, role("v"))));
      place(layer, q.back(), t, role("q_norm"));
      place(layer, k.back(), t, role("k_norm"));
    }
    for (size_t t = 0; t < stream.size(); ++t) {
      const size_t first =
          layer.window > 0 && t + 1 > static_cast<size_t>(layer.window) ? t + 1 - static_cast<size_t>(layer.window) : 0;
      std::vector<double> attended;
      for (int64_t head = 0; head < s.heads; ++head) {
        const size_t own = static_cast<size_t>(head) * size,
                     shared = static_cast<size_t>(head / (s.heads / s.kv_heads)) * size;
        std::vector<double> weight;
        double top = -1e300, total = 0;
        for (size_t key = first; key <= t; ++key) {
          double score = 0;
          for (size_t d = 0; d < size; ++d) score += q[t][own + d] * k[key][shared + d];
          weight.push_back(soft_cap(score * layer.attention_scale, layer.attention_soft_cap));
          top = std::max(top, weight.back());
        }
        for (double& x : weight) total += x = std::exp(x - top);
        for (size_t d = 0; d < size; ++d) {
          double sum = 0;
          for (size_t key = first; key <= t; ++key) sum += weight[key - first] / total * v[key][shared + d];
          attended.push_back(round(sum));
        }
      }
      std::vector<double>& x = stream[t];
      const std::vector<double> before = x;
      add(layer, x, linear(attended, role("o")), role("attention_post_norm"));
      const std::vector<double> in = pre_norm(s.parallel_residual ? before : x, "mlp_norm");
      add(layer, x, layer.experts.count > 0 ? experts(layer, in, role("")) : mlp(in, role("")), role("mlp_post_norm"));
    }
  }
  return stream;
}

std::vector<double> Reference::logits(const std::vector<double>& stream) const {
  std::vector<double> row = round(norm(stream, "final_norm"));
  for (double& x : row) x = round(x * spec_.logit_scale);
  std::vector<double> z = linear(row, spec_.tied_embedding ? "embedding" : "unembedding");
  if (spec_.logit_soft_cap > 0)
    for (double& x : z) x = spec_.logit_soft_cap * std::tanh(x / spec_.logit_soft_cap);
  return z;
}

namespace {

double log_softmax(const std::vector<double>& logits, int32_t target) {
  double top = -1e300, sum = 0;
  for (const double x : logits) top = std::max(top, x);
  for (const double x : logits) sum += std::exp(x - top);
  return logits[static_cast<size_t>(target)] - top - std::log(sum);
}

}  // namespace

std::vector<double> Reference::logprobs(const std::vector<int32_t>& tokens) const {
  const Rows stream = forward(tokens);
  std::vector<double> result = {0};
  for (size_t t = 1; t < tokens.size(); ++t) result.push_back(log_softmax(logits(stream[t - 1]), tokens[t]));
  return result;
}

double Reference::next_logprob(const std::vector<int32_t>& tokens, int32_t target) const {
  return log_softmax(logits(forward(tokens).back()), target);
}

std::vector<double> Reference::rewards(const std::vector<int32_t>& tokens) const {
  std::vector<double> result;
  for (const std::vector<double>& row : forward(tokens)) {
    const std::vector<double> y = norm(row, "final_norm");
    double sum = 0;
    for (size_t i = 0; i < y.size(); ++i) sum += y[i] * weights_.at("head")[i];
    result.push_back(sum);
  }
  return result;
}

bool same_experts_in_bf16(const TinyModel& model, const std::vector<std::vector<int32_t>>& sequences) {
  const Reference exact(model, DType::kF32), rounded(model, DType::kBf16);
  for (const std::vector<int32_t>& tokens : sequences)
    if (exact.choices(tokens) != rounded.choices(tokens)) return false;
  return true;
}

std::vector<size_t> Reference::choices(const std::vector<int32_t>& tokens) const {
  choices_.clear();
  forward(tokens);
  return choices_;
}

TinyBatch random_batch(Random& random, const ModelSpec& spec) {
  TinyBatch batch;
  ScoreRequest& r = batch.request;
  const auto add = [&](int32_t length, int32_t parent) {
    r.segments.push_back({static_cast<int32_t>(r.tokens.size()), length, parent});
    for (int32_t i = 0; i < length; ++i) r.tokens.push_back(static_cast<int32_t>(random.below(spec.vocabulary())));
    return static_cast<int32_t>(r.segments.size() - 1);
  };
  const auto score = [&](int32_t segment) {
    const Segment& s = r.segments[static_cast<size_t>(segment)];
    std::vector<int32_t> sequence;
    int32_t prompt_length = 0;
    if (s.parent >= 0) {
      const Segment& p = r.segments[static_cast<size_t>(s.parent)];
      sequence.assign(r.tokens.begin() + p.start, r.tokens.begin() + p.start + p.length);
      prompt_length = p.length;
    }
    sequence.insert(sequence.end(), r.tokens.begin() + s.start, r.tokens.begin() + s.start + s.length);
    r.scored.push_back(segment);
    batch.sequences.push_back(sequence);
    batch.prompt_lengths.push_back(prompt_length);
  };
  // Two pairs, a group that crosses a block of keys, one response of one token, two lone sequences.
  const std::vector<std::pair<int32_t, std::vector<int32_t>>> groups = {
      {9, {5, 12}}, {60, {3, 7, 1, 20}}, {1, {1}}, {14, {6, 6}}};
  for (const auto& [prompt_length, responses] : groups) {
    const int32_t prompt = add(prompt_length, -1);
    for (const int32_t length : responses) score(add(length, prompt));
  }
  score(add(11, -1));
  score(add(2, -1));
  // The added tokens are used, first and last.
  r.tokens[1] = static_cast<int32_t>(spec.vocabulary() - 1);
  batch.sequences[0][1] = batch.sequences[1][1] = r.tokens[1];
  return batch;
}

std::unique_ptr<RewardModel> load_model(const ModelSpec& spec, const LoadOptions& options, const CancelFlag& cancel) {
  return std::make_unique<RewardModel>(open_device(options), spec, options.dtype, nullptr, cancel);
}

}  // namespace implex::test

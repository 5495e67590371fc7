// libFuzzer: bytes -> a model spec, weight sources over a small file, and a request. Loading and scoring must return or
// throw implex::Error; anything else, a sanitizer's finding included, is a crash.
//
// Most inputs would fail at their first number if every number were taken from the bytes, so a valid model is built and
// then bent: each number may be replaced, each source may lie, and the request may be anything. Numbers stay small
// where a large one would only ask for memory.
#include <fcntl.h>
#include <unistd.h>

#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <limits>
#include <string>

#include "core/error.h"
#include "cpu/device.h"
#include "reward/reward_model.h"

using namespace implex;

namespace {

class Bytes {
 public:
  Bytes(const uint8_t* data, size_t size) : data_(data), size_(size) {}
  uint8_t byte() { return at_ < size_ ? data_[at_++] : 0; }
  // [0, n)
  int64_t below(int64_t n) { return (byte() | byte() << 8) % n; }
  bool one_in(int n) { return byte() % n == n - 1; }
  int64_t any64() {
    static const int64_t edges[] = {0,
                                    1,
                                    -1,
                                    2,
                                    3,
                                    127,
                                    65535,
                                    int64_t{1} << 31,
                                    -(int64_t{1} << 31),
                                    int64_t{1} << 40,
                                    std::numeric_limits<int64_t>::max(),
                                    std::numeric_limits<int64_t>::min()};
    if (byte() % 2 == 0) return edges[byte() % (sizeof edges / sizeof *edges)];
    uint64_t value = 0;
    for (int i = 0; i < 8; ++i) value = value << 8 | byte();
    return static_cast<int64_t>(value);
  }
  int32_t any32() { return static_cast<int32_t>(any64()); }

 private:
  const uint8_t* data_;
  size_t size_;
  size_t at_ = 0;
};

constexpr size_t kFileBytes = size_t{1} << 17;

// One file for all runs, in memory where the system has such files.
class WeightFile {
 public:
  WeightFile() {
    char memory[] = "/dev/shm/implex-fuzz-XXXXXX";
    char disk[] = "/tmp/implex-fuzz-XXXXXX";
    descriptor_ = ::mkstemp(memory);
    path_ = memory;
    if (descriptor_ < 0) {
      descriptor_ = ::mkstemp(disk);
      path_ = disk;
    }
    if (descriptor_ < 0) std::abort();
  }
  ~WeightFile() { ::unlink(path_.c_str()); }

  // Plausible values, some of them replaced, possibly cut short.
  void fill(Bytes& bytes) {
    std::string content(kFileBytes, '\0');
    uint32_t state = bytes.byte() * 2654435761u + 1;
    for (size_t i = 0; i + 1 < content.size(); i += 2) {
      state = state * 1664525u + 1013904223u;
      // As the upper half of an f32 and as bf16: magnitudes from 0.01 to 2; as f16: from 1 to 2.
      const uint16_t bits =
          static_cast<uint16_t>(0x3c00u + (state >> 24) % 0x400u) | static_cast<uint16_t>(state >> 16 & 0x8000u);
      std::memcpy(&content[i], &bits, 2);
    }
    for (int i = bytes.byte() % 4; i > 0; --i)
      content[static_cast<size_t>(bytes.below(kFileBytes))] = static_cast<char>(bytes.byte());
    if (bytes.one_in(8)) content.resize(static_cast<size_t>(bytes.below(kFileBytes)));
    if (::ftruncate(descriptor_, 0) != 0 ||
        ::pwrite(descriptor_, content.data(), content.size(), 0) != static_cast<ssize_t>(content.size()))
      std::abort();
  }
  const std::string& path() const { return path_; }

 private:
  int descriptor_ = -1;
  std::string path_;
};

void add(ModelSpec& spec, Bytes& bytes, const std::string& file, const std::string& role, std::vector<int64_t> shape) {
  WeightSource s;
  s.role = role;
  s.tensor = role;
  s.file = file;
  s.offset = static_cast<uint64_t>(bytes.below(64));
  s.dtype = static_cast<DType>(bytes.byte() % 4 == 3 ? 0 : bytes.byte() % 3);
  s.bytes = dtype_size(s.dtype);
  for (const int64_t n : shape) s.bytes *= static_cast<uint64_t>(n);
  s.shape = std::move(shape);
  // Selections that keep the shape: all rows one by one, or one part of a tensor of three.
  if (bytes.one_in(8)) {
    s.has_selection = true;
    s.selection = {0, 1, 1};
    if (bytes.one_in(3)) {
      const int64_t part = bytes.byte() % 3;
      s.selection = {part, 1, 3};
      s.shape[0] *= 3;
      s.bytes *= 3;
    }
  }
  if (bytes.one_in(40)) {
    switch (bytes.byte() % 10) {
      case 0:
        s.offset = static_cast<uint64_t>(bytes.any64());
        break;
      case 1:
        s.bytes = static_cast<uint64_t>(bytes.any64());
        break;
      case 2:
        s.shape[static_cast<size_t>(bytes.byte()) % s.shape.size()] = bytes.any64();
        break;
      case 3:
        s.dtype = DType::kI32;
        break;
      case 4:
        s.shape.clear();
        break;
      case 5:
        s.shape.push_back(bytes.any64());
        break;
      case 6:
        s.file += "x";
        break;
      case 7:
        s.role += "_bias";
        break;
      case 8:
        s.has_selection = true;
        s.selection = {bytes.any64(), bytes.any64(), bytes.any64()};
        break;
      default:
        return;
    }
  }
  spec.weights.push_back(std::move(s));
}

ModelSpec make_spec(Bytes& bytes, const std::string& file) {
  ModelSpec s;
  s.vocab_size = 1 + bytes.below(300);
  s.added_tokens = bytes.byte() % 4;
  s.hidden_size = 1 + bytes.byte() % 40;
  s.layers.resize(static_cast<size_t>(1 + bytes.byte() % 3));
  s.kv_heads = 1 + bytes.byte() % 3;
  s.heads = s.kv_heads * (1 + bytes.byte() % 3);
  s.head_dim = 1 + bytes.byte() % 20;
  s.max_positions = 1 + bytes.below(2000);
  s.norm = bytes.one_in(2) ? NormKind::kLayer : NormKind::kRms;
  s.norm_eps = bytes.one_in(4) ? 0 : 1e-5;
  s.activation = static_cast<Activation>(bytes.byte() % 3);
  s.gated = bytes.one_in(2);
  s.parallel_residual = bytes.one_in(2);
  s.tied_embedding = bytes.one_in(2);
  s.norm_offset = bytes.one_in(3) ? 1 : 0;
  for (double* scale : {&s.embedding_scale, &s.residual_scale, &s.logit_scale}) *scale = bytes.one_in(3) ? 0.5 : 1;
  s.logit_soft_cap = bytes.one_in(3) ? 3 : 0;
  for (int64_t count = bytes.byte() % 3; count > 0 && s.head_dim > 1; --count) {
    RopeSpec rope;
    rope.rotary_dim = 2 + bytes.byte() % (s.head_dim / 2) * 2;
    rope.scale = bytes.one_in(3) ? 1.5 : 1;
    for (int64_t i = 0; i < rope.rotary_dim / 2; ++i)
      rope.inverse_frequencies.push_back(
          bytes.one_in(30) ? HUGE_VAL : std::pow(10000.0, -static_cast<double>(bytes.byte()) / 255));
    s.ropes.push_back(std::move(rope));
  }
  for (LayerSpec& layer : s.layers) {
    layer.pre_norm = !bytes.one_in(3);
    layer.post_norm = !s.parallel_residual && (!layer.pre_norm || bytes.one_in(3));
    layer.window = bytes.one_in(2) ? 1 + bytes.byte() % 90 : 0;
    layer.attention_scale = 1 / std::sqrt(static_cast<double>(s.head_dim));
    layer.attention_soft_cap = bytes.one_in(3) ? 2 : 0;
    layer.rope = static_cast<int64_t>(bytes.byte() % (s.ropes.size() + 1)) - 1;
    layer.qk_norm = static_cast<QkNorm>(bytes.byte() % 3);
    layer.intermediate_size = 1 + bytes.byte() % 50;
    if (!s.gated || s.parallel_residual || !bytes.one_in(3)) continue;
    layer.experts.count = 1 + bytes.byte() % 5;
    layer.experts.per_token = 1 + bytes.byte() % layer.experts.count;
    layer.experts.normalize = bytes.one_in(2);
  }

  const auto norm = [&](const std::string& role, int64_t size) {
    add(s, bytes, file, role, {size});
    if (bytes.one_in(3)) add(s, bytes, file, role + "_bias", {size});
  };
  const auto linear = [&](const std::string& role, int64_t rows, int64_t cols) {
    add(s, bytes, file, role, {rows, cols});
    if (bytes.one_in(3)) add(s, bytes, file, role + "_bias", {rows});
  };
  add(s, bytes, file, "embedding", {s.vocab_size, s.hidden_size});
  if (!s.tied_embedding && !bytes.one_in(8)) add(s, bytes, file, "unembedding", {s.vocab_size, s.hidden_size});
  for (size_t i = 0; i < s.layers.size(); ++i) {
    const LayerSpec& layer = s.layers[i];
    const std::string at = "layers." + std::to_string(i) + ".";
    if (layer.pre_norm) norm(at + "attention_norm", s.hidden_size);
    linear(at + "q", s.heads * s.head_dim, s.hidden_size);
    linear(at + "k", s.kv_heads * s.head_dim, s.hidden_size);
    linear(at + "v", s.kv_heads * s.head_dim, s.hidden_size);
    linear(at + "o", s.hidden_size, s.heads * s.head_dim);
    if (layer.qk_norm != QkNorm::kNone) {
      const bool head = layer.qk_norm == QkNorm::kHead;
      norm(at + "q_norm", head ? s.head_dim : s.heads * s.head_dim);
      norm(at + "k_norm", head ? s.head_dim : s.kv_heads * s.head_dim);
    }
    if (layer.pre_norm) norm(at + "mlp_norm", s.hidden_size);
    if (layer.post_norm) {
      norm(at + "attention_post_norm", s.hidden_size);
      norm(at + "mlp_post_norm", s.hidden_size);
    }
    const auto mlp = [&](const std::string& name) {
      if (s.gated) add(s, bytes, file, name + "gate", {layer.intermediate_size, s.hidden_size});
      linear(name + "up", layer.intermediate_size, s.hidden_size);
      linear(name + "down", s.hidden_size, layer.intermediate_size);
    };
    if (layer.experts.count == 0) mlp(at);
    if (layer.experts.count > 0) add(s, bytes, file, at + "router", {layer.experts.count, s.hidden_size});
    for (int64_t e = 0; e < layer.experts.count; ++e) mlp(at + "experts." + std::to_string(e) + ".");
  }
  norm("final_norm", s.hidden_size);
  if (bytes.one_in(2)) add(s, bytes, file, "head", {1, s.hidden_size});

  // Now that the sources fit: bend a number.
  if (bytes.one_in(8)) {
    LayerSpec& layer = s.layers[bytes.byte() % s.layers.size()];
    RopeSpec none;
    int64_t* numbers[] = {&s.vocab_size,
                          &s.hidden_size,
                          &s.heads,
                          &s.kv_heads,
                          &s.head_dim,
                          &s.max_positions,
                          &layer.intermediate_size,
                          &layer.window,
                          &layer.rope,
                          &layer.experts.count,
                          &layer.experts.per_token,
                          s.ropes.empty() ? &none.rotary_dim : &s.ropes[0].rotary_dim};
    *numbers[bytes.byte() % 12] = bytes.any64();
  }
  if (bytes.one_in(30)) s.norm_eps = bytes.one_in(2) ? std::nan("") : -1;
  return s;
}

ScoreRequest make_request(Bytes& bytes, const ModelSpec& spec) {
  ScoreRequest r;
  const int64_t vocabulary = spec.vocabulary() >= 1 && spec.vocabulary() < 1000 ? spec.vocabulary() : 7;
  std::vector<int32_t> prompts;
  for (int count = 1 + bytes.byte() % 6; count > 0; --count) {
    Segment s;
    s.start = static_cast<int32_t>(r.tokens.size());
    s.length = 1 + bytes.byte() % 90;
    if (!prompts.empty() && bytes.one_in(2)) s.parent = prompts[bytes.byte() % prompts.size()];
    if (s.parent < 0) prompts.push_back(static_cast<int32_t>(r.segments.size()));
    for (int32_t i = 0; i < s.length; ++i) r.tokens.push_back(static_cast<int32_t>((i * 31 + count * 7) % vocabulary));
    if (bytes.one_in(2)) r.scored.push_back(static_cast<int32_t>(r.segments.size()));
    r.segments.push_back(s);
  }
  r.readout = static_cast<Readout>(bytes.byte() % 5);
  r.target_token = static_cast<int32_t>(bytes.below(vocabulary));
  r.token_logprobs = bytes.one_in(2);
  if (bytes.one_in(6))
    r.tokens[static_cast<size_t>(bytes.below(static_cast<int64_t>(r.tokens.size())))] = bytes.any32();
  if (bytes.one_in(6)) r.target_token = bytes.any32();
  if (bytes.one_in(6)) r.scored.push_back(bytes.any32());
  if (bytes.one_in(6)) r.tokens.resize(static_cast<size_t>(bytes.byte()));
  if (bytes.one_in(6)) {
    Segment& s = r.segments[bytes.byte() % r.segments.size()];
    int32_t* numbers[] = {&s.start, &s.length, &s.parent};
    *numbers[bytes.byte() % 3] = bytes.any32();
  }
  return r;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  static WeightFile file;
  Bytes bytes(data, size);
  file.fill(bytes);
  const ModelSpec spec = make_spec(bytes, file.path());
  const auto& kernels = cpu::available_kernels();
  ::setenv("IMPLEX_KERNELS", kernels[bytes.byte() % kernels.size()]->name, 1);
  CancelFlag cancel;
  LoadOptions options;
  options.dtype = bytes.one_in(2) ? DType::kBf16 : DType::kF32;
  std::unique_ptr<RewardModel> model;
  try {
    model = std::make_unique<RewardModel>(open_device(options), spec, options.dtype, nullptr, cancel);
  } catch (const Error&) {
    return 0;
  }
  for (int count = 1 + bytes.byte() % 3; count > 0; --count) {
    const ScoreRequest request = make_request(bytes, spec);
    try {
      if (bytes.one_in(8)) model->set_head(std::vector<float>(static_cast<size_t>(spec.hidden_size), 0.5f));
      const ScoreResult first = model->score(request, cancel);
      if (request.readout != Readout::kRewardTokens && first.values.size() != request.scored.size()) std::abort();
      // Deterministic, whatever went before.
      const ScoreResult second = model->score(request, cancel);
      if (!first.values.empty() &&
          std::memcmp(first.values.data(), second.values.data(), first.values.size() * sizeof(double)) != 0)
        std::abort();
    } catch (const Error&) {
    }
  }
  return 0;
}

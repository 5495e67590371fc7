// The operations that `measure` knows: operands, the call, and the same in float64 for a few rows.
//
// Operands are near-normal: hidden rows with deviation 1, weights with D^-0.5, so that logits have deviation 1. The
// weight of a seed is the same in every case.
#include <algorithm>
#include <cmath>
#include <cstring>
#include <vector>

#include "bench/measure.h"
#include "bench/random_values.h"
#include "core/host_operations.h"
#include "core/thread_pool.h"
#include "cpu/device.h"

namespace implex::bench {

using host::DeviceMatrix;

namespace {

// Collects ‖got - want‖ / ‖want‖.
class Difference {
 public:
  void add(double got, double want) {
    difference_ += (got - want) * (got - want);
    norm_ += want * want;
  }
  double relative() const { return std::sqrt(difference_ / std::max(norm_, 1e-300)); }

 private:
  double difference_ = 0;
  double norm_ = 0;
};

// At most `count` indices spread over [0, size), the ends among them.
std::vector<int64_t> spread(int64_t size, int64_t count) {
  std::vector<int64_t> indices;
  for (int64_t i = 0; i < count; ++i) indices.push_back(count == 1 ? 0 : i * (size - 1) / (count - 1));
  indices.erase(std::unique(indices.begin(), indices.end()), indices.end());
  return indices;
}

double size_of(DType dtype) { return static_cast<double>(dtype_size(dtype)); }

RandomValues weight_values(DType dtype, int64_t cols, uint64_t seed) {
  return {seed + 1, std::pow(static_cast<double>(cols), -0.5), dtype};
}

class GemmCase : public Case {
 public:
  GemmCase(Device& device, const OpShape& s, uint64_t seed, WeightCache& weights)
      : device_(device),
        s_(s),
        in_values_(seed, 1, s.dtype),
        weight_values_(weight_values(s.dtype, s.depth, seed)),
        in_(device, s.dtype, s.rows, s.depth, in_values_.values(0, s.rows * s.depth)),
        weight_(weights.get(s.dtype, s.columns, s.depth, seed)),
        out_(device, s.dtype, s.rows, s.columns) {
    flops = 2.0 * static_cast<double>(s.rows) * static_cast<double>(s.columns) * static_cast<double>(s.depth);
    bytes = size_of(s.dtype) * static_cast<double>(s.rows * s.depth + s.columns * s.depth + s.rows * s.columns);
  }
  void run() override {
    const ix_epilogue none = {nullptr, nullptr};
    device_.call(&ix_backend::gemm, in_.mat(), weight_->get(), &none, out_.mat());
  }
  double error() override {
    Difference difference;
    for (const int64_t row : spread(s_.rows, 8)) {
      const std::vector<float> got = out_.read_rows(row, 1);
      for (const int64_t column : spread(s_.columns, 512)) {
        double want = 0;
        for (int64_t k = 0; k < s_.depth; ++k)
          want += static_cast<double>(in_values_.at(row * s_.depth + k)) *
                  static_cast<double>(weight_values_.at(column * s_.depth + k));
        difference.add(static_cast<double>(got[static_cast<size_t>(column)]), want);
      }
    }
    return difference.relative();
  }

 protected:
  Device& device_;
  OpShape s_;
  RandomValues in_values_, weight_values_;
  DeviceMatrix in_;
  std::shared_ptr<DeviceWeight> weight_;
  DeviceMatrix out_;
};

// A head's three products with nothing between them: what its forward and backward passes cannot be without. Logits
// stand in for their gradients; of the third product only the time is looked at.
class ProductsCase : public GemmCase {
 public:
  ProductsCase(Device& device, const OpShape& s, uint64_t seed, WeightCache& weights)
      : GemmCase(device, s, seed, weights),
        in_grad_(device, DType::kF32, s.rows, s.depth),
        weight_grad_(device, DType::kF32, s.columns, s.depth) {
    flops *= 3;
    bytes = 2 * bytes + 4.0 * static_cast<double>((s.rows + 2 * s.columns) * s.depth);
  }
  void run() override {
    GemmCase::run();
    device_.call(&ix_backend::gemm_backward_input, out_.mat(), weight_->get(), nullptr, in_grad_.mat());
    device_.call(&ix_backend::gemm_backward_weight, out_.mat(), in_.mat(), weight_grad_.as<float>(), nullptr);
  }
  double error() override {
    Difference difference;
    for (const int64_t row : spread(s_.rows, 2)) {
      const std::vector<float> z = out_.read_rows(row, 1);
      const std::vector<float> got = in_grad_.read_rows(row, 1);
      for (const int64_t k : spread(s_.depth, 16)) {
        double want = 0;
        for (int64_t v = 0; v < s_.columns; ++v)
          want +=
              static_cast<double>(z[static_cast<size_t>(v)]) * static_cast<double>(weight_values_.at(v * s_.depth + k));
        difference.add(static_cast<double>(got[static_cast<size_t>(k)]), want);
      }
    }
    return std::max(GemmCase::error(), difference.relative());
  }

 private:
  DeviceMatrix in_grad_, weight_grad_;
};

class HeadCase : public Case {
 public:
  HeadCase(Device& device, const OpShape& s, uint64_t seed, WeightCache& weights)
      : device_(device),
        s_(s),
        forward_(s.op != Op::kLinearLogprobBackward),
        backward_(s.op != Op::kLinearLogprob),
        hidden_values_(seed, 1, s.dtype),
        weight_values_(weight_values(s.dtype, s.depth, seed)),
        random_(seed + 2, 1, DType::kF32),
        hidden_(device, s.dtype, s.rows, s.depth, hidden_values_.values(0, s.rows * s.depth)),
        weight_(weights.get(s.dtype, s.columns, s.depth, seed)),
        logp_(device, DType::kF32, 1, s.rows),
        lse_(device, DType::kF32, 1, s.rows),
        grad_(device, DType::kF32, 1, s.rows, random_.values(s.rows, s.rows)),
        hidden_grad_(device, DType::kF32, backward_ ? s.rows : 1, s.depth),
        weight_grad_(device, DType::kF32, backward_ ? s.columns : 1, s.depth) {
    for (int64_t i = 0; i < s.rows; ++i)
      targets_.push_back(static_cast<int32_t>(random_.bits(i) % static_cast<uint64_t>(s.columns)));
    ids_ = DeviceBuffer::of(device, targets_);
    const double products = static_cast<double>(s.rows) * static_cast<double>(s.columns) * static_cast<double>(s.depth);
    const double operands = size_of(s.dtype) * static_cast<double>((s.rows + s.columns) * s.depth);
    if (forward_) flops += 2 * products, bytes += operands;
    // The gradients, f32 and added to. Logits, computed once more, are not counted where the forward pass is.
    if (backward_)
      flops += (forward_ ? 4 : 6) * products,
          bytes += 2 * operands + 8.0 * static_cast<double>((s.rows + s.columns) * s.depth);
    if (!forward_) forward();
  }

  void run() override {
    if (forward_) forward();
    if (!backward_) return;
    device_.call(&ix_backend::linear_logprob_backward, hidden_.mat(), weight_->get(), ids_.as<int32_t>(), 0.0f,
                 lse_.as<float>(), grad_.as<float>(), hidden_grad_.mat(), weight_grad_.as<float>());
  }
  void reset() override {
    if (!backward_) return;
    device_.call(&ix_backend::fill_zero, weight_grad_.as<float>(),
                 static_cast<size_t>(s_.columns * s_.depth) * sizeof(float));
  }

  double error() override {
    Difference difference;
    const std::vector<float> logp = logp_.read();
    const auto d = static_cast<size_t>(s_.depth);
    for (const int64_t row : spread(s_.rows, 3)) {
      const std::vector<double> z = logits(row);
      const double top = *std::max_element(z.begin(), z.end());
      double sum = 0;
      for (const double value : z) sum += std::exp(value - top);
      const double lse = top + std::log(sum);
      const auto target = static_cast<size_t>(targets_[static_cast<size_t>(row)]);
      if (!backward_) {
        difference.add(static_cast<double>(logp[static_cast<size_t>(row)]), z[target] - lse);
        continue;
      }
      const std::vector<double> want = hidden_gradient(row, z, lse);
      const std::vector<float> got = hidden_grad_.read_rows(row, 1);
      for (size_t k = 0; k < d; ++k) difference.add(static_cast<double>(got[k]), want[k]);
    }
    return backward_ ? std::max(difference.relative(), weight_error()) : difference.relative();
  }

 private:
  void forward() {
    device_.call(&ix_backend::linear_logprob, hidden_.mat(), weight_->get(), ids_.as<int32_t>(), 0.0f,
                 logp_.as<float>(), lse_.as<float>());
  }

  std::vector<double> logits(int64_t row) const {
    const std::vector<float> h = hidden_values_.values(row * s_.depth, s_.depth);
    std::vector<double> z(static_cast<size_t>(s_.columns));
    ThreadPool::instance().parallel_for(s_.columns, [&](int64_t v) {
      double sum = 0;
      for (int64_t k = 0; k < s_.depth; ++k)
        sum +=
            static_cast<double>(h[static_cast<size_t>(k)]) * static_cast<double>(weight_values_.at(v * s_.depth + k));
      z[static_cast<size_t>(v)] = sum;
    });
    return z;
  }

  // Gradient of a hidden row, from its logits; blocks of the vocabulary in parallel.
  std::vector<double> hidden_gradient(int64_t row, const std::vector<double>& z, double lse) const {
    constexpr int64_t kBlock = 4096;
    const auto d = static_cast<size_t>(s_.depth);
    const int64_t blocks = (s_.columns + kBlock - 1) / kBlock;
    const int64_t target = targets_[static_cast<size_t>(row)];
    const double g = static_cast<double>(random_.at(s_.rows + row));
    std::vector<double> parts(static_cast<size_t>(blocks) * d, 0.0);
    ThreadPool::instance().parallel_for(blocks, [&](int64_t block) {
      double* part = &parts[static_cast<size_t>(block) * d];
      for (int64_t v = block * kBlock; v < std::min(s_.columns, (block + 1) * kBlock); ++v) {
        const double dz = g * ((v == target ? 1.0 : 0.0) - std::exp(z[static_cast<size_t>(v)] - lse));
        for (int64_t k = 0; k < s_.depth; ++k) part[k] += dz * static_cast<double>(weight_values_.at(v * s_.depth + k));
      }
    });
    std::vector<double> sum(d, 0.0);
    for (int64_t block = 0; block < blocks; ++block)
      for (size_t k = 0; k < d; ++k) sum[k] += parts[static_cast<size_t>(block) * d + k];
    return sum;
  }

  // Sampled rows of the weight's gradient, those of three targets among them; log-sum-exps are the forward pass's,
  // checked there.
  double weight_error() const {
    const std::vector<float> lse = lse_.read();
    std::vector<int64_t> rows = {targets_.front(), targets_[targets_.size() / 2], targets_.back()};
    for (const int64_t row : spread(s_.columns, 3)) rows.push_back(row);
    std::vector<std::vector<double>> wanted(rows.size());
    ThreadPool::instance().parallel_for(static_cast<int64_t>(rows.size()), [&](int64_t at) {
      const int64_t v = rows[static_cast<size_t>(at)];
      const std::vector<float> w = weight_values_.values(v * s_.depth, s_.depth);
      std::vector<double>& want = wanted[static_cast<size_t>(at)];
      want.assign(w.size(), 0.0);
      for (int64_t i = 0; i < s_.rows; ++i) {
        const std::vector<float> x = hidden_values_.values(i * s_.depth, s_.depth);
        double z = 0;
        for (size_t k = 0; k < want.size(); ++k) z += static_cast<double>(x[k]) * static_cast<double>(w[k]);
        const double p = std::exp(z - static_cast<double>(lse[static_cast<size_t>(i)]));
        const double dz =
            static_cast<double>(random_.at(s_.rows + i)) * ((targets_[static_cast<size_t>(i)] == v ? 1.0 : 0.0) - p);
        for (size_t k = 0; k < want.size(); ++k) want[k] += dz * static_cast<double>(x[k]);
      }
    });
    Difference difference;
    for (size_t at = 0; at < rows.size(); ++at) {
      const std::vector<float> got = weight_grad_.read_rows(rows[at], 1);
      for (size_t k = 0; k < got.size(); ++k) difference.add(static_cast<double>(got[k]), wanted[at][k]);
    }
    return difference.relative();
  }

  Device& device_;
  OpShape s_;
  bool forward_, backward_;
  RandomValues hidden_values_, weight_values_, random_;
  std::vector<int32_t> targets_;
  DeviceBuffer ids_;
  DeviceMatrix hidden_;
  std::shared_ptr<DeviceWeight> weight_;
  DeviceMatrix logp_, lse_, grad_, hidden_grad_, weight_grad_;
};

std::vector<ix_segment> segments_of(const OpShape& s) {
  std::vector<ix_segment> segments;
  int32_t at = 0;
  for (int64_t g = 0; g < s.groups; ++g) {
    const auto parent = static_cast<int32_t>(segments.size());
    segments.push_back({at, static_cast<int32_t>(s.prompt), -1});
    at += static_cast<int32_t>(s.prompt);
    for (int64_t r = 0; r < s.responses; ++r) {
      segments.push_back({at, static_cast<int32_t>(s.response), parent});
      at += static_cast<int32_t>(s.response);
    }
  }
  return segments;
}

class AttentionCase : public Case {
 public:
  AttentionCase(Device& device, const OpShape& s, uint64_t seed)
      : device_(device),
        s_(s),
        backward_(s.op == Op::kAttentionBackward),
        segments_(segments_of(s)),
        tokens_(s.groups * (s.prompt + s.responses * s.response)),
        width_(s.heads * s.head_dim),
        kv_width_(s.kv_heads * s.head_dim),
        q_values_(seed, 1, s.dtype),
        k_values_(seed + 1, 1, s.dtype),
        v_values_(seed + 2, 1, s.dtype),
        grad_values_(seed + 3, 1, s.dtype),
        batch_(device, segments_),
        q_(device, s.dtype, tokens_, width_, q_values_.values(0, tokens_ * width_)),
        k_(device, s.dtype, tokens_, kv_width_, k_values_.values(0, tokens_ * kv_width_)),
        v_(device, s.dtype, tokens_, kv_width_, v_values_.values(0, tokens_ * kv_width_)),
        out_(device, s.dtype, tokens_, width_),
        grad_(device, s.dtype, tokens_, width_, grad_values_.values(0, tokens_ * width_)),
        q_grad_(device, s.dtype, backward_ ? tokens_ : 1, width_),
        k_grad_(device, s.dtype, backward_ ? tokens_ : 1, kv_width_),
        v_grad_(device, s.dtype, backward_ ? tokens_ : 1, kv_width_),
        lse_(device, DType::kF32, tokens_, s.heads),
        shape_{static_cast<int32_t>(s.heads),
               static_cast<int32_t>(s.kv_heads),
               static_cast<int32_t>(s.head_dim),
               static_cast<float>(scale()),
               0,
               0.0f} {
    double pairs = 0;  // of a query and a key that it sees
    for (int64_t i = 0; i < tokens_; ++i) pairs += static_cast<double>(keys_of(i).size());
    flops = (backward_ ? 10.0 : 4.0) * pairs * static_cast<double>(width_);
    bytes = size_of(s.dtype) * static_cast<double>(tokens_ * (width_ + kv_width_)) * (backward_ ? 4 : 2);
    if (backward_) forward();
  }

  void run() override {
    if (!backward_) return forward();
    device_.call(&ix_backend::attention_backward, batch_.get(), &shape_, q_.mat(), nullptr, k_.mat(), v_.mat(),
                 out_.mat(), lse_.as<float>(), grad_.mat(), q_grad_.mat(), k_grad_.mat(), v_grad_.mat());
  }

  double error() override {
    const std::vector<float> out = out_.read();
    Difference forward_difference;
    for (const int64_t row : spread(tokens_, 6)) {
      for (int64_t head = 0; head < s_.heads; ++head) {
        const std::vector<double> p = probabilities(row, head);
        const std::vector<int64_t> keys = keys_of(row);
        for (int64_t e = 0; e < s_.head_dim; ++e) {
          double want = 0;
          for (size_t j = 0; j < keys.size(); ++j) want += p[j] * v(keys[j], head, e);
          forward_difference.add(static_cast<double>(out[static_cast<size_t>(row * width_ + head * s_.head_dim + e)]),
                                 want);
        }
      }
    }
    return backward_ ? std::max(forward_difference.relative(), gradient_error()) : forward_difference.relative();
  }

 private:
  double scale() const { return 1.0 / std::sqrt(static_cast<double>(s_.head_dim)); }
  int64_t kv_head(int64_t head) const { return head / (s_.heads / s_.kv_heads); }
  double q(int64_t row, int64_t head, int64_t e) const {
    return static_cast<double>(q_values_.at(row * width_ + head * s_.head_dim + e));
  }
  double k(int64_t row, int64_t head, int64_t e) const {
    return static_cast<double>(k_values_.at(row * kv_width_ + kv_head(head) * s_.head_dim + e));
  }
  double v(int64_t row, int64_t head, int64_t e) const {
    return static_cast<double>(v_values_.at(row * kv_width_ + kv_head(head) * s_.head_dim + e));
  }
  double g(int64_t row, int64_t head, int64_t e) const {
    return static_cast<double>(grad_values_.at(row * width_ + head * s_.head_dim + e));
  }

  void forward() {
    device_.call(&ix_backend::attention, batch_.get(), &shape_, q_.mat(), nullptr, k_.mat(), v_.mat(), out_.mat(),
                 lse_.as<float>());
  }

  // Tokens that a row attends to.
  std::vector<int64_t> keys_of(int64_t row) const {
    std::vector<int64_t> keys;
    for (const ix_segment& own : segments_) {
      if (row < own.start || row >= own.start + own.length) continue;
      if (own.parent >= 0) {
        const ix_segment& parent = segments_[static_cast<size_t>(own.parent)];
        for (int64_t i = 0; i < parent.length; ++i) keys.push_back(parent.start + i);
      }
      for (int64_t i = own.start; i <= row; ++i) keys.push_back(i);
    }
    return keys;
  }

  std::vector<double> probabilities(int64_t row, int64_t head) const {
    std::vector<double> p;
    for (const int64_t key : keys_of(row)) {
      double score = 0;
      for (int64_t e = 0; e < s_.head_dim; ++e) score += q(row, head, e) * k(key, head, e);
      p.push_back(score * scale());
    }
    const double top = *std::max_element(p.begin(), p.end());
    double sum = 0;
    for (double& x : p) sum += x = std::exp(x - top);
    for (double& x : p) x /= sum;
    return p;
  }

  // All three gradients of the last group's last response's rows, which every kind of key is seen from, for the first
  // head's share. Keys of that response are seen by its own rows alone, so their gradients are complete.
  double gradient_error() const {
    const ix_segment& own = segments_.back();
    const std::vector<float> q_got = q_grad_.read();
    const std::vector<float> k_got = k_grad_.read();
    const std::vector<float> v_got = v_grad_.read();
    const int64_t group = s_.heads / s_.kv_heads;
    const auto length = static_cast<size_t>(own.length);
    const auto e_count = static_cast<size_t>(s_.head_dim);
    std::vector<double> k_want(length * e_count, 0.0), v_want(length * e_count, 0.0);
    Difference difference;
    for (int64_t head = 0; head < group; ++head) {
      for (int64_t row = own.start; row < own.start + own.length; ++row) {
        const std::vector<int64_t> keys = keys_of(row);
        const std::vector<double> p = probabilities(row, head);
        std::vector<double> dp(keys.size());
        double delta = 0;
        for (size_t j = 0; j < keys.size(); ++j) {
          for (int64_t e = 0; e < s_.head_dim; ++e) dp[j] += g(row, head, e) * v(keys[j], head, e);
          delta += p[j] * dp[j];
        }
        std::vector<double> q_want(e_count, 0.0);
        for (size_t j = 0; j < keys.size(); ++j) {
          const double ds = p[j] * (dp[j] - delta) * scale();
          for (int64_t e = 0; e < s_.head_dim; ++e) {
            q_want[static_cast<size_t>(e)] += ds * k(keys[j], head, e);
            if (keys[j] < own.start) continue;
            const size_t at = static_cast<size_t>(keys[j] - own.start) * e_count + static_cast<size_t>(e);
            k_want[at] += ds * q(row, head, e);
            v_want[at] += p[j] * g(row, head, e);
          }
        }
        for (size_t e = 0; e < e_count; ++e)
          difference.add(static_cast<double>(q_got[static_cast<size_t>(row * width_ + head * s_.head_dim) + e]),
                         q_want[e]);
      }
    }
    for (size_t i = 0; i < length; ++i) {
      for (size_t e = 0; e < e_count; ++e) {
        const size_t at = static_cast<size_t>((own.start + static_cast<int64_t>(i)) * kv_width_) + e;
        difference.add(static_cast<double>(k_got[at]), k_want[i * e_count + e]);
        difference.add(static_cast<double>(v_got[at]), v_want[i * e_count + e]);
      }
    }
    return difference.relative();
  }

  Device& device_;
  OpShape s_;
  bool backward_;
  std::vector<ix_segment> segments_;
  int64_t tokens_, width_, kv_width_;
  RandomValues q_values_, k_values_, v_values_, grad_values_;
  DeviceBatch batch_;
  DeviceMatrix q_, k_, v_, out_, grad_, q_grad_, k_grad_, v_grad_, lse_;
  ix_attention shape_;
};

class NormCase : public Case {
 public:
  NormCase(Device& device, const OpShape& s, uint64_t seed)
      : device_(device),
        s_(s),
        backward_(s.op == Op::kNormBackward),
        in_values_(seed, 1, DType::kF32),
        gamma_values_(seed + 1, 1, DType::kF32),
        grad_values_(seed + 2, 1, DType::kF32),
        in_(device, DType::kF32, s.rows, s.columns, in_values_.values(0, s.rows * s.columns)),
        gamma_(device, DType::kF32, 1, s.columns, gamma_values_.values(0, s.columns)),
        grad_(device, DType::kF32, backward_ ? s.rows : 1, s.columns,
              grad_values_.values(0, (backward_ ? s.rows : 1) * s.columns)),
        out_(device, backward_ ? DType::kF32 : s.dtype, s.rows, s.columns),
        gamma_grad_(device, DType::kF32, 1, s.columns),
        table_{s.layer_norm ? IX_NORM_LAYER : IX_NORM_RMS, gamma_.as<float>(), nullptr, kEps} {
    flops = (backward_ ? 12.0 : 4.0) * static_cast<double>(s.rows * s.columns);
    bytes = static_cast<double>(s.rows * s.columns) * (backward_ ? 12.0 : 4.0 + size_of(s.dtype));
  }
  void run() override {
    if (!backward_) {
      device_.call(&ix_backend::norm, &table_, in_.mat(), out_.mat());
      return;
    }
    device_.call(&ix_backend::norm_backward, &table_, in_.mat(), grad_.mat(), out_.mat(), 0, gamma_grad_.as<float>(),
                 nullptr);
  }
  double error() override {
    const std::vector<float> got = out_.read();
    Difference difference;
    const double n = static_cast<double>(s_.columns);
    for (const int64_t row : spread(s_.rows, 16)) {
      const auto x = [&](int64_t i) { return static_cast<double>(in_values_.at(row * s_.columns + i)); };
      const auto g = [&](int64_t i) {
        return static_cast<double>(gamma_values_.at(i)) * static_cast<double>(grad_values_.at(row * s_.columns + i));
      };
      double mean = 0, square = 0, along = 0, sum = 0;
      for (int64_t i = 0; s_.layer_norm && i < s_.columns; ++i) mean += x(i) / n;
      for (int64_t i = 0; i < s_.columns; ++i) square += (x(i) - mean) * (x(i) - mean) / n;
      const double r = 1 / std::sqrt(square + static_cast<double>(kEps));
      for (int64_t i = 0; backward_ && i < s_.columns; ++i) {
        along += g(i) * (x(i) - mean) * r / n;
        if (s_.layer_norm) sum += g(i) / n;
      }
      for (int64_t i = 0; i < s_.columns; ++i) {
        const double normed = (x(i) - mean) * r;
        const double want =
            backward_ ? r * (g(i) - sum - normed * along) : normed * static_cast<double>(gamma_values_.at(i));
        difference.add(static_cast<double>(got[static_cast<size_t>(row * s_.columns + i)]), want);
      }
    }
    return difference.relative();
  }

 private:
  static constexpr float kEps = 1e-5f;
  Device& device_;
  OpShape s_;
  bool backward_;
  RandomValues in_values_, gamma_values_, grad_values_;
  DeviceMatrix in_, gamma_, grad_, out_, gamma_grad_;
  ix_norm table_;
};

// `rows` floats from one array to another. On the CPU plain memcpy by all threads, elsewhere the device's own copying
// cast.
class CopyCase : public Case {
 public:
  CopyCase(Device& device, const OpShape& s, uint64_t seed)
      : device_(device),
        rows_(s.rows / kCols),
        from_(device, DType::kF32, rows_, kCols, RandomValues(seed, 1, DType::kF32).values(0, rows_ * kCols)),
        to_(device, DType::kF32, rows_, kCols) {
    bytes = 8.0 * static_cast<double>(rows_ * kCols);
  }
  void run() override {
    if (device_.name() != "cpu") {
      device_.call(&ix_backend::cast, from_.mat(), to_.mat());
      return;
    }
    constexpr int64_t kBlock = 1 << 8;
    ThreadPool::instance().parallel_for((rows_ + kBlock - 1) / kBlock, [&](int64_t block) {
      const int64_t count = std::min(kBlock, rows_ - block * kBlock) * kCols;
      std::memcpy(to_.as<float>() + block * kBlock * kCols, from_.as<float>() + block * kBlock * kCols,
                  static_cast<size_t>(count) * sizeof(float));
    });
  }
  double error() override { return from_.read() == to_.read() ? 0 : 1; }

 private:
  static constexpr int64_t kCols = 1024;
  Device& device_;
  int64_t rows_;
  DeviceMatrix from_, to_;
};

class PeakCase : public Case {
 public:
  PeakCase(Device& device, const OpShape& s) : kernels_(cpu::selected_kernels()), bf16_(s.dtype == DType::kBf16) {
    if (device.name() != "cpu")
      throw Error(ErrorCode::kDeviceUnavailable, "the rate of multiply-adds is measured on the CPU only");
    flops = kernels_->multiply_add(kRounds, bf16_ ? IX_BF16 : IX_F32) * kTasks;
  }
  void run() override {
    ThreadPool::instance().parallel_for(kTasks,
                                        [&](int64_t) { kernels_->multiply_add(kRounds, bf16_ ? IX_BF16 : IX_F32); });
  }
  double error() override { return 0; }

 private:
  static constexpr int64_t kRounds = 1 << 14;
  static constexpr int64_t kTasks = 256;
  const cpu::KernelTable* kernels_;
  bool bf16_;
};

}  // namespace

std::shared_ptr<DeviceWeight> WeightCache::get(DType dtype, int64_t rows, int64_t cols, uint64_t seed) {
  std::weak_ptr<DeviceWeight>& kept = weights_[{dtype, rows, cols, seed}];
  if (const std::shared_ptr<DeviceWeight> found = kept.lock()) return found;
  const auto weight = std::make_shared<DeviceWeight>(device_, dtype, rows, cols, trainable_);
  // Rows go over in blocks: a vocabulary's matrix is not held twice.
  const RandomValues values = weight_values(dtype, cols, seed);
  constexpr int64_t kRows = 2048;
  for (int64_t row = 0; row < rows; row += kRows) {
    const int64_t count = std::min(kRows, rows - row);
    weight->write(row, count, values.values(row * cols, count * cols).data());
  }
  kept = weight;
  return weight;
}

std::unique_ptr<Case> make_case(Device& device, const OpShape& shape, uint64_t seed, WeightCache& weights) {
  switch (shape.op) {
    case Op::kGemm:
      return std::make_unique<GemmCase>(device, shape, seed, weights);
    case Op::kHeadProducts:
      return std::make_unique<ProductsCase>(device, shape, seed, weights);
    case Op::kLinearLogprob:
    case Op::kLinearLogprobBackward:
    case Op::kLinearLogprobBoth:
      return std::make_unique<HeadCase>(device, shape, seed, weights);
    case Op::kAttention:
    case Op::kAttentionBackward:
      return std::make_unique<AttentionCase>(device, shape, seed);
    case Op::kNorm:
    case Op::kNormBackward:
      return std::make_unique<NormCase>(device, shape, seed);
    case Op::kCopy:
      return std::make_unique<CopyCase>(device, shape, seed);
    case Op::kPeak:
      return std::make_unique<PeakCase>(device, shape);
  }
  throw Error(ErrorCode::kInternal, "unknown operation");
}

}  // namespace implex::bench

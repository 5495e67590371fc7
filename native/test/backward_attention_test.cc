// Backward of ragged attention: accuracy against double for grouped heads, shared prompts and selected rows.
#include "gradient_check.h"

using namespace implex;
using namespace implex::test;

namespace {

struct Heads {
  int32_t heads, kv_heads, head_dim;
  int32_t window = 0;
  double cap = 0;
};

std::vector<int32_t> visible_tokens(const std::vector<ix_segment>& segments, int32_t token) {
  std::vector<int32_t> tokens;
  for (const ix_segment& own : segments) {
    if (token < own.start || token >= own.start + own.length) continue;
    if (own.parent >= 0)
      for (int32_t i = 0; i < segments[static_cast<size_t>(own.parent)].length; ++i)
        tokens.push_back(segments[static_cast<size_t>(own.parent)].start + i);
    for (int32_t i = own.start; i <= token; ++i) tokens.push_back(i);
  }
  return tokens;
}

// q, k, v, grad and the gradients, row-major doubles; q and grad have a row for each of `rows`.
struct Problem {
  std::vector<ix_segment> segments;
  std::vector<int32_t> rows;
  Heads h;
  double scale;
  std::vector<double> q, k, v, grad;
  size_t q_width() const { return static_cast<size_t>(h.heads) * static_cast<size_t>(h.head_dim); }
  size_t kv_width() const { return static_cast<size_t>(h.kv_heads) * static_cast<size_t>(h.head_dim); }
};

// Calls body(row, head, keys, weights, query offset, key offset of each) with the softmax weights; `slack` bounds what
// f32 may move a score by.
template <typename F>
void for_each_query(const Problem& p, const F& body) {
  const auto size = static_cast<size_t>(p.h.head_dim), group = static_cast<size_t>(p.h.heads / p.h.kv_heads);
  for (size_t row = 0; row < p.rows.size(); ++row) {
    const std::vector<int32_t> tokens = visible_tokens(p.segments, p.rows[row]);
    for (size_t head = 0; head < static_cast<size_t>(p.h.heads); ++head) {
      const size_t own = row * p.q_width() + head * size;
      std::vector<size_t> keys;
      std::vector<double> weight;
      double top = -1e300, total = 0, slack = 0;
      for (const int32_t token : tokens) {
        keys.push_back(static_cast<size_t>(token) * p.kv_width() + head / group * size);
        double score = 0, magnitude = 0;
        for (size_t d = 0; d < size; ++d) {
          const double product = p.q[own + d] * p.k[keys.back() + d] * p.scale;
          score += product, magnitude += std::fabs(product);
        }
        weight.push_back(score);
        top = std::max(top, score);
        slack = std::max(slack, static_cast<double>(size + 3) * kU * magnitude);
      }
      for (double& w : weight) total += w = std::exp(w - top);
      for (double& w : weight) w /= total;
      // The saved ln sum exp is an f32 too.
      slack += kU * std::fabs(top + std::log(total));
      body(own, keys, weight, slack);
    }
  }
}

double value_of(const Problem& p) {
  double sum = 0;
  for_each_query(p, [&](size_t own, const std::vector<size_t>& keys, const std::vector<double>& weight, double) {
    for (size_t j = 0; j < keys.size(); ++j)
      for (size_t d = 0; d < static_cast<size_t>(p.h.head_dim); ++d)
        sum += p.grad[own + d] * weight[j] * p.v[keys[j] + d];
  });
  return sum;
}

struct Gradients {
  Bounded q, k, v;
};

// `out`: what the forward pass stored, or null for the exact result. Bounds: each weight is off by a factor of slack
// and the roundings of e^x, each score's gradient by that and a sum over the head's dimensions; magnitudes are the same
// sums of absolute values.
Gradients gradients_of(const Problem& p, const std::vector<double>* out) {
  Gradients g = {Bounded(p.q.size()), Bounded(p.k.size()), Bounded(p.v.size())};
  const auto size = static_cast<size_t>(p.h.head_dim);
  const double rows = static_cast<double>(p.rows.size()) * static_cast<double>(p.h.heads / p.h.kv_heads);
  for_each_query(p, [&](size_t own, const std::vector<size_t>& keys, const std::vector<double>& weight, double slack) {
    const double relative =
        4 * slack + (2 * static_cast<double>(keys.size()) + static_cast<double>(2 * size) + rows + 64) * kU;
    double delta = 0, delta_magnitude = 0;
    for (size_t d = 0; d < size; ++d) {
      double y = 0;
      for (size_t j = 0; j < keys.size(); ++j) y += weight[j] * p.v[keys[j] + d];
      if (out) y = (*out)[own + d];
      delta += p.grad[own + d] * y, delta_magnitude += std::fabs(p.grad[own + d] * y);
    }
    for (size_t j = 0; j < keys.size(); ++j) {
      double through = 0, magnitude = delta_magnitude;
      for (size_t d = 0; d < size; ++d) {
        const double product = p.grad[own + d] * p.v[keys[j] + d];
        through += product, magnitude += std::fabs(product);
      }
      const double score = weight[j] * (through - delta), score_error = relative * weight[j] * magnitude;
      for (size_t d = 0; d < size; ++d) {
        g.v.value[keys[j] + d] += weight[j] * p.grad[own + d];
        g.v.bound[keys[j] + d] += relative * weight[j] * std::fabs(p.grad[own + d]);
        g.q.value[own + d] += p.scale * score * p.k[keys[j] + d];
        g.q.bound[own + d] += p.scale * score_error * std::fabs(p.k[keys[j] + d]);
        g.k.value[keys[j] + d] += p.scale * score * p.q[own + d];
        g.k.bound[keys[j] + d] += p.scale * score_error * std::fabs(p.q[own + d]);
      }
    }
  });
  return g;
}

struct Result {
  Matrix q, k, v;
};

Result attention_gradients(KernelDevice& device, const std::vector<ix_segment>& segments, const Heads& h, Matrix& q,
                           const std::vector<int32_t>* rows, Matrix& k, Matrix& v, Matrix& grad, Matrix& out) {
  const Batch batch(device, segments);
  const ix_attention shape = {h.heads,    h.kv_heads,
                              h.head_dim, static_cast<float>(1 / std::sqrt(static_cast<double>(h.head_dim))),
                              h.window,   static_cast<float>(h.cap)};
  std::vector<float> lse(static_cast<size_t>(q.rows() * h.heads));
  const ix_mat q_view = q.view(), k_view = k.view(), v_view = v.view(), out_view = out.view(), grad_view = grad.view();
  const int32_t* selection = rows ? rows->data() : nullptr;
  device.call(&ix_backend::attention, batch.get(), &shape, &q_view, selection, &k_view, &v_view, &out_view, lse.data());
  Result r = {Matrix(q.dtype(), q.rows(), q.cols(), q_view.stride - q.cols()), Matrix(k.dtype(), k.rows(), k.cols(), 2),
              Matrix(v.dtype(), v.rows(), v.cols(), 4)};
  const ix_mat q_grad = r.q.view(), k_grad = r.k.view(), v_grad = r.v.view();
  device.call(&ix_backend::attention_backward, batch.get(), &shape, &q_view, selection, &k_view, &v_view, &out_view,
              lse.data(), &grad_view, &q_grad, &k_grad, &v_grad);
  return r;
}

// Lengths around the blocks of 32 queries and 64 keys, a prompt with three responses, a lone token, a short prompt.
const std::vector<ix_segment> kSegments = {{0, 61, -1},  {61, 1, 0},    {62, 4, 0}, {66, 40, 0},
                                           {106, 1, -1}, {107, 65, -1}, {172, 2, 5}};
constexpr int32_t kTokens = 174;

void check_accuracy(const Heads& h, int32_t dtype, double scale, bool selected, uint64_t seed) {
  Random random(seed);
  std::vector<int32_t> rows;
  for (int32_t t = 0; t < kTokens; ++t)
    if (!selected || random.below(3) == 0) rows.push_back(t);
  const auto count = static_cast<int64_t>(rows.size());
  Matrix q = Matrix::random(random, dtype, count, h.heads * h.head_dim, scale, 3);
  Matrix k = Matrix::random(random, dtype, kTokens, h.kv_heads * h.head_dim, scale, 1);
  Matrix v = Matrix::random(random, dtype, kTokens, h.kv_heads * h.head_dim, 2, 1);
  Matrix grad = Matrix::random(random, dtype, count, h.heads * h.head_dim, 1, 2);
  const Problem p = {kSegments,
                     rows,
                     h,
                     static_cast<double>(static_cast<float>(1 / std::sqrt(static_cast<double>(h.head_dim)))),
                     all_values(q),
                     all_values(k),
                     all_values(v),
                     all_values(grad)};
  const std::string what =
      text("%s heads %d/%d of %d%s", dtype_text(dtype), h.heads, h.kv_heads, h.head_dim, selected ? " selected" : "");
  // f32: one reference for all kernels. bf16: its backward starts from the stored, rounded output.
  const Gradients exact = gradients_of(p, nullptr);
  for_each_kernels([&](KernelDevice& device) {
    Matrix out(dtype, count, q.cols(), 2);
    const Result got = attention_gradients(device, kSegments, h, q, selected ? &rows : nullptr, k, v, grad, out);
    const std::vector<double> stored = all_values(out);
    const Gradients want = dtype == IX_BF16 ? gradients_of(p, &stored) : exact;
    check_within((what + " q").c_str(), got.q, want.q);
    check_within((what + " k").c_str(), got.k, want.k);
    check_within((what + " v").c_str(), got.v, want.v);
  });
}

}  // namespace

TEST(backward_attention_formulas) {
  Random random(400);
  Problem p = {{{0, 3, -1}, {3, 2, 0}, {5, 1, 0}, {6, 2, -1}}, {0, 2, 3, 4, 5, 7}, {4, 2, 3}, 0.5, {}, {}, {}, {}};
  const auto fill = [&](std::vector<double>& values, size_t count) {
    for (size_t i = 0; i < count; ++i) values.push_back(random.uniform(-1, 1));
  };
  fill(p.q, p.rows.size() * p.q_width());
  fill(p.grad, p.q.size());
  fill(p.k, 8 * p.kv_width());
  fill(p.v, 8 * p.kv_width());
  const Gradients g = gradients_of(p, nullptr);
  std::vector<double> x, gradient;
  for (const auto* part : {&p.q, &p.k, &p.v}) x.insert(x.end(), part->begin(), part->end());
  for (const auto* part : {&g.q, &g.k, &g.v}) gradient.insert(gradient.end(), part->value.begin(), part->value.end());
  const auto value = [&](const std::vector<double>& all) {
    Problem moved = p;
    auto from = all.begin();
    for (auto* part : {&moved.q, &moved.k, &moved.v})
      for (double& number : *part) number = *from++;
    return value_of(moved);
  };
  check_differences("attention", value, x, gradient, 401);
}

TEST(backward_attention_accuracy) {
  uint64_t seed = 410;
  const Heads shapes[] = {{2, 1, 16}, {4, 2, 20}, {3, 3, 64}, {4, 1, 80}, {2, 2, 128}, {1, 1, 1}, {6, 2, 7}};
  for (const Heads& h : shapes)
    for (const int32_t dtype : {IX_F32, IX_BF16})
      for (const bool selected : {false, true}) check_accuracy(h, dtype, 1, selected, ++seed);
}

// Scores of hundreds: weights of exactly 0 and 1.
TEST(backward_attention_extreme_scores) {
  check_accuracy({2, 1, 20}, IX_F32, 8, false, 440);
  check_accuracy({2, 2, 64}, IX_F32, 14, true, 441);
  check_accuracy({2, 1, 64}, IX_BF16, 8, false, 442);
}

// A query's gradient has the same bits whichever rows are asked for with it, and a tree of segments the same whatever
// else is in the batch.
TEST(backward_attention_bits) {
  Random random(450);
  const Heads h = {4, 2, 20};
  for (const int32_t dtype : {IX_F32, IX_BF16}) {
    Matrix q = Matrix::random(random, dtype, kTokens, 80, 2), k = Matrix::random(random, dtype, kTokens, 40, 2),
           v = Matrix::random(random, dtype, kTokens, 40, 2), grad = Matrix::random(random, dtype, kTokens, 80, 2);
    std::vector<int32_t> some;
    for (int32_t t = 0; t < kTokens; ++t)
      if (random.below(3) != 0) some.push_back(t);
    const auto rows_of = [&](const Matrix& m, const std::vector<int32_t>& rows) {
      Matrix picked(dtype, static_cast<int64_t>(rows.size()), m.cols());
      for (size_t i = 0; i < rows.size(); ++i)
        for (int64_t c = 0; c < m.cols(); ++c) picked.set(static_cast<int64_t>(i), c, m(rows[i], c));
      return picked;
    };
    for_each_kernels([&](KernelDevice& device) {
      Matrix out(dtype, kTokens, 80);
      const Result all = attention_gradients(device, kSegments, h, q, nullptr, k, v, grad, out);
      Matrix some_q = rows_of(q, some), some_grad = rows_of(grad, some), some_out(dtype, some_q.rows(), 80);
      const Result few = attention_gradients(device, kSegments, h, some_q, &some, k, v, some_grad, some_out);
      for (size_t i = 0; i < some.size(); ++i)
        CHECK(few.q.same_row(static_cast<int64_t>(i), all.q, some[i]), "%s: selected token %d differs",
              dtype_text(dtype), some[i]);
      // The second tree alone.
      std::vector<int32_t> tokens;
      for (int32_t t = 107; t < kTokens; ++t) tokens.push_back(t);
      Matrix q2 = rows_of(q, tokens), k2 = rows_of(k, tokens), v2 = rows_of(v, tokens), grad2 = rows_of(grad, tokens),
             out2(dtype, q2.rows(), 80);
      const Result tree = attention_gradients(device, {{0, 65, -1}, {65, 2, 0}}, h, q2, nullptr, k2, v2, grad2, out2);
      for (int64_t t = 0; t < q2.rows(); ++t)
        CHECK(tree.q.same_row(t, all.q, 107 + t) && tree.k.same_row(t, all.k, 107 + t) &&
                  tree.v.same_row(t, all.v, 107 + t),
              "%s: token %d differs when its tree is alone", dtype_text(dtype), int(t));
    });
  }
}

TEST(backward_attention_refuses_disagreeing_shapes) {
  for_each_kernels([](KernelDevice& device) {
    const Batch batch(device, {{0, 4, -1}});
    const ix_attention shape = {2, 1, 16, 0.25f, 0, 0.0f};
    Matrix q(IX_F32, 4, 32), k(IX_F32, 4, 16), out(IX_F32, 4, 32), short_k(IX_F32, 3, 16), half(IX_BF16, 4, 32),
        q_grad(IX_F32, 4, 32), k_grad(IX_F32, 4, 16), v_grad(IX_F32, 4, 16), strided(IX_F32, 4, 32, 1);
    std::vector<float> lse(8);
    const auto code = [&](ix_mat kk, ix_mat grad, ix_mat qg, ix_mat kg) {
      const ix_mat qv = q.view(), vv = k.view(), ov = out.view(), vg = v_grad.view();
      return device.attempt(&ix_backend::attention_backward, batch.get(), &shape, &qv, nullptr, &kk, &vv, &ov,
                            lse.data(), &grad, &qg, &kg, &vg);
    };
    CHECK(code(k.view(), out.view(), q_grad.view(), k_grad.view()) == IX_OK, "the right shapes");
    CHECK(code(short_k.view(), out.view(), q_grad.view(), k_grad.view()) == IX_INVALID, "too few keys");
    CHECK(code(k.view(), half.view(), q_grad.view(), k_grad.view()) == IX_INVALID, "other dtype");
    CHECK(code(k.view(), strided.view(), q_grad.view(), k_grad.view()) == IX_INVALID, "other stride");
    CHECK(code(k.view(), out.view(), half.view(), k_grad.view()) == IX_INVALID, "other gradient of q");
    CHECK(code(k.view(), out.view(), q_grad.view(), short_k.view()) == IX_INVALID, "other gradient of k");
  });
}

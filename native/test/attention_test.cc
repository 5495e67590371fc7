// Ragged attention: accuracy against double for many head sizes and groupings; the same bits however a sequence is
// split and wherever it lies.
#include "reference.h"

using namespace implex;
using namespace implex::test;

namespace {

struct Heads {
  int32_t heads, kv_heads, head_dim;
  int32_t window = 0;
  double cap = 0;
};

// Token i of `segments` sees its parent's tokens and its own segment's up to itself, the last `window` of them.
std::vector<int32_t> visible_tokens(const std::vector<ix_segment>& segments, const ix_segment& own, int32_t token,
                                    int32_t window) {
  std::vector<int32_t> tokens;
  if (own.parent >= 0) {
    const ix_segment& parent = segments[static_cast<size_t>(own.parent)];
    for (int32_t i = 0; i < parent.length; ++i) tokens.push_back(parent.start + i);
  }
  for (int32_t i = own.start; i <= token; ++i) tokens.push_back(i);
  if (window > 0 && static_cast<int32_t>(tokens.size()) > window) tokens.erase(tokens.begin(), tokens.end() - window);
  return tokens;
}

struct Inputs {
  Matrix q, k, v;
};

Inputs random_inputs(Random& random, int32_t dtype, int64_t tokens, const Heads& h, double scale) {
  return {Matrix::random(random, dtype, tokens, h.heads * h.head_dim, scale, 3),
          Matrix::random(random, dtype, tokens, h.kv_heads * h.head_dim, scale, 1),
          Matrix::random(random, dtype, tokens, h.kv_heads * h.head_dim, 2, 1)};
}

Matrix attend(KernelDevice& device, const std::vector<ix_segment>& segments, const Heads& h, Inputs& in,
              const std::vector<int32_t>* rows = nullptr) {
  const Batch batch(device, segments);
  const ix_attention shape = {h.heads,    h.kv_heads,
                              h.head_dim, static_cast<float>(1 / std::sqrt(static_cast<double>(h.head_dim))),
                              h.window,   static_cast<float>(h.cap)};
  const int64_t count = rows ? static_cast<int64_t>(rows->size()) : in.q.rows();
  Matrix q(in.q.dtype(), count, in.q.cols(), 3), out(in.q.dtype(), count, in.q.cols(), 2);
  for (int64_t i = 0; i < count; ++i)
    for (int64_t c = 0; c < q.cols(); ++c) q.set(i, c, in.q(rows ? (*rows)[static_cast<size_t>(i)] : i, c));
  const ix_mat q_view = q.view();
  const ix_mat k_view = in.k.view();
  const ix_mat v_view = in.v.view();
  const ix_mat out_view = out.view();
  device.call(&ix_backend::attention, batch.get(), &shape, &q_view, rows ? rows->data() : nullptr, &k_view, &v_view,
              &out_view, nullptr);
  CHECK(out.intact(), "attention wrote between rows");
  return out;
}

void check_accuracy(const Heads& h, int32_t dtype, double scale, uint64_t seed) {
  Random random(seed);
  // Lengths around the blocks of 32 queries and 64 keys, a shared prompt, a lone token.
  const std::vector<ix_segment> segments = {{0, 61, -1},  {61, 1, 0},    {62, 4, 0}, {66, 40, 0},
                                            {106, 1, -1}, {107, 65, -1}, {172, 2, 5}};
  Inputs in = random_inputs(random, dtype, 174, h, scale);
  const double softmax_scale = static_cast<double>(static_cast<float>(1 / std::sqrt(static_cast<double>(h.head_dim))));
  const int32_t group = h.heads / h.kv_heads;
  std::vector<double> want(static_cast<size_t>(in.q.rows() * in.q.cols())), bound(want.size());
  for (const ix_segment& own : segments) {
    for (int32_t token = own.start; token < own.start + own.length; ++token) {
      const std::vector<int32_t> keys = visible_tokens(segments, own, token, h.window);
      for (int32_t head = 0; head < h.heads; ++head) {
        const int64_t kv = static_cast<int64_t>(head / group) * h.head_dim;
        std::vector<double> scores;
        double top = -1e300, slack = 0, largest = 0, total = 0;
        for (const int32_t key : keys) {
          double sum = 0, magnitude = 0;
          for (int32_t d = 0; d < h.head_dim; ++d) {
            const double product = in.q(token, head * h.head_dim + d) * in.k(key, kv + d) * softmax_scale;
            sum += product;
            magnitude += std::fabs(product);
            largest = std::max(largest, std::fabs(in.v(key, kv + d)));
          }
          if (h.cap > 0) sum = h.cap * std::tanh(sum / h.cap);
          scores.push_back(sum);
          top = std::max(top, sum);
          // A cap shrinks errors, and adds that of its own tanh.
          slack = std::max(slack, static_cast<double>(h.head_dim + 3) * kU * magnitude + 1.5e-7 * h.cap);
        }
        for (double& score : scores) total += score = std::exp(score - top);
        for (int32_t d = 0; d < h.head_dim; ++d) {
          double y = 0;
          for (size_t i = 0; i < keys.size(); ++i) y += scores[i] / total * in.v(keys[i], kv + d);
          const auto at = static_cast<size_t>(token * in.q.cols() + head * h.head_dim + d);
          want[at] = y;
          // Scores are off by at most `slack`, so weights by a factor e^(2 slack) of each other; a chain of one
          // multiply-add per key and a rescaling per block for numerator and denominator.
          bound[at] =
              1.01 * largest * (4 * slack + (2 * static_cast<double>(keys.size()) + 64) * kU) + output_bound(dtype, y);
        }
      }
    }
  }
  for_each_kernels([&](KernelDevice& device) {
    const Matrix out = attend(device, segments, h, in);
    for (int64_t row = 0; row < out.rows(); ++row) {
      for (int64_t c = 0; c < out.cols(); ++c) {
        const auto at = static_cast<size_t>(row * out.cols() + c);
        CHECK(std::fabs(out(row, c) - want[at]) <= bound[at],
              "%s heads %d/%d of %d, token %d column %d: %.9g, want %.9g, allowed %.3g", dtype_text(dtype), h.heads,
              h.kv_heads, h.head_dim, int(row), int(c), out(row, c), want[at], bound[at]);
      }
    }
  });
}

}  // namespace

TEST(attention_accuracy) {
  uint64_t seed = 40;
  const Heads shapes[] = {{1, 1, 16},  {2, 1, 20}, {4, 1, 64},  {8, 1, 80}, {4, 2, 96}, {2, 2, 128},
                          {4, 2, 256}, {8, 2, 16}, {16, 2, 20}, {3, 3, 64}, {1, 1, 1},  {2, 1, 7}};
  for (const Heads& h : shapes)
    for (const int32_t dtype : {IX_F32, IX_BF16}) check_accuracy(h, dtype, 1, ++seed);
}

// Scores of hundreds: the running softmax must rescale by factors that vanish, and must not overflow.
// Windows shorter than, equal to and longer than a block of keys and than the sequences, reaching into the parent; caps
// that bite.
TEST(attention_windows_and_caps) {
  uint64_t seed = 60;
  for (const int32_t window : {1, 5, 63, 64, 65, 90, 200})
    for (const int32_t dtype : {IX_F32, IX_BF16}) check_accuracy({4, 2, 20, window}, dtype, 1, ++seed);
  for (const double cap : {0.5, 2.0, 50.0})
    for (const int32_t dtype : {IX_F32, IX_BF16}) check_accuracy({4, 2, 64, 0, cap}, dtype, 4, ++seed);
  check_accuracy({2, 1, 80, 24, 2.0}, IX_F32, 4, 99);
}

TEST(attention_extreme_scores) {
  check_accuracy({2, 1, 20}, IX_F32, 8, 70);
  check_accuracy({2, 2, 64}, IX_F32, 14, 71);
  check_accuracy({2, 1, 64}, IX_BF16, 8, 72);
}

TEST(attention_split_anywhere) {
  Random random(80);
  constexpr int32_t kLength = 150;
  for (const Heads& h : {Heads{4, 2, 20}, Heads{2, 1, 64}, Heads{4, 2, 20, 17}, Heads{2, 1, 20, 64, 1.5}}) {
    for (const int32_t dtype : {IX_F32, IX_BF16}) {
      Inputs in = random_inputs(random, dtype, kLength, h, 2);
      for_each_kernels([&](KernelDevice& device) {
        const Matrix whole = attend(device, {{0, kLength, -1}}, h, in);
        for (int32_t split = 1; split < kLength; ++split) {
          const Matrix parts = attend(device, {{0, split, -1}, {split, kLength - split, 0}}, h, in);
          for (int32_t row = 0; row < kLength; ++row)
            CHECK(parts.same_row(row, whole, row), "%s head size %d split at %d: token %d differs", dtype_text(dtype),
                  h.head_dim, split, row);
        }
      });
    }
  }
}

// One prompt, several responses: each as if it stood alone after the prompt, in any order of the responses, with other
// sequences around them.
TEST(attention_shared_prompt) {
  Random random(81);
  const Heads h = {4, 2, 20};
  const int32_t prompt = 75;
  const std::vector<int32_t> lengths = {1, 70, 20, 33};
  for (const int32_t dtype : {IX_F32, IX_BF16}) {
    Inputs base = random_inputs(random, dtype, prompt + 1 + 70 + 20 + 33 + 50, h, 2);
    const std::vector<int32_t> starts = {prompt, prompt + 1, prompt + 71, prompt + 91};
    const auto copy_rows = [&](const std::vector<int32_t>& tokens) {
      Inputs in = {Matrix(dtype, static_cast<int64_t>(tokens.size()), base.q.cols()),
                   Matrix(dtype, static_cast<int64_t>(tokens.size()), base.k.cols()),
                   Matrix(dtype, static_cast<int64_t>(tokens.size()), base.v.cols())};
      for (size_t i = 0; i < tokens.size(); ++i) {
        const auto to = static_cast<int64_t>(i);
        for (int64_t c = 0; c < base.q.cols(); ++c) in.q.set(to, c, base.q(tokens[i], c));
        for (int64_t c = 0; c < base.k.cols(); ++c)
          in.k.set(to, c, base.k(tokens[i], c)), in.v.set(to, c, base.v(tokens[i], c));
      }
      return in;
    };
    const auto append = [](std::vector<int32_t>& tokens, int32_t first, int32_t count) {
      for (int32_t i = 0; i < count; ++i) tokens.push_back(first + i);
    };
    for_each_kernels([&](KernelDevice& device) {
      std::vector<Matrix> alone;
      for (size_t r = 0; r < lengths.size(); ++r) {
        std::vector<int32_t> tokens;
        append(tokens, 0, prompt);
        append(tokens, starts[r], lengths[r]);
        Inputs in = copy_rows(tokens);
        alone.push_back(attend(device, {{0, prompt + lengths[r], -1}}, h, in));
      }
      std::vector<size_t> order = {0, 1, 2, 3};
      for (int round = 0; round < 6; ++round) {
        random.shuffle(order);
        std::vector<int32_t> tokens;
        std::vector<ix_segment> segments;
        const int32_t before = static_cast<int32_t>(random.below(40)) + 1;  // a stranger in front
        append(tokens, prompt + 124, before);
        segments.push_back({0, before, -1});
        append(tokens, 0, prompt);
        segments.push_back({before, prompt, -1});
        for (const size_t r : order) {
          segments.push_back({static_cast<int32_t>(tokens.size()), lengths[r], 1});
          append(tokens, starts[r], lengths[r]);
        }
        Inputs in = copy_rows(tokens);
        const Matrix out = attend(device, segments, h, in);
        for (size_t i = 0; i < order.size(); ++i) {
          const ix_segment& segment = segments[i + 2];
          for (int32_t t = 0; t < prompt; ++t)
            CHECK(out.same_row(before + t, alone[order[i]], t), "prompt token %d", t);
          for (int32_t t = 0; t < segment.length; ++t)
            CHECK(out.same_row(segment.start + t, alone[order[i]], prompt + t), "%s response %d token %d",
                  dtype_text(dtype), int(order[i]), t);
        }
        // Only some query rows, as the last layer asks.
        std::vector<int32_t> some;
        for (int32_t t = 0; t < static_cast<int32_t>(tokens.size()); ++t)
          if (random.below(3) == 0) some.push_back(t);
        const Matrix few = attend(device, segments, h, in, &some);
        for (size_t i = 0; i < some.size(); ++i)
          CHECK(few.same_row(static_cast<int64_t>(i), out, some[i]), "selected token %d differs", some[i]);
      }
    });
  }
}

TEST(attention_refuses_disagreeing_shapes) {
  for_each_kernels([](KernelDevice& device) {
    const Batch batch(device, {{0, 4, -1}});
    Matrix q(IX_F32, 4, 32), k(IX_F32, 4, 16), v(IX_F32, 4, 16), out(IX_F32, 4, 32), short_k(IX_F32, 3, 16),
        half(IX_BF16, 4, 16);
    const auto code = [&](ix_attention shape, ix_mat kk, ix_mat vv) {
      const ix_mat qv = q.view();
      const ix_mat ov = out.view();
      return device.attempt(&ix_backend::attention, batch.get(), &shape, &qv, nullptr, &kk, &vv, &ov, nullptr);
    };
    CHECK(code({2, 1, 16, 0.25f, 0, 0.0f}, k.view(), v.view()) == IX_OK, "the right shapes");
    CHECK(code({2, 0, 16, 0.25f, 0, 0.0f}, k.view(), v.view()) == IX_INVALID, "no key heads");
    CHECK(code({3, 2, 16, 0.25f, 0, 0.0f}, k.view(), v.view()) == IX_INVALID, "key heads that do not divide");
    CHECK(code({2, 1, 8, 0.25f, 0, 0.0f}, k.view(), v.view()) == IX_INVALID, "other head size");
    CHECK(code({2, 1, 16, 0.25f, 0, 0.0f}, short_k.view(), v.view()) == IX_INVALID, "too few keys");
    CHECK(code({2, 1, 16, 0.25f, 0, 0.0f}, k.view(), half.view()) == IX_INVALID, "other dtype");
  });
}

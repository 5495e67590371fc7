// Ragged attention, forward and backward: head sizes, grouped heads, shared prompts, selected rows, any split.
#include <numeric>

#include "parity/placed.h"

using namespace implex;
using namespace implex::test;

namespace {

struct Heads {
  int32_t heads, kv_heads, head_dim;
  int32_t window = 0;
  float cap = 0;
};
constexpr Heads kHeads[] = {{4, 2, 64},  {3, 3, 80}, {2, 1, 96}, {6, 2, 128},
                            {2, 2, 256}, {3, 1, 48}, {8, 1, 16}, {1, 1, 7}};

// Windows within, of and beyond a block of 32 or 64 keys, which leave whole blocks of kSegments out and reach into its
// prompts; caps as large as the scores' spread, and larger.
constexpr Heads kLimited[] = {{4, 2, 64, 17},       {4, 2, 64, 100, 2}, {3, 3, 80, 64, 1.5f}, {2, 1, 96, 70},
                              {6, 2, 128, 0, 0.5f}, {2, 1, 128, 128},   {2, 2, 256, 32, 30},  {3, 1, 48, 33, 1.5f},
                              {8, 1, 16, 1},        {1, 1, 7, 65, 2}};

// Lengths around blocks of 64 and 128, a shared prompt with responses, lone tokens, a long sequence of its own.
const std::vector<ix_segment> kSegments = {{0, 131, -1}, {131, 1, 0},    {132, 64, 0}, {196, 40, 0},
                                           {236, 1, -1}, {237, 129, -1}, {366, 2, 5}};
constexpr int64_t kTokens = 368;

struct Inputs {
  Heads h;
  int32_t dtype;
  Matrix q, k, v, grad;
};

Inputs random_inputs(Random& random, int32_t dtype, int64_t tokens, const Heads& h, double scale) {
  return {h,
          dtype,
          random_matrix(random, dtype, tokens, h.heads * h.head_dim, scale, 3),
          random_matrix(random, dtype, tokens, h.kv_heads * h.head_dim, scale, 1),
          random_matrix(random, dtype, tokens, h.kv_heads * h.head_dim, 2, 1),
          random_matrix(random, dtype, tokens, h.heads * h.head_dim, 1, 3)};
}

// Tokens of another batch: keys and values follow, as queries and gradients do.
Inputs pick_tokens(const Inputs& in, const std::vector<int32_t>& tokens) {
  return {in.h, in.dtype, pick(in.q, tokens), pick(in.k, tokens), pick(in.v, tokens), pick(in.grad, tokens)};
}

std::string heads_text(const Inputs& in) {
  return text("%s %d/%d of %d, window %d, cap %g", dtype_text(in.dtype), in.h.heads, in.h.kv_heads, in.h.head_dim,
              in.h.window, static_cast<double>(in.h.cap));
}

ix_attention shape_of(const Heads& h) {
  return {h.heads,  h.kv_heads, h.head_dim, static_cast<float>(1 / std::sqrt(static_cast<double>(h.head_dim))),
          h.window, h.cap};
}

// `rows`: the query rows, null for all.
Outputs run_forward(Device& d, const Inputs& in, const std::vector<ix_segment>& segments,
                    const std::vector<int32_t>* rows, bool with_lse) {
  const Matrix queries = rows ? pick(in.q, *rows) : in.q;
  const DeviceBatch batch(d, segments);
  const Placed q(d, queries), k(d, in.k), v(d, in.v);
  const Ids ids(d, rows ? *rows : std::vector<int32_t>{0});
  const Result out(d, in.dtype, queries.rows(), queries.cols(), 2), lse(d, IX_F32, queries.rows(), in.h.heads);
  const ix_attention shape = shape_of(in.h);
  d.call(&ix_backend::attention, static_cast<const ix_batch*>(batch.get()), &shape, q.mat(),
         rows ? ids.get() : no_rows(), k.mat(), v.mat(), out.mat(), with_lse ? lse.floats() : nullptr);
  Outputs outputs = {{"out", out.read()}};
  if (with_lse) outputs.push_back({"lse", lse.read()});
  return outputs;
}

// With the given results of the forward pass.
Outputs run_backward(Device& d, const Inputs& in, const std::vector<ix_segment>& segments,
                     const std::vector<int32_t>* rows, const Outputs& forward) {
  const Matrix queries = rows ? pick(in.q, *rows) : in.q, grads = rows ? pick(in.grad, *rows) : in.grad;
  // The gradient's rows lie as the output's do.
  Matrix grad_values(in.dtype, grads.rows(), grads.cols(), gap(2));
  for (int64_t r = 0; r < grads.rows(); ++r)
    for (int64_t c = 0; c < grads.cols(); ++c) grad_values.set(r, c, grads(r, c));
  const DeviceBatch batch(d, segments);
  const Placed q(d, queries), k(d, in.k), v(d, in.v), grad(d, grad_values), out(d, forward[0].values),
      lse(d, forward[1].values);
  const Ids ids(d, rows ? *rows : std::vector<int32_t>{0});
  const Result q_grad(d, in.dtype, queries.rows(), queries.cols(), 3), k_grad(d, in.dtype, in.k.rows(), in.k.cols(), 1),
      v_grad(d, in.dtype, in.v.rows(), in.v.cols(), 1);
  const ix_attention shape = shape_of(in.h);
  d.call(&ix_backend::attention_backward, static_cast<const ix_batch*>(batch.get()), &shape, q.mat(),
         rows ? ids.get() : no_rows(), k.mat(), v.mat(), out.mat(), lse.const_floats(), grad.mat(), q_grad.mat(),
         k_grad.mat(), v_grad.mat());
  return {{"q_grad", q_grad.read()}, {"k_grad", k_grad.read()}, {"v_grad", v_grad.read()}};
}

std::vector<int32_t> every_third(int64_t tokens) {
  std::vector<int32_t> rows;
  for (int32_t t = 2; t < tokens; t += 3) rows.push_back(t);
  return rows;
}

void same_rows(const std::string& what, const Outputs& a, int64_t row_a, const Outputs& b, int64_t row_b,
               size_t output) {
  CHECK(a[output].values.same_row(row_a, b[output].values, row_b), "%s, %s: token %lld has other bits", what.c_str(),
        b[output].name.c_str(), (long long)row_b);
}

}  // namespace

PARITY(attention, values) {
  Random random(401);
  for (const int32_t dtype : {IX_F32, IX_BF16}) {
    for (const Heads& h : kHeads) {
      for (const double scale : {1.0, 6.0}) {  // 6: scores of tens to hundreds
        const Inputs in = random_inputs(random, dtype, kTokens, h, scale);
        const std::string what = heads_text(in) + text(", scale %g", scale);
        // Scores of hundreds carry their own rounding into the softmax.
        const Tolerance tolerance = dtype == IX_BF16 ? kBf16Terms : scale > 1 ? kF32Gradient : kF32;
        const std::vector<int32_t> some = every_third(kTokens);
        lab.check(what, tolerance,
                  [&](Device& d) -> Outputs { return {run_forward(d, in, kSegments, nullptr, true)[0]}; });
        // Log-sum-exps stay f32.
        lab.check(what + ", lse", kF32,
                  [&](Device& d) -> Outputs { return {run_forward(d, in, kSegments, nullptr, true)[1]}; });
        lab.check(what + ", some rows", tolerance,
                  [&](Device& d) { return run_forward(d, in, kSegments, &some, false); });
      }
    }
  }
}

PARITY(attention, windows_and_caps) {
  Random random(406);
  for (const int32_t dtype : {IX_F32, IX_BF16}) {
    for (const Heads& h : kLimited) {
      const Inputs in = random_inputs(random, dtype, kTokens, h, 3);
      const Tolerance tolerance = dtype == IX_BF16 ? kBf16Terms : kF32;
      const std::vector<int32_t> some = every_third(kTokens);
      lab.check(heads_text(in), tolerance,
                [&](Device& d) -> Outputs { return {run_forward(d, in, kSegments, nullptr, true)[0]}; });
      lab.check(heads_text(in) + ", lse", kF32,
                [&](Device& d) -> Outputs { return {run_forward(d, in, kSegments, nullptr, true)[1]}; });
      lab.check(heads_text(in) + ", some rows", tolerance,
                [&](Device& d) { return run_forward(d, in, kSegments, &some, false); });
    }
  }
}

// Selected rows have the bits they have among all.
PARITY(attention, rows) {
  Random random(402);
  for (const int32_t dtype : {IX_F32, IX_BF16}) {
    for (const Heads& h : {Heads{4, 2, 64}, {2, 1, 48}, {2, 2, 128}, {4, 2, 64, 50, 2}, {2, 1, 48, 17, 2}}) {
      const Inputs in = random_inputs(random, dtype, kTokens, h, 2);
      lab.check_rows(heads_text(in), kTokens, [&](Device& d, const std::vector<int32_t>& rows) {
        return run_forward(d, in, kSegments, &rows, true);
      });
    }
  }
}

// A sequence split into prompt and response anywhere, and prompts shared by responses in any order and with strangers
// before them: the bits of the sequence alone.
PARITY(attention, shared_prompt) {
  Random random(403);
  for (const int32_t dtype : {IX_F32, IX_BF16}) {
    for (const Heads& h : {Heads{4, 2, 64}, {2, 1, 80}, {1, 1, 256}, {2, 1, 64, 70, 2}, {1, 1, 256, 40}}) {
      const Inputs in = random_inputs(random, dtype, 400, h, 2);
      std::vector<int32_t> tokens(400);
      std::iota(tokens.begin(), tokens.end(), 0);
      const Outputs whole = run_forward(lab.subject(), in, {{0, 400, -1}}, nullptr, true);
      for (const int32_t split : {1, 31, 63, 64, 65, 127, 128, 129, 300, 399}) {
        const Outputs parts = run_forward(lab.subject(), in, {{0, split, -1}, {split, 400 - split, 0}}, nullptr, true);
        for (const int32_t row : tokens)
          for (size_t o = 0; o < 2; ++o)
            same_rows(heads_text(in) + text(" split at %d", split), whole, row, parts, row, o);
      }
      // Prompt [0, 131), responses [131, 231), [231, 232), [232, 400) of it, in another order behind a stranger.
      const auto range = [](std::vector<int32_t>& to, int32_t first, int32_t last) {
        for (int32_t t = first; t < last; ++t) to.push_back(t);
      };
      std::vector<int32_t> order;
      range(order, 140, 177), range(order, 0, 131), range(order, 232, 400), range(order, 131, 231),
          range(order, 231, 232);
      const std::vector<ix_segment> segments = {{0, 37, -1}, {37, 131, -1}, {168, 168, 1}, {336, 100, 1}, {436, 1, 1}};
      const Outputs shared = run_forward(lab.subject(), pick_tokens(in, order), segments, nullptr, true);
      const std::pair<int32_t, int32_t> responses[] = {{131, 231}, {231, 232}, {232, 400}};
      const int32_t at[] = {336, 436, 168};
      for (size_t r = 0; r < 3; ++r) {
        std::vector<int32_t> alone;
        range(alone, 0, 131), range(alone, responses[r].first, responses[r].second);
        const auto length = static_cast<int32_t>(alone.size());
        const Outputs own = run_forward(lab.subject(), pick_tokens(in, alone), {{0, length, -1}}, nullptr, true);
        for (int32_t t = 0; t < length; ++t)
          for (size_t o = 0; o < 2; ++o)
            same_rows(heads_text(in) + text(", response %d", static_cast<int>(r)), own, t, shared,
                      t < 131 ? 37 + t : at[r] + t - 131, o);
      }
    }
  }
}

PARITY(attention, refuses) {
  const Matrix q(IX_F32, 4, 32), k(IX_F32, 4, 16), short_k(IX_F32, 3, 16), half(IX_BF16, 4, 16);
  Device& d = lab.subject();
  const DeviceBatch batch(d, {{0, 4, -1}});
  const Placed x(d, q), y(d, k), few(d, short_k), narrow(d, half);
  const auto code = [&](ix_attention shape, const ix_mat* keys, const ix_mat* values) {
    const Result out(d, IX_F32, 4, 32);
    ix_status status = {};
    const int32_t found = d.table()->attention(d.handle(), batch.get(), &shape, x.mat(), nullptr, keys, values,
                                               out.mat(), nullptr, &status);
    CHECK(found == IX_OK || (status.code == found && status.message[0] != '\0'), "a refusal must say why");
    return found;
  };
  CHECK(code({2, 1, 16, 0.25f, 0, 0.0f}, y.mat(), y.mat()) == IX_OK, "the right shapes");
  CHECK(code({2, 1, 16, 0.25f, 3, 2.0f}, y.mat(), y.mat()) == IX_OK, "a window and a cap");
  CHECK(code({2, 1, 16, 0.25f, -1, 0.0f}, y.mat(), y.mat()) == IX_INVALID, "a negative window");
  CHECK(code({2, 1, 16, 0.25f, 0, -1.0f}, y.mat(), y.mat()) == IX_INVALID, "a negative cap");
  CHECK(code({2, 0, 16, 0.25f, 0, 0.0f}, y.mat(), y.mat()) == IX_INVALID, "no key heads");
  CHECK(code({3, 2, 16, 0.25f, 0, 0.0f}, y.mat(), y.mat()) == IX_INVALID, "key heads that do not divide");
  CHECK(code({2, 1, 8, 0.25f, 0, 0.0f}, y.mat(), y.mat()) == IX_INVALID, "another head size");
  CHECK(code({2, 1, 16, 0.25f, 0, 0.0f}, few.mat(), y.mat()) == IX_INVALID, "too few keys");
  CHECK(code({2, 1, 16, 0.25f, 0, 0.0f}, y.mat(), narrow.mat()) == IX_INVALID, "another dtype");
  CHECK(code({2, 1, 16, 0.25f, 0, 0.0f}, y.mat(), y.mat()) == IX_OK, "usable after refusals");
}

// Results of the forward pass are the CPU's on both sides.
PARITY(attention_backward, values) {
  Random random(404);
  for (const int32_t dtype : {IX_F32, IX_BF16}) {
    for (const Heads& h : kHeads) {
      const Inputs in = random_inputs(random, dtype, kTokens, h, 1.5);
      const std::vector<int32_t> some = every_third(kTokens);
      const Tolerance tolerance = dtype == IX_F32 ? kF32Gradient : kBf16Terms;
      for (const std::vector<int32_t>* rows : {static_cast<const std::vector<int32_t>*>(nullptr), &some}) {
        const Outputs forward = run_forward(lab.reference(), in, kSegments, rows, true);
        lab.check(heads_text(in) + (rows ? ", some rows" : ""), tolerance,
                  [&](Device& d) { return run_backward(d, in, kSegments, rows, forward); });
      }
    }
  }
}

PARITY(attention_backward, windows_and_caps) {
  Random random(407);
  for (const int32_t dtype : {IX_F32, IX_BF16}) {
    for (const Heads& h : kLimited) {
      if (h.window == 1) continue;  // one key has the weight 1 whatever its score: rounding has no scale there
      const Inputs in = random_inputs(random, dtype, kTokens, h, 1.5);
      const std::vector<int32_t> some = every_third(kTokens);
      const Tolerance tolerance = dtype == IX_F32 ? kF32Gradient : kBf16Terms;
      for (const std::vector<int32_t>* rows : {static_cast<const std::vector<int32_t>*>(nullptr), &some}) {
        const Outputs forward = run_forward(lab.reference(), in, kSegments, rows, true);
        lab.check(heads_text(in) + (rows ? ", some rows" : ""), tolerance,
                  [&](Device& d) { return run_backward(d, in, kSegments, rows, forward); });
      }
    }
  }
}

// Gradients of a sequence with strangers around it, and alone; of a response's own tokens with other responses, and
// without.
PARITY(attention_backward, rows) {
  Random random(405);
  for (const int32_t dtype : {IX_F32, IX_BF16}) {
    for (const Heads& h : {Heads{4, 2, 64}, {2, 1, 48}, {2, 2, 128}, {4, 2, 64, 50, 2}, {2, 1, 48, 17, 2}}) {
      const Inputs in = random_inputs(random, dtype, kTokens, h, 1.5);
      Device& d = lab.subject();
      const Outputs whole = run_backward(d, in, kSegments, nullptr, run_forward(d, in, kSegments, nullptr, true));
      const auto compare = [&](const char* what, const std::vector<int32_t>& tokens,
                               const std::vector<ix_segment>& segments, size_t first_compared) {
        const Inputs part = pick_tokens(in, tokens);
        const Outputs alone = run_backward(d, part, segments, nullptr, run_forward(d, part, segments, nullptr, true));
        for (size_t i = first_compared; i < tokens.size(); ++i)
          for (size_t o = 0; o < 3; ++o)
            same_rows(heads_text(in) + ", " + what, alone, static_cast<int64_t>(i), whole, tokens[i], o);
      };
      std::vector<int32_t> tokens;
      for (int32_t t = 237; t < 368; ++t) tokens.push_back(t);
      compare("a tree alone", tokens, {{0, 129, -1}, {129, 2, 0}}, 0);
      tokens.clear();
      for (int32_t t = 0; t < 131; ++t) tokens.push_back(t);
      for (int32_t t = 132; t < 196; ++t) tokens.push_back(t);
      compare("one response", tokens, {{0, 131, -1}, {131, 64, 0}}, 131);
    }
  }
}

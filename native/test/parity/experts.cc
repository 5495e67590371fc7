// Mixtures of experts: the choice, the weighted sum, and both backward.
#include <bit>
#include <numeric>

#include "parity/placed.h"

using namespace implex;
using namespace implex::test;

namespace {

struct Router {
  int32_t all, count, normalize;
};
// As published: 8 of 2 (Mixtral), 128 of 8 and 60 of 4 (Qwen); all of them, one, and more than a warp has lanes.
constexpr Router kRouters[] = {{8, 2, 1}, {128, 8, 1}, {60, 4, 0}, {3, 3, 0}, {1, 1, 0}, {77, 40, 1}, {512, 10, 0}};

std::string router_text(const Router& r) { return text("%d of %d, normalize %d", r.count, r.all, r.normalize); }

// Some rows with equal logits, and some so far apart that most weights vanish.
Matrix random_logits(Random& random, int64_t rows, const Router& r) {
  Matrix logits = random_matrix(random, IX_F32, rows, r.all, 4, 2);
  for (int64_t n = 0; n < rows; n += 5)
    for (int64_t i = 0; i < r.all; ++i) logits.set(n, i, n % 2 == 0 ? static_cast<double>(i % 3) : 60.0 * (i % 7));
  return logits;
}

// The values of whole numbers that an operation left where floats would be.
Matrix numbers_of(const Matrix& bits) {
  Matrix m(IX_F32, bits.rows(), bits.cols());
  for (int64_t r = 0; r < m.rows(); ++r)
    for (int64_t c = 0; c < m.cols(); ++c)
      m.set(r, c, static_cast<double>(std::bit_cast<int32_t>(static_cast<float>(bits(r, c)))));
  return m;
}

Outputs run_choice(Device& d, const Matrix& logits, const Router& r) {
  const Placed z(d, logits);
  const Result experts(d, IX_F32, logits.rows(), r.count), weights(d, IX_F32, logits.rows(), r.count);
  d.call(&ix_backend::top_experts, z.mat(), r.count, r.normalize, reinterpret_cast<int32_t*>(experts.floats()),
         weights.floats());
  return {{"experts", numbers_of(experts.read())}, {"weights", weights.read()}};
}

std::vector<int32_t> ids_of(const Matrix& numbers) {
  std::vector<int32_t> ids;
  for (int64_t r = 0; r < numbers.rows(); ++r)
    for (int64_t c = 0; c < numbers.cols(); ++c) ids.push_back(static_cast<int32_t>(numbers(r, c)));
  return ids;
}

// Every row's places among the experts' outputs, each named once, in no order.
std::vector<int32_t> random_places(Random& random, int64_t count) {
  std::vector<int32_t> places(static_cast<size_t>(count));
  std::iota(places.begin(), places.end(), 0);
  for (size_t i = places.size(); i > 1; --i)
    std::swap(places[i - 1], places[static_cast<size_t>(random.below(static_cast<int64_t>(i)))]);
  return places;
}

struct Mixture {
  int32_t count;
  Matrix in, weights, residual, grad;
  std::vector<int32_t> places;
};

Mixture random_mixture(Random& random, int64_t rows, int32_t count, int64_t width) {
  return {count,
          random_matrix(random, IX_F32, rows * count, width, 1, 3),
          random_matrix(random, IX_F32, rows, count, 0.5),
          random_matrix(random, IX_F32, rows, width, 1, 2),
          random_matrix(random, IX_F32, rows, width, 1, 1),
          random_places(random, rows * count)};
}

// The same rows of tokens, with outputs of their own in another order.
Mixture pick_rows(const Mixture& m, const std::vector<int32_t>& rows) {
  Mixture some = {m.count, Matrix(IX_F32, 0, 0), pick(m.weights, rows), pick(m.residual, rows), pick(m.grad, rows), {}};
  std::vector<int32_t> from;
  for (const int32_t row : rows)
    for (int32_t k = 0; k < m.count; ++k) {
      some.places.push_back(static_cast<int32_t>(from.size()));
      from.push_back(m.places[static_cast<size_t>(row * m.count + k)]);
    }
  some.in = pick(m.in, from);
  return some;
}

Outputs run_combine(Device& d, const Mixture& m, bool with_residual) {
  const Placed in(d, m.in), weights(d, m.weights), residual(d, m.residual);
  const Ids places(d, m.places);
  const Result out(d, IX_F32, m.weights.rows(), m.in.cols(), 1);
  d.call(&ix_backend::combine_experts, in.mat(), places.get(), weights.const_floats(), m.count,
         with_residual ? residual.mat() : none(), out.mat());
  return {{"out", out.read()}};
}

// in_grad by token: row n holds what its places got, one after the other.
Outputs run_parts(Device& d, const Mixture& m, int32_t dtype) {
  const Placed in(d, m.in), weights(d, m.weights), grad(d, m.grad);
  const Ids places(d, m.places);
  const Result in_grad(d, dtype, m.in.rows(), m.in.cols(), 4), weights_grad(d, IX_F32, m.weights.rows(), m.count);
  d.call(&ix_backend::combine_experts_backward, grad.mat(), in.mat(), places.get(), weights.const_floats(), m.count,
         in_grad.mat(), weights_grad.floats());
  const Matrix by_place = in_grad.read();
  CHECK(by_place.intact(), "something wrote between the rows");
  Matrix by_token(dtype, m.weights.rows(), m.count * m.in.cols());
  for (size_t i = 0; i < m.places.size(); ++i) {
    const int64_t row = static_cast<int64_t>(i) / m.count, k = static_cast<int64_t>(i) % m.count;
    for (int64_t c = 0; c < m.in.cols(); ++c) by_token.set(row, k * m.in.cols() + c, by_place(m.places[i], c));
  }
  return {{"in_grad", by_token}, {"weights_grad", weights_grad.read()}};
}

}  // namespace

PARITY(top_experts, values) {
  Random random(801);
  for (const Router& r : kRouters) {
    const Matrix logits = random_logits(random, 67, r);
    lab.check(router_text(r), kExact, [&](Device& d) -> Outputs { return {run_choice(d, logits, r)[0]}; });
    lab.check(router_text(r), kF32, [&](Device& d) -> Outputs { return {run_choice(d, logits, r)[1]}; });
  }
}

PARITY(top_experts, rows) {
  Random random(802);
  for (const Router& r : {Router{64, 6, 1}, {9, 3, 0}}) {
    const Matrix logits = random_logits(random, 201, r);
    lab.check_rows(router_text(r), 201,
                   [&](Device& d, const std::vector<int32_t>& rows) { return run_choice(d, pick(logits, rows), r); });
  }
}

PARITY(top_experts, refuses) {
  Device& d = lab.subject();
  const Matrix logits(IX_F32, 2, 4), half(IX_BF16, 2, 4);
  const Placed z(d, logits), narrow(d, half);
  const Result experts(d, IX_F32, 2, 5), weights(d, IX_F32, 2, 5);
  const auto code = [&](const ix_mat* from, int32_t count) {
    ix_status status = {};
    const int32_t found = d.table()->top_experts(
        d.handle(), from, count, 1, reinterpret_cast<int32_t*>(experts.floats()), weights.floats(), &status);
    CHECK(found == IX_OK || (status.code == found && status.message[0] != '\0'), "a refusal must say why");
    return found;
  };
  CHECK(code(z.mat(), 4) == IX_OK, "all of them");
  CHECK(code(z.mat(), 5) == IX_INVALID, "more than there are");
  CHECK(code(z.mat(), 0) == IX_INVALID, "none");
  CHECK(code(narrow.mat(), 2) == IX_INVALID, "another dtype");
  CHECK(code(z.mat(), 1) == IX_OK, "usable after refusals");
}

// The choice of the CPU on both sides.
PARITY(top_experts_backward, values) {
  Random random(803);
  for (const Router& r : kRouters) {
    if (r.all == 1) continue;  // a certain choice has the gradient 0: rounding has no scale there
    const Matrix logits = random_logits(random, 67, r), grad = random_matrix(random, IX_F32, 67, r.count);
    const std::vector<int32_t> chosen = ids_of(run_choice(lab.reference(), logits, r)[0].values);
    lab.check(router_text(r), kF32Gradient, [&](Device& d) -> Outputs {
      const Placed z(d, logits), g(d, grad);
      const Ids experts(d, chosen);
      const Result out(d, IX_F32, 67, r.all, 3);
      d.call(&ix_backend::top_experts_backward, z.mat(), r.count, r.normalize, experts.get(), g.const_floats(),
             out.mat());
      return {{"logits_grad", out.read()}};
    });
  }
}

PARITY(top_experts_backward, rows) {
  Random random(804);
  for (const Router& r : {Router{64, 6, 1}, {9, 3, 0}}) {
    const Matrix logits = random_logits(random, 201, r), grad = random_matrix(random, IX_F32, 201, r.count);
    lab.check_rows(router_text(r), 201, [&](Device& d, const std::vector<int32_t>& rows) -> Outputs {
      const Matrix some = pick(logits, rows), grads = pick(grad, rows);
      const Placed z(d, some), g(d, grads);
      const Ids experts(d, ids_of(run_choice(d, some, r)[0].values));
      const Result out(d, IX_F32, some.rows(), r.all);
      d.call(&ix_backend::top_experts_backward, z.mat(), r.count, r.normalize, experts.get(), g.const_floats(),
             out.mat());
      return {{"logits_grad", out.read()}};
    });
  }
}

PARITY(combine_experts, values) {
  Random random(805);
  for (const auto& [rows, count, width] : {std::tuple{1, 1, 1}, {33, 2, 127}, {21, 8, 64}, {5, 3, 2052}}) {
    const Mixture m = random_mixture(random, rows, count, width);
    const std::string what = text("%d of %dx%d", count, rows, width);
    lab.check(what, kF32, [&](Device& d) { return run_combine(d, m, true); });
    lab.check(what + " without a residual", kF32, [&](Device& d) { return run_combine(d, m, false); });
    lab.check(what + " into the residual", kF32, [&](Device& d) -> Outputs {
      const Placed in(d, m.in), weights(d, m.weights), out(d, m.residual);
      const Ids places(d, m.places);
      d.call(&ix_backend::combine_experts, in.mat(), places.get(), weights.const_floats(), m.count, out.mat(),
             out.mat());
      return {{"out", out.read()}};
    });
  }
}

PARITY(combine_experts, rows) {
  Random random(806);
  const Mixture m = random_mixture(random, 201, 3, 131);
  lab.check_rows("3 of 131 columns", 201,
                 [&](Device& d, const std::vector<int32_t>& rows) { return run_combine(d, pick_rows(m, rows), true); });
}

PARITY(combine_experts_backward, values) {
  Random random(807);
  for (const int32_t dtype : {IX_F32, IX_BF16}) {
    for (const auto& [rows, count, width] : {std::tuple{1, 1, 1}, {33, 2, 127}, {21, 8, 64}, {5, 3, 2052}}) {
      const Mixture m = random_mixture(random, rows, count, width);
      lab.check(text("%s %d of %dx%d", dtype_text(dtype), count, rows, width), dtype == IX_F32 ? kF32 : kBf16,
                [&](Device& d) -> Outputs { return {run_parts(d, m, dtype)[0]}; });
      lab.check(text("%s %d of %dx%d", dtype_text(dtype), count, rows, width), kF32,
                [&](Device& d) -> Outputs { return {run_parts(d, m, dtype)[1]}; });
    }
  }
}

PARITY(combine_experts_backward, rows) {
  Random random(808);
  for (const int32_t dtype : {IX_F32, IX_BF16}) {
    const Mixture m = random_mixture(random, 201, 3, 131);
    lab.check_rows(dtype_text(dtype), 201, [&](Device& d, const std::vector<int32_t>& rows) {
      return run_parts(d, pick_rows(m, rows), dtype);
    });
  }
}

// The language-model head, forward and backward: the emulated GPU against the CPU, with each set of kernels, for ragged
// rows and vocabularies; a row has the same bits alone and among others.
#include <cstdlib>

#include "support.h"

using namespace implex;
using namespace implex::test;

namespace {

struct Shape {
  int64_t rows, depth, vocabulary;
};

struct Result {
  std::vector<float> logp, lse, weight_grad;
  Matrix hidden_grad;
};

struct Inputs {
  Matrix hidden, weight;
  std::vector<int32_t> targets;
  std::vector<float> grad;
  float cap = 0;
};

Inputs inputs_of(const Shape& s, int32_t dtype, double scale, float cap = 0) {
  Random random(20);
  Inputs in = {Matrix::random(random, dtype, s.rows, s.depth, scale),
               Matrix::random(random, dtype, s.vocabulary, s.depth),
               {},
               random_vector(random, s.rows),
               cap};
  for (int64_t i = 0; i < s.rows; ++i) in.targets.push_back(static_cast<int32_t>(random.below(s.vocabulary)));
  in.targets[0] = static_cast<int32_t>(s.vocabulary - 1);
  in.targets.back() = 0;
  return in;
}

Result run(TableDevice& d, Inputs& in, int64_t first, int64_t count) {
  const int64_t depth = in.hidden.cols(), vocabulary = in.weight.rows();
  Result r = {std::vector<float>(static_cast<size_t>(count)), std::vector<float>(static_cast<size_t>(count)),
              std::vector<float>(static_cast<size_t>(vocabulary * depth), 0.125f), Matrix(IX_F32, count, depth)};
  const TableWeight weight(d, in.hidden.dtype(), in.weight);
  const ix_mat h = in.hidden.view(first, count), g = r.hidden_grad.view();
  d.call(&ix_backend::linear_logprob, &h, weight.get(), in.targets.data() + first, in.cap, r.logp.data(), r.lse.data());
  d.call(&ix_backend::linear_logprob_backward, &h, weight.get(), in.targets.data() + first, in.cap, r.lse.data(),
         in.grad.data() + first, &g, r.weight_grad.data());
  return r;
}

void compare(const Shape& s, int32_t dtype, double scale = 0.3, float cap = 0) {
  Inputs in = inputs_of(s, dtype, scale, cap);
  const auto [want, got] = on_both([&](TableDevice& d) { return run(d, in, 0, s.rows); });
  const std::string what =
      text("%s %lld x %lld x %lld, cap %g: ", dtype_text(dtype), static_cast<long long>(s.rows),
           static_cast<long long>(s.depth), static_cast<long long>(s.vocabulary), static_cast<double>(cap));
  check_close(got.logp, want.logp, 2e-6, what + "logp");
  check_close(got.lse, want.lse, 2e-6, what + "lse");
  check_close(got.hidden_grad, want.hidden_grad, allowed(dtype), what + "hidden_grad");
  check_close(got.weight_grad, want.weight_grad, allowed(dtype), what + "weight_grad");
}

void same_bits_alone(int64_t depth, float cap = 0) {
  TableDevice gpu(emulated_backend());
  Inputs in = inputs_of({300, depth, 1500}, IX_BF16, 0.3, cap);
  const Result all = run(gpu, in, 0, 300);
  for (const auto& [first, count] : {std::pair{0, 1}, std::pair{5, 9}, std::pair{130, 128}, std::pair{257, 43}}) {
    const Result some = run(gpu, in, first, count);
    for (int i = 0; i < count; ++i) {
      CHECK(some.logp[static_cast<size_t>(i)] == all.logp[static_cast<size_t>(first + i)], "row %d of %d", i, count);
      CHECK(some.hidden_grad.same_row(i, all.hidden_grad, first + i), "gradient of row %d of %d", i, count);
    }
  }
}

}  // namespace

TEST(gpu_head_hopper) {
  const Setting card("IMPLEX_EMULATED_CARD", "sm90a");
  compare({5, 64, 300}, IX_BF16);
  compare({128, 72, 1025}, IX_BF16);
  compare({300, 136, 2081}, IX_BF16);
  compare({40, 64, 1300}, IX_BF16, 12);  // logits of +-100
}

// A cap as large as the logits' spread: some are bent a little, some down to the cap.
TEST(gpu_head_hopper_capped) {
  const Setting card("IMPLEX_EMULATED_CARD", "sm90a");
  compare({5, 64, 300}, IX_BF16, 1, 3);
  compare({300, 72, 1283}, IX_BF16, 1, 3);
  compare({9, 64, 300}, IX_BF16, 12, 30);
}

TEST(gpu_head_hopper_same_bits_alone) {
  const Setting card("IMPLEX_EMULATED_CARD", "sm90a");
  same_bits_alone(72);
  same_bits_alone(64, 2);
}

TEST(gpu_head_mma) {
  const Setting card("IMPLEX_EMULATED_CARD", "sm80");
  for (const char* scheme : {"fused", "product"}) {
    const Setting head("IMPLEX_CUDA_HEAD", scheme);
    compare({5, 64, 300}, IX_BF16);
    compare({130, 72, 2081}, IX_BF16);
    compare({40, 64, 1300}, IX_BF16, 12);
    compare({130, 72, 1283}, IX_BF16, 1, 3);
  }
  same_bits_alone(40);
  same_bits_alone(40, 2);
}

TEST(gpu_head_plain) {
  for (const char* scheme : {"fused", "product"}) {
    const Setting head("IMPLEX_CUDA_HEAD", scheme);
    compare({70, 33, 1101}, IX_F32);
    compare({9, 64, 64}, IX_F32);
    compare({70, 33, 1101}, IX_BF16);
    compare({70, 33, 1101}, IX_F32, 1, 3);
    compare({70, 33, 1101}, IX_BF16, 1, 3);
  }
}

// Several blocks of rows and of columns.
TEST(gpu_head_backward_blocks) {
  const Setting workspace("IMPLEX_CUDA_WORKSPACE", "1");
  compare({200, 16, 33001}, IX_BF16);
}

TEST(gpu_head_refuses_caps) {
  TableDevice gpu(emulated_backend());
  Matrix hidden(IX_F32, 2, 8), weight(IX_F32, 5, 8), hidden_grad(IX_F32, 2, 8);
  const TableWeight w(gpu, IX_F32, weight);
  const std::vector<int32_t> targets = {0, 4};
  const std::vector<float> numbers(2);
  std::vector<float> out(2);
  const ix_mat h = hidden.view(), g = hidden_grad.view();
  for (const float cap : {-1.0f, INFINITY, NAN}) {
    CHECK(gpu.attempt(&ix_backend::linear_logprob, &h, w.get(), targets.data(), cap, out.data(),
                      static_cast<float*>(nullptr)) == IX_INVALID,
          "a cap of %g", static_cast<double>(cap));
    CHECK(gpu.attempt(&ix_backend::linear_logprob_backward, &h, w.get(), targets.data(), cap, numbers.data(),
                      numbers.data(), &g, static_cast<float*>(nullptr)) == IX_INVALID,
          "a cap of %g backward", static_cast<double>(cap));
  }
}

TEST(gpu_head_target_outside) {
  TableDevice gpu(emulated_backend());
  Inputs in = inputs_of({3, 64, 200}, IX_BF16, 0.3);
  in.targets[1] = 200;
  const Result r = run(gpu, in, 0, 3);
  CHECK(std::isfinite(r.logp[0]) && std::isnan(r.logp[1]) && std::isfinite(r.logp[2]), "only row 1 has no target");
}

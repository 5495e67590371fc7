// Gradients and whole training steps have the same bits on any number of threads, and whichever thread takes which
// task. The pool is one per process, so this case runs itself again with other sizes and compares hashes.
#include <cstdlib>

#include "core/error.h"
#include "train_support.h"

using namespace implex;
using namespace implex::test;

namespace {

void add(Hash& hash, const Matrix& m) {
  for (int64_t row = 0; row < m.rows(); ++row) hash.add(m.row_bits(row).data(), m.row_bits(row).size());
}
void add(Hash& hash, const std::vector<float>& values) { hash.add(values.data(), values.size() * sizeof(float)); }

// Operations large enough to be split over the pool in many pieces.
uint64_t hash_of_products(int32_t dtype) {
  Random random(1200);
  KernelDevice device(cpu::selected_kernels());
  Hash hash;
  Matrix grad = Matrix::random(random, dtype, 230, 300), in = Matrix::random(random, dtype, 230, 131);
  const Weight weight(device, dtype, Matrix::random(random, dtype, 300, 131), true);
  Matrix out(IX_F32, 230, 131);
  std::vector<float> weight_grad(300 * 131), bias_grad(300);
  const ix_mat grad_view = grad.view(), in_view = in.view(), out_view = out.view();
  device.call(&ix_backend::gemm_backward_input, &grad_view, weight.get(), nullptr, &out_view);
  device.call(&ix_backend::gemm_backward_weight, &grad_view, &in_view, weight_grad.data(), bias_grad.data());
  add(hash, out);
  add(hash, weight_grad);
  add(hash, bias_grad);
  return hash.value();
}

uint64_t hash_of_rows(int32_t dtype) {
  Random random(1210);
  KernelDevice device(cpu::selected_kernels());
  Hash hash;
  Matrix in = Matrix::random(random, dtype, 400, 150), grad = Matrix::random(random, dtype, 400, 150),
         up = Matrix::random(random, dtype, 400, 150), out(dtype, 400, 150), other(dtype, 400, 150),
         table(IX_F32, 40, 150);
  const std::vector<float> gamma = random_vector(random, 150), head = random_vector(random, 150),
                           row_grad = random_vector(random, 400);
  std::vector<float> a(150), b(150), c(150), embedding(40 * 150);
  std::vector<int32_t> ids;
  for (int i = 0; i < 400; ++i) ids.push_back(static_cast<int32_t>(random.below(40)));
  const ix_norm norm = {IX_NORM_LAYER, gamma.data(), head.data(), 1e-5f};
  const ix_mat in_view = in.view(), grad_view = grad.view(), up_view = up.view(), out_view = out.view(),
               other_view = other.view(), table_view = table.view();
  device.call(&ix_backend::norm_backward, &norm, &in_view, &grad_view, &out_view, 0, a.data(), b.data());
  add(hash, out);
  device.call(&ix_backend::glu_backward, int32_t(IX_ACT_GELU), &in_view, &up_view, &grad_view, &out_view, &other_view);
  add(hash, out);
  add(hash, other);
  device.call(&ix_backend::embedding_backward, ids.data(), &grad_view, embedding.data(), int64_t{40});
  device.call(&ix_backend::scatter_rows, &grad_view, ids.data(), &table_view, 0);
  add(hash, table);
  Matrix stream = Matrix::random(random, IX_F32, 400, 150), stream_grad(IX_F32, 400, 150);
  const ix_mat stream_view = stream.view(), stream_grad_view = stream_grad.view();
  device.call(&ix_backend::linear_reward_backward, &norm, &stream_view, head.data(), row_grad.data(), &stream_grad_view,
              a.data(), b.data(), c.data());
  add(hash, stream_grad);
  for (const std::vector<float>* sums : {&a, &b, &c, &embedding}) add(hash, *sums);
  return hash.value();
}

uint64_t hash_of_attention(int32_t dtype) {
  Random random(1220);
  KernelDevice device(cpu::selected_kernels());
  Hash hash;
  const std::vector<ix_segment> segments = {{0, 90, -1},   {90, 40, 0},    {130, 70, 0},
                                            {200, 30, -1}, {230, 100, -1}, {330, 5, 4}};
  const Batch batch(device, segments);
  const ix_attention shape = {4, 2, 20, 0.22f, 0, 0.0f};
  Matrix q = Matrix::random(random, dtype, 335, 80), k = Matrix::random(random, dtype, 335, 40),
         v = Matrix::random(random, dtype, 335, 40), grad = Matrix::random(random, dtype, 335, 80), out(dtype, 335, 80),
         q_grad(dtype, 335, 80), k_grad(dtype, 335, 40), v_grad(dtype, 335, 40);
  std::vector<float> lse(335 * 4);
  const ix_mat qv = q.view(), kv = k.view(), vv = v.view(), gv = grad.view(), ov = out.view(), qg = q_grad.view(),
               kg = k_grad.view(), vg = v_grad.view();
  const int32_t* all = nullptr;
  device.call(&ix_backend::attention, batch.get(), &shape, &qv, all, &kv, &vv, &ov, lse.data());
  device.call(&ix_backend::attention_backward, batch.get(), &shape, &qv, all, &kv, &vv, &ov, lse.data(), &gv, &qg, &kg,
              &vg);
  for (const Matrix* m : {&q_grad, &k_grad, &v_grad}) add(hash, *m);
  add(hash, lse);
  return hash.value();
}

uint64_t hash_of_logprob(int32_t dtype) {
  Random random(1230);
  KernelDevice device(cpu::selected_kernels());
  Hash hash;
  Matrix hidden = Matrix::random(random, dtype, 230, 41), hidden_grad(IX_F32, 230, 41);
  const Weight weight(device, dtype, Matrix::random(random, dtype, 2300, 41), true);
  std::vector<int32_t> targets;
  for (int i = 0; i < 230; ++i) targets.push_back(static_cast<int32_t>(random.below(2300)));
  const std::vector<float> grad = random_vector(random, 230);
  std::vector<float> logp(230), lse(230), weight_grad(2300 * 41);
  const ix_mat h = hidden.view(), g = hidden_grad.view();
  device.call(&ix_backend::linear_logprob, &h, weight.get(), targets.data(), 0.0f, logp.data(), lse.data());
  device.call(&ix_backend::linear_logprob_backward, &h, weight.get(), targets.data(), 0.0f, lse.data(), grad.data(), &g,
              weight_grad.data());
  add(hash, hidden_grad);
  add(hash, weight_grad);
  return hash.value();
}

// Two optimiser steps of two micro-batches each; the vocabulary is large enough for several blocks of the update.
uint64_t hash_of_training(const TinyOptions& options, DType dtype) {
  const TemporaryFolder folder;
  const TinyModel tiny = make_tiny_model(options, 1240, folder);
  Random random(1241);
  Hash hash;
  for (const NamedOptions& named : objectives(tiny.spec)) {
    const std::unique_ptr<Trainer> trainer = make_trainer(tiny.spec, named.options, dtype);
    for (int step = 0; step < 2; ++step) {
      for (int i = 0; i < 2; ++i) {
        const TrainResult result =
            accumulate(*trainer, for_objective(random_train_batch(random, tiny.spec), named.options.objective));
        hash.add(result.losses.data(), result.losses.size() * sizeof(double));
        hash.add(result.rewards.data(), result.rewards.size() * sizeof(double));
      }
      for (const auto& [role, gradient] : gradients_of(*trainer)) add(hash, gradient);
      const double norm = trainer->step(1e-3, 0.5);
      hash.add(&norm, sizeof norm);
    }
    for (const auto& [role, values] : parameters_of(*trainer)) add(hash, values);
  }
  return hash.value();
}

void print(const std::string& name, uint64_t hash) {
  std::printf("%s %016llx\n", name.c_str(), static_cast<unsigned long long>(hash));
}

void print_gradient_hashes() {
  std::printf("kernels %s\n", cpu::selected_kernels()->name);
  for (const int32_t dtype : {IX_F32, IX_BF16}) {
    // Repeated: tasks fall to threads as they come.
    for (const auto& [name, hash] :
         {std::pair{"products", &hash_of_products}, std::pair{"rows", &hash_of_rows},
          std::pair{"attention", &hash_of_attention}, std::pair{"logprob", &hash_of_logprob}}) {
      const uint64_t first = hash(dtype);
      for (int i = 0; i < 3; ++i) CHECK(hash(dtype) == first, "%s %s differs when repeated", name, dtype_text(dtype));
      print(std::string(name) + " " + dtype_text(dtype), first);
    }
  }
  for (const TinyOptions& options : tiny_shapes())
    for (const DType dtype : {DType::kF32, DType::kBf16})
      print(std::string(options.name) + " " + dtype_name(dtype), hash_of_training(options, dtype));
}

}  // namespace

TEST(backward_same_bits_on_any_number_of_threads) {
  if (std::getenv("IMPLEX_TEST_GRADIENT_HASHES")) {
    print_gradient_hashes();
    return;
  }
  for (const cpu::KernelTable* kernels : cpu::available_kernels()) {
    const auto run = [&](int threads) {
      const Run result =
          run_again(text("IMPLEX_TEST_GRADIENT_HASHES=1 IMPLEX_KERNELS=%s IMPLEX_THREADS=%d", kernels->name, threads),
                    "backward_same_bits_on_any_number_of_threads");
      CHECK(result.status == 0, "%s with %d threads:\n%s", kernels->name, threads, result.output.c_str());
      return result.output;
    };
    const std::string one = run(1);
    CHECK(one.rfind(std::string("kernels ") + kernels->name, 0) == 0, "another kernel set answered:\n%s", one.c_str());
    for (const int threads : {2, 5}) {
      const std::string other = run(threads);
      CHECK(other == one, "%s: 1 thread:\n%s%d threads:\n%s", kernels->name, one.c_str(), threads, other.c_str());
    }
  }
}

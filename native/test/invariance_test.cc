// The size of the pool changes no bit. The pool is one per process, so this program runs itself again with other sizes
// and compares hashes.
#include "core/error.h"
#include "core/thread_pool.h"
#include "hashes.h"
#include "tiny_model.h"

using namespace implex;
using namespace implex::test;

namespace implex::test {

namespace {

void print(const char* name, const Hash& hash) {
  std::printf("%s %016llx\n", name, static_cast<unsigned long long>(hash.value()));
}

// Products and read-outs large enough to be split over the pool in many pieces.
void hash_operations(int32_t dtype) {
  Random random(30);
  KernelDevice device(cpu::selected_kernels());
  Matrix a = Matrix::random(random, dtype, 230, 131, 1);
  const Weight weight(device, dtype, Matrix::random(random, dtype, 4500, 131, 1));
  Matrix out(IX_F32, 230, 4500);
  const ix_mat in_view = a.view();
  const ix_mat out_view = out.view();
  const ix_epilogue epilogue = {nullptr, nullptr};
  device.call(&ix_backend::gemm, &in_view, weight.get(), &epilogue, &out_view);
  Hash product;
  for (int64_t row = 0; row < 230; ++row) product.add(out.row_bits(row).data(), out.row_bits(row).size());
  print((std::string("gemm_") + dtype_text(dtype)).c_str(), product);

  std::vector<int32_t> targets;
  for (int i = 0; i < 230; ++i) targets.push_back(static_cast<int32_t>(random.below(4500)));
  std::vector<float> logp(230);
  device.call(&ix_backend::linear_logprob, &in_view, weight.get(), targets.data(), 0.0f, logp.data(), nullptr);
  Hash logprob;
  logprob.add(logp.data(), logp.size() * sizeof(float));
  print((std::string("linear_logprob_") + dtype_text(dtype)).c_str(), logprob);
}

void hash_models(DType dtype) {
  const TemporaryFolder folder;
  CancelFlag cancel;
  for (const TinyOptions& options : tiny_shapes()) {
    const TinyModel tiny = make_tiny_model(options, 31, folder);
    LoadOptions load;
    load.dtype = dtype;
    const std::unique_ptr<RewardModel> model = load_model(tiny.spec, load, cancel);
    Random random(32);
    TinyBatch batch = random_batch(random, tiny.spec);
    batch.request.token_logprobs = true;
    Hash hash;
    for (const Readout readout :
         {Readout::kLogprob, Readout::kRewardLast, Readout::kRewardMean, Readout::kRewardTokens}) {
      batch.request.readout = readout;
      const ScoreResult result = model->score(batch.request, cancel);
      hash.add(result.values.data(), result.values.size() * sizeof(double));
      hash.add(result.token_logprobs.data(), result.token_logprobs.size() * sizeof(float));
    }
    print((std::string(options.name) + "_" + dtype_name(dtype)).c_str(), hash);
  }
}

}  // namespace

void print_hashes() {
  std::printf("kernels %s\n", cpu::selected_kernels()->name);
  for (const int32_t dtype : {IX_F32, IX_BF16}) hash_operations(dtype);
  for (const DType dtype : {DType::kF32, DType::kBf16}) hash_models(dtype);
}

}  // namespace implex::test

TEST(same_bits_on_any_number_of_threads) {
  for (const cpu::KernelTable* kernels : cpu::available_kernels()) {
    const auto run = [&](int threads) {
      const Run result = run_again(text("IMPLEX_KERNELS=%s IMPLEX_THREADS=%d", kernels->name, threads), "--hashes");
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

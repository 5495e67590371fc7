// Whole models on the emulated GPU against the CPU: log-probs, rewards, gradients and steps of training; a response has
// the same bits in every batch.
#include "../train_support.h"
#include "support.h"

using namespace implex;
using namespace implex::test;

namespace {

LoadOptions options_of(bool gpu, DType dtype) {
  LoadOptions options;
  options.dtype = dtype;
  if (gpu) {
    options.device = "cuda";
    options.device_path = emulated_module();
  }
  return options;
}

// Heads that the matrix kernels serve.
TinyOptions large_heads() {
  TinyOptions o = tiny_shapes()[0];
  o.name = "heads of 64";
  o.spec.hidden_size = 64;
  o.spec.heads = 2;
  o.spec.kv_heads = 1;
  o.spec.head_dim = 64;
  o.spec.ropes = {rope_of(64)};
  for (LayerSpec& layer : o.spec.layers) {
    layer.intermediate_size = 96;
    layer.attention_scale = 0.125;
  }
  return o;
}

// The same with a window and soft caps, as Gemma 2 has them.
TinyOptions limited_heads() {
  TinyOptions o = large_heads();
  o.name = "limited heads of 64";
  o.spec.layers[0].window = 6;
  o.spec.logit_soft_cap = 2;
  for (LayerSpec& layer : o.spec.layers) layer.attention_soft_cap = 1.5;
  return o;
}

double largest_error(const std::vector<double>& got, const std::vector<double>& want) {
  double most = 0;
  for (size_t i = 0; i < want.size(); ++i) {
    const double error = std::fabs(got[i] - want[i]) / std::max(1.0, std::fabs(want[i]));
    most = std::isnan(error) ? error : std::max(most, error);
    if (std::isnan(most)) break;
  }
  return most;
}

void check_scores(const TinyOptions& options, DType dtype) {
  const TemporaryFolder folder;
  CancelFlag cancel;
  Random random(52);
  TinyBatch batch = random_batch(random, options.spec);
  const TinyModel tiny = make_tiny_model(options, 51, folder);
  const std::unique_ptr<RewardModel> cpu = load_model(tiny.spec, options_of(false, dtype), cancel);
  const std::unique_ptr<RewardModel> gpu = load_model(tiny.spec, options_of(true, dtype), cancel);
  for (const Readout readout : {Readout::kLogprob, Readout::kRewardLast, Readout::kRewardMean}) {
    batch.request.readout = readout;
    const ScoreResult want = cpu->score(batch.request, cancel);
    const ScoreResult got = gpu->score(batch.request, cancel);
    // bf16: the bound of docs/numerics.md for a projection. Both sides round, at other places.
    const double bound = dtype == DType::kF32 ? 2e-5 : 1.0 / 16;
    const double error = largest_error(got.values, want.values);
    CHECK(error <= bound, "%s %s read-out %d: off by %.3g, allowed %.3g", options.name, dtype_name(dtype), int(readout),
          error, bound);
    CHECK(gpu->score(batch.request, cancel).values == got.values, "%s: a second run differs", options.name);
    // One sequence by itself, its prompt not shared.
    for (size_t i = 0; i < batch.sequences.size() && i < 3; ++i) {
      ScoreRequest alone = batch.request;
      alone.tokens = batch.sequences[i];
      const int32_t prompt = batch.prompt_lengths[i], all = static_cast<int32_t>(batch.sequences[i].size());
      alone.segments = {{0, prompt > 0 ? prompt : all, -1}};
      if (prompt > 0) alone.segments.push_back({prompt, all - prompt, 0});
      alone.scored = {prompt > 0 ? 1 : 0};
      CHECK(gpu->score(alone, cancel).values[0] == got.values[i], "%s %s: sequence %zu alone has other bits",
            options.name, dtype_name(dtype), i);
    }
  }
}

void check_training(const TinyOptions& options, DType dtype, double bound) {
  const TemporaryFolder folder;
  CancelFlag cancel;
  const TinyModel tiny = make_tiny_model(options, 53, folder);
  Random random(54);
  const TrainBatch batch = random_train_batch(random, tiny.spec);
  for (const NamedOptions& named : objectives(tiny.spec)) {
    Trainer cpu(tiny.spec, options_of(false, dtype), named.options, cancel);
    Trainer gpu(tiny.spec, options_of(true, dtype), named.options, cancel);
    const TrainRequest request = for_objective(batch, named.options.objective);
    for (Trainer* trainer : {&cpu, &gpu}) accumulate(*trainer, request);
    const Arrays want = gradients_of(cpu), got = gradients_of(gpu);
    double all = 0;
    for (const auto& [role, gradient] : want) all += norm_of(gradient) * norm_of(gradient);
    all = std::sqrt(all);
    for (const auto& [role, gradient] : want) {
      // Some gradients are sums that cancel to almost nothing, as the keys' bias, which shifts all scores alike.
      const double size = std::max(norm_of(gradient), 1e-3 * all);
      const double d = relative_distance(got.at(role), gradient) * norm_of(gradient) / size;
      CHECK(norm_of(gradient) == 0 || d <= bound, "%s %s %s: the gradient of %s differs by %.3g, allowed %.3g",
            options.name, dtype_name(dtype), named.name, role.c_str(), d, bound);
    }
    const double norm = cpu.step(1e-3, 0.5);
    CHECK(std::fabs(gpu.step(1e-3, 0.5) - norm) <= bound * norm, "%s: the gradient's norm", options.name);
  }
}

// Each operation and each way to put layers together once: an emulated pass takes seconds.
std::vector<TinyOptions> some_shapes() {
  std::vector<TinyOptions> some;
  for (const TinyOptions& options : tiny_shapes())
    for (const char* name : {"llama", "gpt_neox", "mistral_smollm3", "gemma2", "olmo2", "mixture", "adapters"})
      if (std::string(options.name) == name) some.push_back(options);
  return some;
}

}  // namespace

TEST(gpu_model_scores) {
  for (const TinyOptions& options : some_shapes()) {
    check_scores(options, DType::kF32);
    const std::string name = options.name;
    if (name == "llama" || name == "gemma2" || name == "mixture") check_scores(options, DType::kBf16);
  }
}

TEST(gpu_model_scores_matrix_kernels) {
  check_scores(large_heads(), DType::kBf16);
  check_scores(limited_heads(), DType::kBf16);
}

TEST(gpu_model_training) {
  for (const TinyOptions& options : some_shapes()) check_training(options, DType::kF32, 2e-4);
}

TEST(gpu_model_training_matrix_kernels) {
  check_training(large_heads(), DType::kBf16, 5e-2);
  check_training(limited_heads(), DType::kBf16, 5e-2);
}

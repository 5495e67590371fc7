// What the tests of training share: micro-batches with what they mean, the losses of the double-precision reference,
// and trainers under one kernel set.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "tiny_model.h"
#include "train/trainer.h"

namespace implex::test {

// A micro-batch of pairs, and each scored segment's whole sequence.
struct TrainBatch {
  TrainRequest request;
  std::vector<std::vector<int32_t>> sequences;
  std::vector<size_t> prompt_lengths;
};
// Pairs with shared prompts of several lengths, one pair of lone sequences; margins and reference log-probs.
TrainBatch random_train_batch(Random& random, const ModelSpec& spec);
// The same pairs with the prompt computed again for each response, or only pairs [first, first + count) of them.
TrainBatch with_own_prompts(const TrainBatch& batch);
TrainBatch some_pairs(const TrainBatch& batch, size_t first, size_t count);
// What the objective takes of a batch: sft has no rejected responses and no pairs.
TrainRequest for_objective(const TrainBatch& batch, Objective objective);

// The objectives that are tested, with options that use every term of the loss.
struct NamedOptions {
  const char* name;
  TrainOptions options;
};
std::vector<NamedOptions> objectives(const ModelSpec& spec);

// Sum of the scaled losses of for_objective(batch), one for each of `all`.
std::vector<double> reference_losses(const Reference& reference, const TrainBatch& batch,
                                     const std::vector<NamedOptions>& all);

// A trainer; `kernels`: a kernel set's name, or null for the fastest.
std::unique_ptr<Trainer> make_trainer(const ModelSpec& spec, const TrainOptions& options, DType dtype = DType::kF32,
                                      const char* kernels = nullptr);
TrainResult accumulate(Trainer& trainer, const TrainRequest& request, bool gradients = true);

// Every parameter's gradient or value, by role.
using Arrays = std::map<std::string, std::vector<float>>;
Arrays gradients_of(const Trainer& trainer);
Arrays parameters_of(const Trainer& trainer);

double norm_of(const std::vector<float>& values);
// Whether f32 values are exactly these.
bool widened_equal(const std::vector<float>& a, const std::vector<double>& b);
// ‖a - b‖ / ‖b‖.
double relative_distance(const std::vector<float>& a, const std::vector<float>& b);

}  // namespace implex::test

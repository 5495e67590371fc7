// The list of tensors where nothing stands for them.
#include "model/tensors.h"

namespace implex {

namespace {

struct Nothing {};
struct NoLinear {
  Nothing weight, bias;
  struct {
    Nothing a, b;
  } low;
};
struct NoNorm {
  Nothing gamma, beta;
};

}  // namespace

std::vector<TensorPlace> tensor_places(const ModelSpec& spec) {
  std::vector<TensorPlace> places;
  ModelTensors<Nothing, NoLinear, NoNorm> model;
  resize_layers(spec, model);
  visit_tensors(spec, model, [&](const TensorPlace& place, const Nothing&) { places.push_back(place); });
  return places;
}

}  // namespace implex

// The plain-data structures of the model's interface, read from and written to JavaScript (lib/native/types.ts has
// their types). Types and number ranges are checked here, field by field; whether the numbers make sense together is
// the model's to say.
#pragma once

#include <algorithm>
#include <string>
#include <vector>

#include "addon/arguments.h"
#include "reward/reward_model.h"

namespace implex::addon {

ModelSpec read_spec(const Napi::Value& value);
LoadOptions read_load_options(const Napi::Value& value);
ScoreRequest read_request(const Napi::Value& value);
WeightSource read_weight(const std::string& name, const Napi::Value& value);
// `segments` of a batch.
std::vector<Segment> read_segments(const Fields& batch);
// Throws the RangeError of a head that does not fit, and the Error with ERR_WEIGHT_NOT_FINITE.
enum class HeadRows { kOne, kAny };
void check_head(const std::string& name, const std::vector<float>& head, int64_t hidden_size, HeadRows rows,
                Napi::Env env);
Napi::Object write_result(Napi::Env env, const ScoreResult& result, bool token_logprobs);

// A typed array that holds a copy.
template <typename Array, typename T>
Array write_array(Napi::Env env, const std::vector<T>& values) {
  Array array = Array::New(env, values.size());
  if (!values.empty()) std::copy(values.begin(), values.end(), array.Data());
  return array;
}
inline Napi::Value write_floats(Napi::Env env, const std::vector<float>& values) {
  return write_array<Napi::Float32Array>(env, values);
}

}  // namespace implex::addon

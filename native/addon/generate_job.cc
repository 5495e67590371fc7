// Generation on the engine thread.
#include "addon/generate_job.h"

#include <limits>
#include <utility>

#include "addon/marshal.h"

namespace implex::addon {

GenerateRequest read_generate_request(const Napi::Value& value) {
  const Fields fields("request", value);
  GenerateRequest request;
  request.tokens = fields.int32_array("tokens");
  request.lengths = fields.int32_array("lengths");
  request.sequences = fields.int32_array("sequences");
  const std::vector<int32_t> seeds = fields.int32_array("seeds");
  if (seeds.size() != 2 * request.sequences.size()) {
    throw_out_of_range(fields.name("seeds"), "two numbers for each sequence",
                       Napi::Number::New(value.Env(), static_cast<double>(seeds.size())));
  }
  for (size_t i = 0; i < seeds.size(); i += 2)
    request.seeds.push_back(static_cast<uint64_t>(static_cast<uint32_t>(seeds[i])) << 32 |
                            static_cast<uint32_t>(seeds[i + 1]));
  request.max_new_tokens = fields.integer("maxNewTokens", 1, std::numeric_limits<int32_t>::max());
  request.sampling.temperature = fields.number("temperature", 0, kMostFloat);
  request.sampling.top_p = fields.number("topP", 0, 1);
  request.sampling.top_k = fields.integer("topK", 0, std::numeric_limits<int32_t>::max());
  request.stop = fields.int32_array("stop");
  return request;
}

GenerateJob::GenerateJob(Napi::Env env, std::shared_ptr<LoadedModel> loaded, GenerateRequest request)
    : PromiseJob(env), request_(std::move(request)) {
  resource = std::move(loaded);
  sequences_ = request_.sequences.size();
}

void GenerateJob::execute() {
  result_ = generate(static_cast<LoadedModel&>(*resource).model->transformer(), request_, *cancel);
  request_ = {};
}

Napi::Value GenerateJob::result(Napi::Env env) {
  Napi::Object object = Napi::Object::New(env);
  object.Set("tokens", write_array<Napi::Int32Array>(env, result_.tokens));
  object.Set("lengths", write_array<Napi::Int32Array>(env, result_.lengths));
  object.Set("logprobs", write_array<Napi::Float32Array>(env, result_.logprobs));
  return object;
}

std::string GenerateJob::out_of_memory() const {
  return "out of memory while generating " + std::to_string(sequences_) + " sequences; generate fewer at once";
}

}  // namespace implex::addon

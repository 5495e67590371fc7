// Scoring on the engine thread.
#include "addon/score_job.h"

#include <utility>

#include "addon/marshal.h"

namespace implex::addon {

RewardModel& LoadedModel::scoring_model(const ScoreRequest& request) {
  const bool needs_head = request.readout == Readout::kRewardLast || request.readout == Readout::kRewardMean ||
                          request.readout == Readout::kRewardTokens;
  if (needs_head && head_failure) {
    throw Error(head_failure->code, "the head could not be set: " + head_failure->message, head_failure->fields);
  }
  return *model;
}

ScoreJob::ScoreJob(Napi::Env env, std::shared_ptr<Scorer> scorer, ScoreRequest request)
    : PromiseJob(env), request_(std::move(request)) {
  resource = std::move(scorer);
  tokens_ = request_.tokens.size();
  token_logprobs_ = request_.token_logprobs;
}

void ScoreJob::execute() {
  result_ = static_cast<Scorer&>(*resource).scoring_model(request_).score(request_, *cancel);
  request_ = {};
}

Napi::Value ScoreJob::result(Napi::Env env) { return write_result(env, result_, token_logprobs_); }

std::string ScoreJob::out_of_memory() const {
  return "out of memory while scoring a batch of " + std::to_string(tokens_) + " tokens; use a smaller batch";
}

}  // namespace implex::addon

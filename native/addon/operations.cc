// Single operations as jobs of the engine. Each opens its device for itself: what a call takes is the copying of its
// operands anyway.
#include "addon/operations.h"

#include <algorithm>
#include <functional>
#include <utility>

#include "addon/arguments.h"
#include "addon/cancel_handle.h"
#include "addon/instance.h"
#include "addon/marshal.h"
#include "addon/value_job.h"
#include "bench/measure.h"
#include "core/host_operations.h"

namespace implex::addon {

namespace {

template <typename Value>
Napi::Value submit(const Napi::CallbackInfo& info, LoadOptions options,
                   std::function<Value(Device&, const CancelFlag&)> work, typename ValueJob<Value>::Write write) {
  auto job = std::make_unique<ValueJob<Value>>(
      info.Env(),
      [options = std::move(options), work = std::move(work)](const CancelFlag& cancel) {
        return work(*open_device(options), cancel);
      },
      write, "out of memory for the operands of an operation");
  if (given(info[2])) NativeCancel::argument("cancel", info[2]).attach(job->cancel);
  return Instance::of(info.Env()).host->submit(info.Env(), std::move(job));
}

Napi::Value number(Napi::Env env, double value) { return Napi::Number::New(env, value); }

// `array` must hold whole rows of `width`; `least`: rows.
size_t rows_of(const Fields& fields, const char* name, size_t size, size_t width, size_t least) {
  if (size % width != 0 || size / width < least || size / width > 0x7fffffff) {
    throw_out_of_range(fields.name(name),
                       "rows of " + std::to_string(width) + " elements, at least " + std::to_string(least),
                       number(fields.get(name).Env(), static_cast<double>(size)));
  }
  return size / width;
}

void check_length(const Fields& fields, const char* name, size_t size, size_t expected) {
  if (size != expected) {
    throw_out_of_range(fields.name(name), "of " + std::to_string(expected) + " elements",
                       number(fields.get(name).Env(), static_cast<double>(size)));
  }
}

// A dimension: at least 1, and small enough that products of three do not overflow.
int64_t dimension(const Fields& fields, const char* name) {
  return read_integer(fields.name(name), fields.get(name), 1, 1 << 20);
}

Napi::Value gemm(const Napi::CallbackInfo& info) {
  const Fields fields("input", info[0]);
  LoadOptions options = read_load_options(info[1]);
  const auto k = static_cast<size_t>(dimension(fields, "k"));
  std::vector<float> a = read_float32_array(fields.name("a"), fields.get("a"));
  std::vector<float> b = read_float32_array(fields.name("b"), fields.get("b"));
  std::vector<float> bias;
  if (given(fields.get("bias"))) bias = read_float32_array(fields.name("bias"), fields.get("bias"));
  rows_of(fields, "a", a.size(), k, 0);
  const size_t n = rows_of(fields, "b", b.size(), k, 1);
  if (!bias.empty()) check_length(fields, "bias", bias.size(), n);
  const DType dtype = options.dtype;
  return submit<std::vector<float>>(
      info, std::move(options),
      [=, a = std::move(a), b = std::move(b), bias = std::move(bias)](Device& device, const CancelFlag&) {
        return a.empty() ? std::vector<float>() : host::gemm(device, dtype, static_cast<int64_t>(k), a, b, bias);
      },
      write_floats);
}

Napi::Value linear_logprob(const Napi::CallbackInfo& info) {
  const Fields fields("input", info[0]);
  LoadOptions options = read_load_options(info[1]);
  std::vector<float> hidden = read_float32_array(fields.name("hidden"), fields.get("hidden"));
  std::vector<float> weight = read_float32_array(fields.name("weight"), fields.get("weight"));
  std::vector<int32_t> targets = read_int32_array(fields.name("targets"), fields.get("targets"));
  if (targets.empty()) throw_out_of_range(fields.name("targets"), "of at least one element", fields.get("targets"));
  const size_t width = rows_of(fields, "hidden", hidden.size(), targets.size(), 1);
  const size_t vocabulary = rows_of(fields, "weight", weight.size(), width, 1);
  for (size_t i = 0; i < targets.size(); ++i) {
    if (targets[i] >= 0 && static_cast<size_t>(targets[i]) < vocabulary) continue;
    throw_out_of_range(fields.name("targets") + '[' + std::to_string(i) + ']',
                       "a row of the weight, below " + std::to_string(vocabulary), number(info.Env(), targets[i]));
  }
  const DType dtype = options.dtype;
  return submit<std::vector<float>>(
      info, std::move(options),
      [=, hidden = std::move(hidden), weight = std::move(weight), targets = std::move(targets)](
          Device& device, const CancelFlag&) { return host::linear_logprob(device, dtype, hidden, weight, targets); },
      write_floats);
}

Napi::Value linear_reward(const Napi::CallbackInfo& info) {
  const Fields fields("input", info[0]);
  LoadOptions options = read_load_options(info[1]);
  std::vector<float> hidden = read_float32_array(fields.name("hidden"), fields.get("hidden"));
  std::vector<float> head = read_float32_array(fields.name("head"), fields.get("head"));
  const std::vector<int32_t> spans = read_int32_array(fields.name("spans"), fields.get("spans"));
  if (head.empty()) throw_out_of_range(fields.name("head"), "of at least one element", fields.get("head"));
  const size_t rows = rows_of(fields, "hidden", hidden.size(), head.size(), 1);
  host::FinalNorm norm;
  if (given(fields.get("norm"))) {
    const Fields own(fields.name("norm"), fields.get("norm"));
    norm.kind = own.choice<int32_t>("kind", {{"rms", IX_NORM_RMS}, {"layer", IX_NORM_LAYER}});
    norm.gamma = read_float32_array(own.name("gamma"), own.get("gamma"));
    check_length(own, "gamma", norm.gamma.size(), head.size());
    if (given(own.get("beta"))) {
      norm.beta = read_float32_array(own.name("beta"), own.get("beta"));
      check_length(own, "beta", norm.beta.size(), head.size());
    }
    norm.eps = static_cast<float>(own.finite("eps"));
  }
  if (spans.empty() || spans.size() % 2 != 0) {
    throw_out_of_range(fields.name("spans"), "pairs of first row and number of rows, at least one",
                       fields.get("spans"));
  }
  std::vector<int32_t> first, count;
  for (size_t i = 0; i < spans.size(); i += 2) {
    if (spans[i] < 0 || spans[i + 1] < 1 || static_cast<size_t>(spans[i]) + static_cast<size_t>(spans[i + 1]) > rows) {
      throw_out_of_range(fields.name("spans") + '[' + std::to_string(i) + ']',
                         "the first of at least one row within the " + std::to_string(rows) + " rows of hidden",
                         number(info.Env(), spans[i]));
    }
    first.push_back(spans[i]);
    count.push_back(spans[i + 1]);
  }
  const DType dtype = options.dtype;
  return submit<std::vector<float>>(
      info, std::move(options),
      [=, hidden = std::move(hidden), head = std::move(head)](Device& device, const CancelFlag&) {
        return host::linear_reward(device, dtype, norm, hidden, head, first, count);
      },
      write_floats);
}

bench::OpShape read_shape(const Fields& fields, DType dtype) {
  using bench::Op;
  bench::OpShape shape;
  shape.dtype = dtype;
  shape.op = fields.choice<Op>("op", {{"gemm", Op::kGemm},
                                      {"linear_logprob", Op::kLinearLogprob},
                                      {"linear_logprob_backward", Op::kLinearLogprobBackward},
                                      {"linear_logprob_both", Op::kLinearLogprobBoth},
                                      {"head_products", Op::kHeadProducts},
                                      {"attention", Op::kAttention},
                                      {"attention_backward", Op::kAttentionBackward},
                                      {"norm", Op::kNorm},
                                      {"norm_backward", Op::kNormBackward},
                                      {"copy", Op::kCopy},
                                      {"peak", Op::kPeak}});
  if (shape.op == Op::kPeak) return shape;
  if (shape.op == Op::kAttention || shape.op == Op::kAttentionBackward) {
    shape.heads = dimension(fields, "heads");
    shape.kv_heads = dimension(fields, "kvHeads");
    shape.head_dim = dimension(fields, "headDim");
    shape.groups = dimension(fields, "groups");
    shape.prompt = dimension(fields, "prompt");
    shape.responses = dimension(fields, "responses");
    shape.response = dimension(fields, "response");
    if (shape.heads % shape.kv_heads != 0)
      throw_out_of_range(fields.name("kvHeads"), "a divisor of heads", fields.get("kvHeads"));
    const double tokens =
        static_cast<double>(shape.groups) * static_cast<double>(shape.prompt + shape.responses * shape.response);
    if (tokens * static_cast<double>(shape.heads) * static_cast<double>(shape.head_dim) > 1e10) {
      throw_out_of_range(fields.name("groups"), "few enough for the operands to fit in memory", fields.get("groups"));
    }
    return shape;
  }
  if (shape.op == Op::kCopy) {
    shape.rows = read_integer(fields.name("rows"), fields.get("rows"), 1 << 20, int64_t{1} << 32);
    return shape;
  }
  shape.rows = dimension(fields, "rows");
  shape.columns = dimension(fields, "columns");
  if (shape.op == Op::kNorm || shape.op == Op::kNormBackward) {
    shape.layer_norm = fields.choice<bool>("norm", {{"rms", false}, {"layer", true}});
  } else {
    shape.depth = dimension(fields, "depth");
  }
  return shape;
}

Napi::Value write_measurements(Napi::Env env, const std::vector<bench::Measurement>& all) {
  Napi::Array results = Napi::Array::New(env, all.size());
  for (size_t i = 0; i < all.size(); ++i) {
    const bench::Measurement& measured = all[i];
    Napi::Float64Array seconds = Napi::Float64Array::New(env, measured.seconds.size());
    std::copy(measured.seconds.begin(), measured.seconds.end(), seconds.Data());
    Napi::Object result = Napi::Object::New(env);
    result.Set("seconds", seconds);
    result.Set("repeats", static_cast<double>(measured.repeats));
    result.Set("error", measured.error);
    result.Set("flops", measured.flops);
    result.Set("bytes", measured.bytes);
    results.Set(static_cast<uint32_t>(i), result);
  }
  return results;
}

Napi::Value benchmark(const Napi::CallbackInfo& info) {
  LoadOptions options = read_load_options(info[1]);
  std::vector<bench::OpShape> shapes;
  const Napi::Array list = read_array("shapes", info[0]);
  if (list.Length() == 0) throw_out_of_range("shapes", "of at least one element", info[0]);
  for (uint32_t i = 0; i < list.Length(); ++i)
    shapes.push_back(read_shape(Fields("shapes[" + std::to_string(i) + "]", list.Get(i)), options.dtype));
  const Fields timing("options", info[1]);
  bench::MeasureOptions how;
  how.samples = read_integer(timing.name("samples"), timing.get("samples"), 1, 10000);
  how.warmup_seconds = timing.finite("warmupSeconds");
  how.sample_seconds = timing.finite("sampleSeconds");
  how.cold_bytes = timing.finite("coldBytes");
  how.seed = static_cast<uint64_t>(timing.integer("seed"));
  return submit<std::vector<bench::Measurement>>(
      info, std::move(options),
      [=](Device& device, const CancelFlag& cancel) { return bench::measure_in_turn(device, shapes, how, cancel); },
      write_measurements);
}

// Switches the profile of operations on, or off and returns it.
Napi::Value profile_operations(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  if (!info[0].IsBoolean()) throw Napi::TypeError::New(env, "on must be a boolean");
  if (info[0].As<Napi::Boolean>().Value()) {
    OpProfile::start();
    return env.Undefined();
  }
  const std::vector<OpProfile::Entry> entries = OpProfile::stop();
  Napi::Array result = Napi::Array::New(env, entries.size());
  for (size_t i = 0; i < entries.size(); ++i) {
    Napi::Object entry = Napi::Object::New(env);
    entry.Set("name", entries[i].name);
    entry.Set("calls", static_cast<double>(entries[i].calls));
    entry.Set("seconds", entries[i].seconds);
    result.Set(static_cast<uint32_t>(i), entry);
  }
  return result;
}

}  // namespace

void define_operations(Napi::Env env, Napi::Object exports) {
  exports.Set("kernelGemm", Napi::Function::New<gemm>(env, "kernelGemm"));
  exports.Set("kernelLinearLogprob", Napi::Function::New<linear_logprob>(env, "kernelLinearLogprob"));
  exports.Set("kernelLinearReward", Napi::Function::New<linear_reward>(env, "kernelLinearReward"));
  exports.Set("kernelBenchmark", Napi::Function::New<benchmark>(env, "kernelBenchmark"));
  exports.Set("profileOperations", Napi::Function::New<profile_operations>(env, "profileOperations"));
}

}  // namespace implex::addon

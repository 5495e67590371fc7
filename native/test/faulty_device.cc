// Each operation is called as it is, and then what it left is spoiled.
#include "faulty_device.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <tuple>
#include <type_traits>
#include <utility>

#include "core/dtype.h"
#include "cpu/device.h"

namespace implex::test {

namespace {

constexpr int32_t kF64 = 64;

Fault fault = Fault::kNone;
int64_t calls = 0;

// A matrix that an operation writes.
struct Span {
  void* data;
  int32_t dtype;
  int64_t rows, cols, stride;

  size_t size() const { return dtype == kF64 ? 8 : dtype == IX_BF16 ? 2 : 4; }
  char* at(int64_t row, int64_t col) const {
    return static_cast<char*>(data) + static_cast<size_t>(row * stride + col) * size();
  }
  double get(int64_t row, int64_t col) const {
    if (dtype == kF64) {
      double value;
      std::memcpy(&value, at(row, col), sizeof value);
      return value;
    }
    if (dtype == IX_BF16) {
      uint16_t bits;
      std::memcpy(&bits, at(row, col), sizeof bits);
      return static_cast<double>(bf16_to_f32(bits));
    }
    if (dtype == IX_I32) {
      int32_t value;
      std::memcpy(&value, at(row, col), sizeof value);
      return static_cast<double>(value);
    }
    float value;
    std::memcpy(&value, at(row, col), sizeof value);
    return static_cast<double>(value);
  }
  void set(int64_t row, int64_t col, double value) const {
    const float f = static_cast<float>(value);
    const uint16_t bits = f32_to_bf16(f);
    const int32_t whole = dtype == IX_I32 ? static_cast<int32_t>(value) : 0;
    const void* from = dtype == kF64      ? static_cast<const void*>(&value)
                       : dtype == IX_BF16 ? static_cast<const void*>(&bits)
                       : dtype == IX_I32  ? static_cast<const void*>(&whole)
                                          : static_cast<const void*>(&f);
    std::memcpy(at(row, col), from, size());
  }
};
using Spans = std::vector<Span>;

Span whole(const ix_mat* m) { return {m->data, m->dtype, m->rows, m->cols, m->stride}; }
Span floats(float* data, int64_t rows, int64_t cols) { return {data, IX_F32, rows, cols, cols}; }
// Those that are there.
Spans wanted(std::initializer_list<Span> spans) {
  Spans found;
  for (const Span& span : spans)
    if (span.data != nullptr && span.rows > 0 && span.cols > 0) found.push_back(span);
  return found;
}
Span optional(const ix_mat* m) { return m ? whole(m) : Span{nullptr, IX_F32, 0, 0, 0}; }

double spread_of(const Span& span) {
  double squares = 0;
  for (int64_t r = 0; r < span.rows; ++r)
    for (int64_t c = 0; c < span.cols; ++c) squares += span.get(r, c) * span.get(r, c);
  return std::sqrt(squares / static_cast<double>(span.rows * span.cols));
}

void flip_last_bit(const Span& span) { *span.at(0, 0) = static_cast<char>(*span.at(0, 0) ^ 1); }

void spoil(const Span& span, const char* last_before) {
  const int64_t row = span.rows / 2, col = span.cols / 2;
  switch (fault) {
    case Fault::kOff: {
      const double value = span.get(row, col);
      const double share = span.dtype == IX_BF16 ? 0.1 : span.dtype == IX_I32 ? 1 : 2e-3;
      const double scale = span.dtype == IX_I32 ? 1 : std::max(std::fabs(value), spread_of(span));
      span.set(row, col, value + share * (scale == 0 ? 1 : scale));
      break;
    }
    case Fault::kUnwritten: {
      // Memory that was in use before may hold the right value by chance: then another one.
      char* last = span.at(span.rows - 1, span.cols - 1);
      if (std::memcmp(last, last_before, span.size()) == 0)
        *last = static_cast<char>(*last ^ 0x40);
      else
        std::memcpy(last, last_before, span.size());
      break;
    }
    case Fault::kBeyond:
      *span.at(span.stride > span.cols && span.rows > 1 ? 0 : span.rows - 1, span.cols) ^= 1;
      break;
    case Fault::kBatch:
      if (span.rows % 2 == 1) flip_last_bit(span);
      break;
    case Fault::kDrift:
      if (calls % 3 == 0) flip_last_bit(span);
      break;
    default:
      break;
  }
}

// An operation whose outputs `SpansOf` finds in its arguments.
template <auto Operation, auto SpansOf, typename Function>
struct Broken;
template <auto Operation, auto SpansOf, typename... Arguments>
struct Broken<Operation, SpansOf, int32_t (*)(ix_device*, Arguments...)> {
  static int32_t call(ix_device* device, Arguments... arguments) {
    const Spans spans = SpansOf(arguments...);
    std::vector<std::string> last;
    for (const Span& span : spans) last.emplace_back(span.at(span.rows - 1, span.cols - 1), span.size());
    const int32_t code = (implex_cpu_backend()->*Operation)(device, arguments...);
    ++calls;
    if (code == IX_OK && !spans.empty()) {
      // Of several outputs another one each time.
      const size_t which = static_cast<size_t>(calls) % spans.size();
      spoil(spans[which], last[which].data());
    }
    if (code != IX_OK && fault == Fault::kSilent) {
      ix_status* status = std::get<sizeof...(arguments) - 1>(std::tie(arguments...));
      status->message[0] = '\0';
    }
    return code;
  }
};

template <auto Operation, auto SpansOf>
constexpr auto broken_call =
    &Broken<Operation, SpansOf, std::remove_cvref_t<decltype(std::declval<ix_backend>().*Operation)>>::call;

// What goes into a weight is spoiled on its way.
int32_t weight_write(ix_device* device, ix_weight* weight, int64_t row, int64_t count, const float* from,
                     ix_status* status) {
  std::vector<float> values(from, from + count * weight->cols);
  if (fault == Fault::kUnwritten && row + count == weight->rows) values.back() = 0;
  if (fault == Fault::kOff && row == 0) values.front() += 0.5f;
  return implex_cpu_backend()->weight_write(device, weight, row, count, values.data(), status);
}
int32_t weight_refresh(ix_device* device, ix_weight* weight, const float* from, ix_status* status) {
  std::vector<float> values(from, from + weight->rows * weight->cols);
  if (fault == Fault::kUnwritten) values.back() = 0;
  if (fault == Fault::kOff) values.front() += 0.5f;
  return implex_cpu_backend()->weight_refresh(device, weight, values.data(), status);
}

const std::vector<Fault> kRowwise = {Fault::kOff, Fault::kUnwritten, Fault::kBeyond, Fault::kBatch, Fault::kDrift};
const std::vector<Fault> kSums = {Fault::kOff, Fault::kUnwritten, Fault::kBeyond, Fault::kDrift};
const std::vector<Fault> kProducts = {Fault::kOff,   Fault::kUnwritten, Fault::kBeyond,
                                      Fault::kBatch, Fault::kDrift,     Fault::kSilent};
const std::vector<Fault> kInputs = {Fault::kOff, Fault::kUnwritten};
const std::vector<Fault> kMemory = {Fault::kSilent};

void install(ix_backend& t, const std::string& operation) {
#define BREAK(name, ...) \
  if (operation == #name) t.name = broken_call < &ix_backend::name, [](__VA_ARGS__) -> Spans
#define DONE >
  using W = const ix_weight*;
  using M = const ix_mat*;
  using I = const int32_t*;
  using S = ix_status*;
  using N = const ix_norm*;
  using C = const float*;
  BREAK(upload, void* to, const void*, size_t bytes, S) {
    return {{to, IX_F32, 1, static_cast<int64_t>(bytes / 4), static_cast<int64_t>(bytes / 4)}};
  }
  DONE;
  BREAK(download, void* to, const void*, size_t bytes, S) {
    return {{to, IX_F32, 1, static_cast<int64_t>(bytes / 4), static_cast<int64_t>(bytes / 4)}};
  }
  DONE;
  BREAK(alloc, size_t, void**, S) { return {}; }
  DONE;
  BREAK(weight_create, int32_t, int64_t, int64_t, int32_t, ix_weight**, S) { return {}; }
  DONE;
  BREAK(embedding, W, I, M out, S) { return {whole(out)}; }
  DONE;
  BREAK(gather_rows, M, I, M out, S) { return {whole(out)}; }
  DONE;
  BREAK(norm, N, M, M out, S) { return {whole(out)}; }
  DONE;
  BREAK(gemm, M, W, const ix_epilogue*, M out, S) { return {whole(out)}; }
  DONE;
  BREAK(rope, const ix_batch*, const ix_rope*, I, M x, S) { return {whole(x)}; }
  DONE;
  BREAK(attention, const ix_batch*, const ix_attention* a, M, I, M, M, M out, float* lse, S) {
    return wanted({whole(out), floats(lse, out->rows, a->heads)});
  }
  DONE;
  BREAK(glu, int32_t, M, M, M out, S) { return {whole(out)}; }
  DONE;
  BREAK(linear_logprob, M hidden, W, I, float, float* logp, float* lse, S) {
    return wanted({floats(logp, hidden->rows, 1), floats(lse, hidden->rows, 1)});
  }
  DONE;
  BREAK(linear_reward, N, M, C, I, I, int32_t groups, float* reward, S) { return {floats(reward, groups, 1)}; }
  DONE;
  BREAK(scaled_add, M, float, M, M out, S) { return {whole(out)}; }
  DONE;
  BREAK(top_experts, M logits, int32_t count, int32_t, int32_t * experts, float* weights, S) {
    return {{experts, IX_I32, logits->rows, count, count}, floats(weights, logits->rows, count)};
  }
  DONE;
  BREAK(combine_experts, M, I, C, int32_t, M, M out, S) { return {whole(out)}; }
  DONE;
  BREAK(gemm_backward_input, M, W, M, M out, S) { return {whole(out)}; }
  DONE;
  BREAK(gemm_backward_weight, M grad, M in, float* weight, float* bias, S) {
    return wanted({floats(weight, grad->cols, in->cols), floats(bias, grad->cols, 1)});
  }
  DONE;
  BREAK(norm_backward, N, M, M, M out, int32_t, float* gamma, float* beta, S) {
    return wanted({whole(out), floats(gamma, out->cols, 1), floats(beta, out->cols, 1)});
  }
  DONE;
  BREAK(glu_backward, int32_t, M, M, M, M gate, M up, S) { return wanted({whole(gate), optional(up)}); }
  DONE;
  BREAK(attention_backward, const ix_batch*, const ix_attention*, M, I, M, M, M, C, M, M q, M k, M v, S) {
    return {whole(q), whole(k), whole(v)};
  }
  DONE;
  BREAK(embedding_backward, I, M in, float* grad, int64_t vocabulary, S) {
    return {floats(grad, vocabulary, in->cols)};
  }
  DONE;
  BREAK(scatter_rows, M, I, M out, int32_t, S) { return {whole(out)}; }
  DONE;
  BREAK(linear_logprob_backward, M, W weight, I, float, C, C, M hidden, float* grad, S) {
    return wanted({whole(hidden), floats(grad, weight->rows, weight->cols)});
  }
  DONE;
  BREAK(linear_reward_backward, N, M, C, C, M out, float* gamma, float* beta, float* head, S) {
    return wanted({whole(out), floats(gamma, out->cols, 1), floats(beta, out->cols, 1), floats(head, out->cols, 1)});
  }
  DONE;
  BREAK(top_experts_backward, M, int32_t, int32_t, I, C, M out, S) { return {whole(out)}; }
  DONE;
  BREAK(combine_experts_backward, M grad, M, I, C, int32_t count, M out, float* weights, S) {
    return {whole(out), floats(weights, grad->rows, count)};
  }
  DONE;
  BREAK(cast, M, M out, S) { return {whole(out)}; }
  DONE;
  BREAK(fill_zero, void* memory, size_t bytes, S) {
    return {floats(static_cast<float*>(memory), static_cast<int64_t>(bytes / 4), 1)};
  }
  DONE;
  BREAK(optimizer_step, const ix_optimizer*, int64_t count, float* parameters, C, float* first, float* second, S) {
    return wanted({floats(parameters, count, 1), floats(first, count, 1), floats(second, count, 1)});
  }
  DONE;
  BREAK(sum_of_squares, C, int64_t, double* sum, S) { return {{sum, kF64, 1, 1, 1}}; }
  DONE;
  if (operation == "weight_write") t.weight_write = weight_write;
  if (operation == "weight_refresh") t.weight_refresh = weight_refresh;
#undef BREAK
#undef DONE
}

}  // namespace

const char* fault_name(Fault which) {
  constexpr const char* kNames[] = {"none", "off", "unwritten", "beyond", "batch", "drift", "silent"};
  return kNames[static_cast<size_t>(which)];
}

const std::vector<Breakable>& breakables() {
  static const std::vector<Breakable> all = {
      {"upload", kInputs},
      {"download", kInputs},
      {"alloc", kMemory},
      {"weight_create", kMemory},
      {"weight_write", kInputs},
      {"weight_refresh", kInputs},
      {"embedding", kRowwise},
      {"gather_rows", kRowwise},
      {"norm", kRowwise},
      {"gemm", kProducts},
      {"rope", kRowwise},
      {"attention", kProducts},
      {"glu", kRowwise},
      {"linear_logprob", kRowwise},
      {"linear_reward", kRowwise},
      {"scaled_add", kRowwise},
      {"top_experts", kProducts},
      {"combine_experts", kRowwise},
      {"gemm_backward_input", kProducts},
      {"gemm_backward_weight", kSums},
      {"norm_backward", kSums},
      {"glu_backward", kRowwise},
      {"attention_backward", kSums},
      {"embedding_backward", kSums},
      {"scatter_rows", kSums},
      {"linear_logprob_backward", kSums},
      {"linear_reward_backward", kSums},
      {"top_experts_backward", kRowwise},
      {"combine_experts_backward", kRowwise},
      {"cast", kRowwise},
      {"fill_zero", kSums},
      {"optimizer_step", kSums},
      {"sum_of_squares", {Fault::kOff, Fault::kUnwritten, Fault::kDrift}},
  };
  return all;
}

const ix_backend* faulty_backend(const std::string& operation, Fault which) {
  static ix_backend table;
  table = *implex_cpu_backend();
  table.name = "faulty";
  fault = which;
  calls = 0;
  install(table, operation);
  return &table;
}

const ix_backend* backend_with_kernels(const std::string& kernels) {
  static ix_backend table;
  static std::string chosen;
  chosen = kernels;
  table = *implex_cpu_backend();
  table.name = "other kernels";
  table.open = [](ix_device** device, ix_status* status) -> int32_t {
    const int32_t code = implex_cpu_backend()->open(device, status);
    if (code != IX_OK) return code;
    for (const cpu::KernelTable* set : cpu::available_kernels())
      if (chosen == set->name) (*device)->kernels = set;
    return IX_OK;
  };
  return &table;
}

}  // namespace implex::test

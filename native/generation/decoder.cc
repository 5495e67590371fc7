// The layout of the cache, and the walk over the layers for a few tokens.
#include "generation/decoder.h"

#include <algorithm>
#include <limits>
#include <numeric>
#include <string>

#include "core/recording.h"

namespace implex {

namespace {

// Prompts are computed so many tokens at a time: it bounds the memory that activations take.
constexpr int64_t kPrefillRows = 2048;

ix_mat first_rows(const ix_mat& m, int64_t count) { return rows_of(m, 0, count); }

// Every matrix of the buffers cut to n rows.
LayerBuffers cut(LayerBuffers b, int64_t n) {
  for (ix_mat* m : {&b.in, &b.row_in, &b.normed, &b.row_normed, &b.q_raw, &b.k_raw, &b.q, &b.k, &b.v, &b.attended,
                    &b.mid, &b.mlp_normed, &b.out})
    *m = first_rows(*m, n);
  return b;
}

}  // namespace

Decoder::Decoder(Transformer& model, const RaggedBatch& prompts, std::vector<int32_t> sequences, int64_t room,
                 const CancelFlag& cancel)
    : model_(model),
      prompts_(prompts),
      sequences_(std::move(sequences)),
      room_(room),
      tokens_(prompts.size() + static_cast<int64_t>(sequences_.size()) * room),
      arena_(model.device()) {
  const ModelSpec& s = model_.spec();
  const auto count = static_cast<int64_t>(sequences_.size());
  const int64_t width = s.kv_heads * s.head_dim;
  const double bytes = 2.0 * static_cast<double>(s.layer_count()) * static_cast<double>(width) *
                       static_cast<double>(dtype_size(model_.dtype())) *
                       (static_cast<double>(prompts.size()) + static_cast<double>(count) * static_cast<double>(room));
  try {
    if (tokens_ > std::numeric_limits<int32_t>::max() / 2) throw std::bad_alloc();
    std::vector<ix_segment> segments = prompts.segments();
    int64_t longest = 0;
    for (int64_t i = 0; i < count; ++i) {
      const int32_t prompt = sequences_[static_cast<size_t>(i)];
      segments.push_back({static_cast<int32_t>(prompts.size() + i * room), static_cast<int32_t>(room), prompt});
      longest = std::max<int64_t>(longest, segments[static_cast<size_t>(prompt)].length);
    }
    model_.ensure_rope_tables(std::min(s.max_positions, longest + room));
    shape_ = std::make_unique<DeviceBatch>(model_.device(), segments);
    for (int64_t i = 0; i < 2 * s.layer_count(); ++i) {
      cancel.check();  // a large cache takes seconds to clear
      const auto size = static_cast<size_t>(tokens_ * width) * dtype_size(model_.dtype());
      memory_.emplace_back(model_.device(), size);
      // Attention may read a block of keys to its end before it masks what is not visible.
      model_.device().call(&ix_backend::fill_zero, memory_.back().data(), size);
      cache_.push_back({memory_.back().data(), static_cast<int32_t>(model_.dtype()), tokens_, width, width});
    }
    Arena::Plan measure(nullptr);
    place(measure);
    arena_.reserve(measure.used());
    Arena::Plan plan(&arena_);
    place(plan);
  } catch (const std::exception& error) {
    const auto* known = dynamic_cast<const Error*>(&error);
    const bool memory = dynamic_cast<const std::bad_alloc*>(&error) != nullptr ||
                        (known != nullptr && known->code() == ErrorCode::kOutOfMemory);
    if (!memory) throw;
    throw Error(ErrorCode::kOutOfMemory, "out of memory for the keys and values of " + std::to_string(prompts.size()) +
                                             " prompt tokens and " + std::to_string(count) + " sequences of up to " +
                                             std::to_string(room) + " new tokens, " +
                                             std::to_string(static_cast<int64_t>(bytes / (1 << 20))) +
                                             " MiB; generate fewer sequences at once or fewer tokens");
  }
}

void Decoder::place(Arena::Plan& plan) {
  const ModelSpec& s = model_.spec();
  const DType dtype = model_.dtype();
  const auto count = static_cast<int64_t>(sequences_.size());
  const auto prompts = static_cast<int64_t>(prompts_.segments().size());
  const int64_t n = std::max(std::min(kPrefillRows, prompts_.size()), count);
  const int64_t q_size = s.heads * s.head_dim;
  const int64_t kv_size = s.kv_heads * s.head_dim;
  const auto integers = [&] { return static_cast<int32_t*>(plan.take(static_cast<size_t>(n) * sizeof(int32_t))); };
  pass_.ids = integers();
  pass_.rows = integers();
  pass_.from = integers();
  LayerBuffers& b = pass_.layer;
  b.in = b.row_in = b.mid = b.out = plan.matrix(DType::kF32, n, s.hidden_size);
  b.normed = b.row_normed = plan.matrix(dtype, n, s.hidden_size);
  b.mlp_normed = s.parallel_residual ? plan.matrix(dtype, n, s.hidden_size) : b.normed;
  b.q = b.q_raw = plan.matrix(dtype, n, q_size);
  b.k = b.k_raw = plan.matrix(dtype, n, kv_size);
  b.v = plan.matrix(dtype, n, kv_size);
  b.attended = plan.matrix(dtype, n, q_size);
  place_mlp(plan, s, widest(s), dtype, n, false, place_shared(plan, s, dtype, n), b);
  pass_.normed = plan.matrix(dtype, n, s.hidden_size);
  pass_.result = plan.matrix(dtype, std::max(prompts, count), s.hidden_size);
}

void Decoder::upload(void* to, const std::vector<int32_t>& values) {
  model_.device().call(&ix_backend::upload, to, values.data(), values.size() * sizeof(int32_t));
}

void Decoder::run(const std::vector<int32_t>& ids, const std::vector<int32_t>& rows, int64_t first, int64_t stride,
                  const std::vector<int32_t>& from, const CancelFlag& cancel) {
  Device& d = model_.device();
  const auto n = static_cast<int64_t>(ids.size());
  const LayerBuffers b = cut(pass_.layer, n);
  upload(pass_.ids, ids);
  upload(pass_.rows, rows);
  upload(pass_.from, from);
  Recording recording(d, n <= kRecordedTokens);
  model_.embed(pass_.ids, b.in);
  const LayerShape shape = {shape_->get(), pass_.rows, model_.ropes()};
  const auto places = [&](const ix_mat& m) {
    ix_mat view = rows_of(m, first, static_cast<int64_t>(from.size()));
    view.stride = m.stride * stride;
    return view;
  };
  for (size_t i = 0; i < model_.weights().layers.size(); ++i) {
    cancel.check();
    if (i > 0 && i % kRecordedLayers == 0) recording.next();
    const ix_mat& k = cache_[2 * i];
    const ix_mat& v = cache_[2 * i + 1];
    const LayerCache cache = {k, v, places(k), places(v), pass_.from};
    model_.layer(static_cast<int64_t>(i)).forward(shape, fitted(b, model_.spec().layers[i]), false, &cache);
  }
  model_.logit_rows(b.out, first_rows(pass_.normed, n));
  recording.end();
}

ix_mat Decoder::prefill(const CancelFlag& cancel) {
  const std::vector<ix_segment>& segments = prompts_.segments();
  size_t done = 0;  // prompts whose last row is in the result
  for (int64_t first = 0; first < prompts_.size(); first += kPrefillRows) {
    const int64_t count = std::min(kPrefillRows, prompts_.size() - first);
    const auto begin = prompts_.tokens().begin() + first;
    std::vector<int32_t> rows(static_cast<size_t>(count)), from(static_cast<size_t>(count));
    std::iota(rows.begin(), rows.end(), static_cast<int32_t>(first));
    std::iota(from.begin(), from.end(), 0);
    run(std::vector<int32_t>(begin, begin + count), rows, first, 1, from, cancel);
    std::vector<int32_t> last;
    const size_t before = done;
    for (; done < segments.size() && prompts_.last_token(static_cast<int32_t>(done)) < first + count; ++done)
      last.push_back(prompts_.last_token(static_cast<int32_t>(done)) - static_cast<int32_t>(first));
    if (last.empty()) continue;
    upload(pass_.rows, last);
    const ix_mat normed = first_rows(pass_.normed, count);
    const ix_mat to = rows_of(pass_.result, static_cast<int64_t>(before), static_cast<int64_t>(last.size()));
    model_.device().call(&ix_backend::gather_rows, &normed, pass_.rows, &to);
  }
  return first_rows(pass_.result, static_cast<int64_t>(segments.size()));
}

ix_mat Decoder::step(int64_t step, const std::vector<int32_t>& live, const std::vector<int32_t>& tokens,
                     const CancelFlag& cancel) {
  const int64_t first = prompts_.size() + step;
  std::vector<int32_t> rows;
  std::vector<int32_t> from(sequences_.size(), 0);  // a finished sequence gets another's row, which nobody reads
  for (size_t i = 0; i < live.size(); ++i) {
    rows.push_back(static_cast<int32_t>(first + live[i] * room_));
    from[static_cast<size_t>(live[i])] = static_cast<int32_t>(i);
  }
  run(tokens, rows, first, room_, from, cancel);
  return first_rows(pass_.normed, static_cast<int64_t>(live.size()));
}

}  // namespace implex

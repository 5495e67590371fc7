// Sums are kept by the operation's place in the table; names only for what takes time.
#include "core/op_profile.h"

#include <algorithm>
#include <array>
#include <atomic>
#include <cstddef>

#include "backend.h"

namespace implex {

namespace {

constexpr size_t kSlots = sizeof(ix_backend) / sizeof(void*);

struct Slot {
  std::atomic<int64_t> calls{0};
  std::atomic<int64_t> nanoseconds{0};
};

std::atomic<bool> switched_on{false};
std::array<Slot, kSlots> slots;

struct Name {
  size_t offset;
  const char* name;
};

#define IMPLEX_OP(op) \
  { offsetof(ix_backend, op), #op }
constexpr Name kNames[] = {
    IMPLEX_OP(alloc),
    IMPLEX_OP(upload),
    IMPLEX_OP(download),
    IMPLEX_OP(synchronize),
    IMPLEX_OP(weight_create),
    IMPLEX_OP(weight_write),
    IMPLEX_OP(weight_refresh),
    IMPLEX_OP(batch_create),
    IMPLEX_OP(embedding),
    IMPLEX_OP(gather_rows),
    IMPLEX_OP(norm),
    IMPLEX_OP(gemm),
    IMPLEX_OP(rope),
    IMPLEX_OP(attention),
    IMPLEX_OP(glu),
    IMPLEX_OP(linear_logprob),
    IMPLEX_OP(linear_reward),
    IMPLEX_OP(scaled_add),
    IMPLEX_OP(top_experts),
    IMPLEX_OP(combine_experts),
    IMPLEX_OP(gemm_backward_input),
    IMPLEX_OP(gemm_backward_weight),
    IMPLEX_OP(norm_backward),
    IMPLEX_OP(glu_backward),
    IMPLEX_OP(attention_backward),
    IMPLEX_OP(embedding_backward),
    IMPLEX_OP(scatter_rows),
    IMPLEX_OP(linear_logprob_backward),
    IMPLEX_OP(linear_reward_backward),
    IMPLEX_OP(top_experts_backward),
    IMPLEX_OP(combine_experts_backward),
    IMPLEX_OP(cast),
    IMPLEX_OP(fill_zero),
    IMPLEX_OP(optimizer_step),
    IMPLEX_OP(sum_of_squares),
};
#undef IMPLEX_OP

}  // namespace

bool OpProfile::on() { return switched_on.load(std::memory_order_relaxed); }

void OpProfile::start() {
  for (Slot& slot : slots) {
    slot.calls.store(0);
    slot.nanoseconds.store(0);
  }
  switched_on.store(true);
}

std::vector<OpProfile::Entry> OpProfile::stop() {
  switched_on.store(false);
  std::vector<Entry> entries;
  for (const Name& name : kNames) {
    const Slot& slot = slots[name.offset / sizeof(void*)];
    const int64_t calls = slot.calls.load();
    if (calls > 0) entries.push_back({name.name, calls, static_cast<double>(slot.nanoseconds.load()) * 1e-9});
  }
  std::sort(entries.begin(), entries.end(), [](const Entry& a, const Entry& b) { return a.seconds > b.seconds; });
  return entries;
}

void OpProfile::add(size_t offset, double seconds) {
  Slot& slot = slots[offset / sizeof(void*)];
  slot.calls.fetch_add(1, std::memory_order_relaxed);
  slot.nanoseconds.fetch_add(static_cast<int64_t>(seconds * 1e9), std::memory_order_relaxed);
}

}  // namespace implex

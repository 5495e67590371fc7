// The CPU device's own types behind backend.h's opaque handles, and helpers that its operations share.
#pragma once

#include <cstdarg>
#include <cstdint>
#include <vector>

#include "backend.h"
#include "core/entry_type.h"
#include "core/thread_pool.h"
#include "cpu/kernels/table.h"

namespace implex::cpu {

// What an operation needs while it runs and the next one can use again: fresh pages would cost more than the work done
// in them.
class Workspace {
 public:
  enum Slot { kTransposed, kPacked, kLogits, kSlots };

  Workspace() = default;
  ~Workspace();
  Workspace(const Workspace&) = delete;
  Workspace& operator=(const Workspace&) = delete;

  // Uninitialised, aligned to 64 bytes; nullptr when there is no memory. Valid until the slot is taken again.
  char* take(Slot slot, size_t bytes);

 private:
  char* data_[kSlots] = {};
  size_t bytes_[kSlots] = {};
};

}  // namespace implex::cpu

struct ix_device {
  const implex::cpu::KernelTable* kernels = nullptr;
  implex::cpu::Workspace workspace;
};

struct ix_weight {
  int32_t dtype = IX_F32;
  int64_t rows = 0, cols = 0;
  int64_t panel = 0;
  int64_t panel_bytes = 0;  // of one panel
  size_t bytes = 0;
  void* panels = nullptr;      // over rows, depth cols: in · weight^T
  void* transposed = nullptr;  // over cols, depth rows: grad · weight; trainable weights only
  int64_t transposed_panel_bytes = 0;

  int64_t panel_count() const { return (rows + panel - 1) / panel; }
  const void* panel_at(int64_t index) const { return static_cast<const char*>(panels) + index * panel_bytes; }
};

struct ix_batch {
  std::vector<ix_segment> segments;
  std::vector<int32_t> segment_of;  // [T]
  std::vector<int32_t> positions;   // [T], in the token's own sequence: a child starts at its parent's length
};

namespace implex::cpu {

// Kernel sets of this build that the processor supports, slowest first. IMPLEX_KERNELS=name picks one of them; without
// it the last is used. (A device is not opened when the name is of no set.)
const std::vector<const KernelTable*>& available_kernels();
const KernelTable* selected_kernels();

int32_t fail(ix_status* status, int32_t code, const char* format, ...) __attribute__((format(printf, 3, 4)));

inline size_t element_size(int32_t dtype) { return dtype == IX_BF16 ? 2 : 4; }
inline const char* row_of(const ix_mat* m, int64_t row) {
  return static_cast<const char*>(m->data) + row * m->stride * static_cast<int64_t>(element_size(m->dtype));
}
inline char* mutable_row_of(const ix_mat* m, int64_t row) {
  return static_cast<char*>(m->data) + row * m->stride * static_cast<int64_t>(element_size(m->dtype));
}

// At least `count` floats of this thread's own scratch memory, aligned to 64 bytes; nullptr when there is no memory.
// Valid until the thread's next call.
float* thread_scratch(size_t count);

// Splits `tasks` over the pool, or runs them here when all of them together are about `cost` operations and too few to
// be worth waking it.
template <typename F>
void for_each_task(int64_t tasks, double cost, const F& body) {
  constexpr double kWorthwhile = 50000;
  if (cost < kWorthwhile) {
    for (int64_t task = 0; task < tasks; ++task) body(task);
  } else {
    ThreadPool::instance().parallel_for(tasks, body);
  }
}

// `body(row)` for all rows, in blocks; `cost` is of one row.
template <typename F>
void for_each_row(int64_t rows, double cost, const F& body) {
  constexpr int64_t kBlock = 16;
  for_each_task((rows + kBlock - 1) / kBlock, cost * static_cast<double>(rows), [&](int64_t task) {
    const int64_t end = task * kBlock + kBlock < rows ? task * kBlock + kBlock : rows;
    for (int64_t row = task * kBlock; row < end; ++row) body(row);
  });
}

// A packed operand: panel after panel over `columns`, each `panel_depth` deep, of which `depth` from `panels` on is
// summed.
struct Packed {
  const void* panels;
  int32_t dtype;
  int64_t columns, depth, panel_depth, panel_bytes;
};
Packed packed(const ix_weight& weight);             // [depth cols] -> rows
Packed packed_transposed(const ix_weight& weight);  // [depth rows] -> cols

// out[M, columns] = in[M, depth] · packed + bias + residual, in tiles over the pool.
int32_t product(ix_device* device, const ix_mat* in, const Packed& with, const float* bias, const ix_mat* residual,
                const ix_mat* out, ix_status* status);

inline int64_t depth_bytes(int32_t dtype, int64_t panel, int64_t depth) {
  return panel * (dtype == IX_F32 ? depth * 4 : (depth + 1) / 2 * 4);
}

// The operations; backend.h has their signatures.
EntryType<&ix_backend::embedding> embedding;
EntryType<&ix_backend::gather_rows> gather_rows;
EntryType<&ix_backend::norm> norm;
EntryType<&ix_backend::gemm> gemm;
EntryType<&ix_backend::rope> rope;
EntryType<&ix_backend::attention> attention;
EntryType<&ix_backend::glu> glu;
EntryType<&ix_backend::linear_logprob> linear_logprob;
EntryType<&ix_backend::linear_reward> linear_reward;
EntryType<&ix_backend::scaled_add> scaled_add;
EntryType<&ix_backend::top_experts> top_experts;
EntryType<&ix_backend::combine_experts> combine_experts;
EntryType<&ix_backend::gemm_backward_input> gemm_backward_input;
EntryType<&ix_backend::gemm_backward_weight> gemm_backward_weight;
EntryType<&ix_backend::norm_backward> norm_backward;
EntryType<&ix_backend::glu_backward> glu_backward;
EntryType<&ix_backend::attention_backward> attention_backward;
EntryType<&ix_backend::embedding_backward> embedding_backward;
EntryType<&ix_backend::scatter_rows> scatter_rows;
EntryType<&ix_backend::linear_logprob_backward> linear_logprob_backward;
EntryType<&ix_backend::linear_reward_backward> linear_reward_backward;
EntryType<&ix_backend::top_experts_backward> top_experts_backward;
EntryType<&ix_backend::combine_experts_backward> combine_experts_backward;
EntryType<&ix_backend::cast> cast;
EntryType<&ix_backend::optimizer_step> optimizer_step;
EntryType<&ix_backend::sum_of_squares> sum_of_squares;

}  // namespace implex::cpu

// The CPU's table, always linked in.
extern "C" const ix_backend* implex_cpu_backend(void);

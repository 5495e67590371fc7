// ThreadPool: the process's one pool of compute threads. Several models, engines and worker_threads share it, so the
// machine is never oversubscribed: whole parallel regions take turns, first come first served.
#pragma once

#include <cstdint>

namespace implex {

class ThreadPool {
 public:
  // Created at first use and never destroyed: threads of a terminating process may still be inside it. Size:
  // IMPLEX_THREADS if set to 1..1024, else the number of processors that this process may run on.
  static ThreadPool& instance();
  // What IMPLEX_THREADS asks for: 0 where it is unset or empty, -1 where it is no number from 1 to 1024.
  static int requested_size();

  int size() const { return size_; }

  // Calls run(context, task) for every task in [0, tasks), on the calling thread and the pool's. `run` must not throw
  // and must not call parallel_for. Which thread runs a task is unspecified: results must not depend on it.
  using Run = void (*)(const void* context, int64_t task);
  void parallel_for(int64_t tasks, const void* context, Run run);

  template <typename F>
  void parallel_for(int64_t tasks, const F& body) {
    parallel_for(tasks, &body, [](const void* context, int64_t task) { (*static_cast<const F*>(context))(task); });
  }

 private:
  struct State;
  explicit ThreadPool(int size);
  void work();

  int size_;
  State* state_;
};

}  // namespace implex

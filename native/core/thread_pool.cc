// The pool: tasks are handed out by an atomic counter; idle threads spin briefly (a batch is many short regions) and
// then sleep.
#include "core/thread_pool.h"

#include <atomic>
#include <condition_variable>
#include <cstdlib>
#include <exception>
#include <mutex>
#include <thread>
#if defined(__linux__)
#include <sched.h>
#endif

namespace implex {

namespace {

int default_size() {
  if (const int requested = ThreadPool::requested_size(); requested > 0) return requested;
#if defined(__linux__)
  cpu_set_t set;
  if (sched_getaffinity(0, sizeof set, &set) == 0) {
    const int count = CPU_COUNT(&set);
    if (count >= 1) return count;
  }
#endif
  const unsigned count = std::thread::hardware_concurrency();
  return count == 0 ? 1 : static_cast<int>(count);
}

inline void pause_briefly() {
#if defined(__x86_64__) || defined(__i386__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  asm volatile("yield");
#endif
}

constexpr int kSpins = 2000;

}  // namespace

struct ThreadPool::State {
  // Turn-taking between callers.
  std::mutex turn_mutex;
  std::condition_variable turn_changed;
  uint64_t next_ticket = 0;
  uint64_t now_serving = 0;

  // The region in progress. Written by its caller before `generation` is advanced.
  std::mutex mutex;
  std::condition_variable started;
  std::condition_variable finished;
  std::atomic<uint64_t> generation{0};
  std::atomic<int> busy{0};  // pool threads that have not yet left the region
  Run run = nullptr;
  const void* context = nullptr;
  int64_t tasks = 0;
  std::atomic<int64_t> next{0};

  void drain() {
    for (;;) {
      const int64_t task = next.fetch_add(1, std::memory_order_relaxed);
      if (task >= tasks) return;
      run(context, task);
    }
  }
};

int ThreadPool::requested_size() {
  const char* text = std::getenv("IMPLEX_THREADS");
  if (text == nullptr || *text == '\0') return 0;
  char* end = nullptr;
  const long value = std::strtol(text, &end, 10);
  return *end == '\0' && value >= 1 && value <= 1024 ? static_cast<int>(value) : -1;
}

ThreadPool& ThreadPool::instance() {
  static ThreadPool* pool = new ThreadPool(default_size());
  return *pool;
}

ThreadPool::ThreadPool(int size) : size_(size), state_(new State) {
  int started = 1;
  for (int worker = 1; worker < size; ++worker) {
    try {
      std::thread([this] { work(); }).detach();
      ++started;
    } catch (const std::exception&) {
      break;  // the system gives no more threads: go on with those there are
    }
  }
  size_ = started;
}

void ThreadPool::work() {
  State& s = *state_;
  uint64_t seen = 0;
  for (;;) {
    int spins = 0;
    while (s.generation.load(std::memory_order_acquire) == seen) {
      if (++spins < kSpins) {
        pause_briefly();
        continue;
      }
      std::unique_lock<std::mutex> lock(s.mutex);
      s.started.wait(lock, [&] { return s.generation.load(std::memory_order_acquire) != seen; });
    }
    ++seen;
    s.drain();
    if (s.busy.fetch_sub(1, std::memory_order_acq_rel) == 1) {
      std::lock_guard<std::mutex> lock(s.mutex);
      s.finished.notify_one();
    }
  }
}

void ThreadPool::parallel_for(int64_t tasks, const void* context, Run run) {
  if (tasks <= 0) return;
  if (size_ == 1 || tasks == 1) {
    for (int64_t task = 0; task < tasks; ++task) run(context, task);
    return;
  }
  State& s = *state_;
  {
    std::unique_lock<std::mutex> lock(s.turn_mutex);
    const uint64_t ticket = s.next_ticket++;
    s.turn_changed.wait(lock, [&] { return s.now_serving == ticket; });
  }
  s.run = run;
  s.context = context;
  s.tasks = tasks;
  s.next.store(0, std::memory_order_relaxed);
  s.busy.store(size_ - 1, std::memory_order_relaxed);
  {
    std::lock_guard<std::mutex> lock(s.mutex);
    s.generation.fetch_add(1, std::memory_order_release);
  }
  s.started.notify_all();
  s.drain();
  for (int spins = 0; s.busy.load(std::memory_order_acquire) != 0;) {
    if (++spins < kSpins) {
      pause_briefly();
      continue;
    }
    std::unique_lock<std::mutex> lock(s.mutex);
    s.finished.wait(lock, [&] { return s.busy.load(std::memory_order_acquire) == 0; });
  }
  {
    std::lock_guard<std::mutex> lock(s.turn_mutex);
    ++s.now_serving;
  }
  s.turn_changed.notify_all();
}

}  // namespace implex

// ThreadPool: every task exactly once, many callers at once, thousands of small regions. Run again in processes of 1, 2
// and 5 threads.
#include "core/thread_pool.h"

#include <atomic>
#include <cstdlib>
#include <memory>
#include <thread>

#include "support.h"

using namespace implex;
using namespace implex::test;

namespace {

void every_task_once(int64_t tasks) {
  const auto counts = std::make_unique<std::atomic<int>[]>(static_cast<size_t>(tasks));
  ThreadPool::instance().parallel_for(tasks, [&](int64_t task) { counts[static_cast<size_t>(task)].fetch_add(1); });
  for (int64_t i = 0; i < tasks; ++i)
    CHECK(counts[static_cast<size_t>(i)].load() == 1, "task %d of %d ran %d times", int(i), int(tasks),
          counts[static_cast<size_t>(i)].load());
}

}  // namespace

TEST(thread_pool_every_task_once) {
  ThreadPool::instance().parallel_for(0, [](int64_t) { std::abort(); });
  ThreadPool::instance().parallel_for(-1, [](int64_t) { std::abort(); });
  for (const int64_t tasks : {1, 2, 3, 7, 64, 1000, 100000}) every_task_once(tasks);
}

TEST(thread_pool_small_regions) {
  int64_t total = 0;
  for (int region = 0; region < 20000; ++region) {
    // Plain memory, written by whoever runs a task and read here: the region's end must make it visible.
    int64_t values[5] = {};
    ThreadPool::instance().parallel_for(5, [&](int64_t task) { values[task] = task + region; });
    for (const int64_t value : values) total += value;
  }
  CHECK(total == int64_t{20000} * 10 + int64_t{5} * 19999 * 10000, "total %lld", static_cast<long long>(total));
}

TEST(thread_pool_uneven_tasks) {
  for (int region = 0; region < 20; ++region) {
    std::atomic<int64_t> sum{0};
    ThreadPool::instance().parallel_for(8, [&](int64_t task) {
      if (task == 0) std::this_thread::sleep_for(std::chrono::milliseconds(2));  // others go to sleep meanwhile
      sum += task;
    });
    CHECK(sum.load() == 28, "sum %lld", static_cast<long long>(sum.load()));
  }
}

TEST(thread_pool_many_callers) {
  constexpr int kCallers = 12, kRegions = 300;
  std::atomic<int> wrong{0};
  std::vector<std::thread> callers;
  for (int caller = 0; caller < kCallers; ++caller) {
    callers.emplace_back([&, caller] {
      for (int region = 0; region < kRegions; ++region) {
        int64_t values[17] = {};
        ThreadPool::instance().parallel_for(17, [&](int64_t task) { values[task] += caller * 1000 + region + task; });
        for (int64_t task = 0; task < 17; ++task)
          if (values[task] != caller * 1000 + region + task) ++wrong;
      }
    });
  }
  for (std::thread& caller : callers) caller.join();
  CHECK(wrong.load() == 0, "%d values are wrong", wrong.load());
}

TEST(thread_pool_sizes) {
  const char* inside = std::getenv("IMPLEX_TEST_CHILD");
  if (inside != nullptr) {
    if (const char* size = std::getenv("IMPLEX_TEST_SIZE"))
      CHECK(ThreadPool::instance().size() == std::atoi(size), "size %d, want %s", ThreadPool::instance().size(), size);
    return;
  }
  for (const char* size : {"1", "2", "5"}) {
    const Run run =
        run_again(text("IMPLEX_TEST_CHILD=1 IMPLEX_TEST_SIZE=%s IMPLEX_THREADS=%s", size, size), "thread_pool");
    CHECK(run.status == 0, "with %s threads:\n%s", size, run.output.c_str());
  }
  // Values that make no sense are ignored.
  for (const char* size : {"0", "-3", "x", "2x", "99999999999999999999"}) {
    const Run run = run_again(text("IMPLEX_TEST_CHILD=1 IMPLEX_THREADS=%s", size), "thread_pool_every");
    CHECK(run.status == 0, "with IMPLEX_THREADS=%s:\n%s", size, run.output.c_str());
  }
}

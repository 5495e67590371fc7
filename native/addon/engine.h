// Engine: a FIFO queue of jobs and the one thread that works it off. Every JavaScript environment (the main thread,
// each worker_thread) has its own; the compute pool behind them is the process's. Plain C++ on purpose: what touches
// Node-API is in host.h.
//
// "JS thread" below is the thread of the environment that owns the engine. All public members are called there.
#pragma once

#include <js_native_api_types.h>

#include <condition_variable>
#include <functional>
#include <list>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <thread>

#include "core/cancel.h"
#include "core/error.h"

namespace implex::addon {

// What a promise is rejected with. A failed allocation leaves `message` empty: the job words it later, when memory may
// be had again.
struct Failure {
  ErrorCode code = ErrorCode::kInternal;
  std::string message = {};
  ErrorFields fields = {};
};

// The failure that the exception being handled stands for. Never throws.
Failure current_failure() noexcept;

// What jobs work on (a model, a trainer), shared by its JavaScript handle and the jobs that use it, so that neither
// dispose() nor the garbage collector can take it from under a running job. After loading, only the engine thread
// touches what is inside.
class Resource {
 public:
  virtual ~Resource() = default;
  virtual const char* noun() const = 0;  // for messages: "model"
};

class Job {
 public:
  virtual ~Job() = default;
  // On the engine thread. May throw.
  virtual void execute() = 0;
  // On the JS thread while the environment lives; not called at all once it is being torn down.
  virtual void settle(napi_env env) = 0;

  const std::shared_ptr<CancelFlag> cancel = std::make_shared<CancelFlag>();
  std::shared_ptr<Resource> resource;  // null for a load
  std::optional<Failure> failure;
  bool resource_disposed = false;  // guarded by the engine's mutex until the job is finished
};

class Engine {
 public:
  // `wake` is called, on either thread, when finished jobs begin to wait for take_finished(). It must not block or
  // throw.
  explicit Engine(std::function<void()> wake) : wake_(std::move(wake)) {}
  ~Engine() { stop(); }
  Engine(const Engine&) = delete;
  Engine& operator=(const Engine&) = delete;

  // Starts the thread on first use. Throws std::system_error when the system gives none, with the job untouched.
  void submit(std::unique_ptr<Job>& job);

  // Finished jobs in the order they finished; each is returned once.
  std::list<std::unique_ptr<Job>> take_finished();

  // Queued jobs whose flag is set finish at once with ERR_ABORTED.
  void drop_cancelled();

  // Queued jobs of the resource finish with ERR_DISPOSED, its running one is cancelled, and the reference dies on the
  // engine thread.
  void dispose(std::shared_ptr<Resource> resource);

  // Only the last: the resource may have jobs in the queue, and they will run.
  void release(std::shared_ptr<Resource> resource);

  // Cancels the running job, destroys the others unsettled and joins the thread: waits for as long as the running job
  // takes to notice, never for the JS thread. Idempotent; afterwards submit() throws Error(kAborted).
  void stop();

 private:
  using Jobs = std::list<std::unique_ptr<Job>>;  // lists, because splicing never allocates

  void loop();
  // Moves the queued jobs that `fails` picks to finished_; the caller holds the mutex. Returns whether to wake the JS
  // thread.
  bool finish_queued(const std::function<bool(Job&)>& fails);
  void discard(std::unique_lock<std::mutex>& lock, std::shared_ptr<Resource> resource);

  const std::function<void()> wake_;
  std::mutex mutex_;
  std::condition_variable changed_;
  Jobs queue_;
  Jobs finished_;
  std::list<std::shared_ptr<Resource>> garbage_;  // to be destroyed on the engine thread
  Job* running_ = nullptr;
  bool stopping_ = false;
  std::thread thread_;
};

}  // namespace implex::addon

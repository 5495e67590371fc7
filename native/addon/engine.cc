// The engine thread and its queue.
#include "addon/engine.h"

#include <new>
#include <utility>

namespace implex::addon {

Failure current_failure() noexcept {
  Failure failure;
  try {
    throw;
  } catch (const Error& error) {
    failure.code = error.code();
    try {
      failure.message = error.what();
      failure.fields = error.fields();
    } catch (...) {
    }
  } catch (const std::bad_alloc&) {
    failure.code = ErrorCode::kOutOfMemory;
  } catch (const std::exception& error) {
    try {
      failure.message = error.what();
    } catch (...) {
    }
  } catch (...) {
  }
  return failure;
}

void Engine::submit(std::unique_ptr<Job>& job) {
  std::lock_guard<std::mutex> lock(mutex_);
  if (stopping_) throw Error(ErrorCode::kAborted, "the environment is shutting down");
  Jobs one;
  one.push_back(nullptr);
  if (!thread_.joinable()) thread_ = std::thread([this] { loop(); });
  one.front() = std::move(job);
  queue_.splice(queue_.end(), one);
  changed_.notify_one();
}

std::list<std::unique_ptr<Job>> Engine::take_finished() {
  std::lock_guard<std::mutex> lock(mutex_);
  Jobs taken;
  taken.swap(finished_);
  return taken;
}

bool Engine::finish_queued(const std::function<bool(Job&)>& fails) {
  const bool waiting = !finished_.empty();
  for (auto it = queue_.begin(); it != queue_.end();) {
    const auto next = std::next(it);
    if (fails(**it)) {
      if ((*it)->resource) garbage_.push_back(std::move((*it)->resource));
      finished_.splice(finished_.end(), queue_, it);
    }
    it = next;
  }
  changed_.notify_one();
  return !waiting && !finished_.empty();
}

void Engine::drop_cancelled() {
  bool wake = false;
  {
    std::lock_guard<std::mutex> lock(mutex_);
    wake = finish_queued([](Job& job) {
      if (!job.cancel->cancelled()) return false;
      job.failure = Failure{ErrorCode::kAborted, "the operation was aborted before it began"};
      return true;
    });
  }
  if (wake) wake_();
}

void Engine::dispose(std::shared_ptr<Resource> resource) {
  bool wake = false;
  {
    std::unique_lock<std::mutex> lock(mutex_);
    wake = finish_queued([&](Job& job) {
      if (job.resource != resource) return false;
      job.failure = Failure{ErrorCode::kDisposed,
                            std::string("the ") + resource->noun() + " was disposed before this call began"};
      return true;
    });
    if (running_ != nullptr && running_->resource == resource) {
      running_->resource_disposed = true;
      running_->cancel->cancel();
    }
    discard(lock, std::move(resource));
  }
  if (wake) wake_();
}

void Engine::release(std::shared_ptr<Resource> resource) {
  std::unique_lock<std::mutex> lock(mutex_);
  discard(lock, std::move(resource));
}

void Engine::discard(std::unique_lock<std::mutex>& lock, std::shared_ptr<Resource> resource) {
  if (stopping_ || !thread_.joinable()) {
    lock.unlock();  // no engine thread any more: `resource` dies here, on the JS thread
    return;
  }
  garbage_.push_back(std::move(resource));
  changed_.notify_one();
}

void Engine::stop() {
  {
    std::lock_guard<std::mutex> lock(mutex_);
    stopping_ = true;
    if (running_ != nullptr) running_->cancel->cancel();
  }
  changed_.notify_one();
  if (thread_.joinable()) thread_.join();
}

void Engine::loop() {
  std::unique_lock<std::mutex> lock(mutex_);
  const auto empty_garbage = [&] {
    std::list<std::shared_ptr<Resource>> garbage;
    garbage.swap(garbage_);
    lock.unlock();
    garbage.clear();
    lock.lock();
  };
  for (;;) {
    changed_.wait(lock, [this] { return stopping_ || !queue_.empty() || !garbage_.empty(); });
    if (!garbage_.empty()) {
      empty_garbage();
      continue;
    }
    if (stopping_) break;

    Jobs current;
    current.splice(current.begin(), queue_, queue_.begin());
    Job& job = *current.front();
    running_ = &job;
    lock.unlock();
    try {
      job.cancel->check();
      job.execute();
    } catch (...) {
      job.failure = current_failure();
    }
    lock.lock();
    running_ = nullptr;
    if (job.resource_disposed && job.failure && job.failure->code == ErrorCode::kAborted) {
      job.failure->message.assign(std::string("the ") + job.resource->noun() +
                                  " was disposed while this call was running");
    }
    // Let go of the resource here, and before the promise settles: whoever awaits a disposed one's last job finds the
    // memory given back.
    if (job.resource) garbage_.push_back(std::move(job.resource));
    empty_garbage();
    const bool wake = finished_.empty();
    finished_.splice(finished_.end(), current);
    if (wake) {
      lock.unlock();
      wake_();
      lock.lock();
    }
  }

  // Nobody will settle what is left; it dies here, where resources die.
  Jobs left;
  left.splice(left.end(), queue_);
  left.splice(left.end(), finished_);
  lock.unlock();
}

}  // namespace implex::addon

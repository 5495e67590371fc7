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
      if ((*it)->model) garbage_.push_back(std::move((*it)->model));
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

void Engine::dispose(std::shared_ptr<LoadedModel> model) {
  bool wake = false;
  {
    std::unique_lock<std::mutex> lock(mutex_);
    wake = finish_queued([&](Job& job) {
      if (job.model != model) return false;
      job.failure = Failure{ErrorCode::kDisposed, "the model was disposed before this call began"};
      return true;
    });
    if (running_ != nullptr && running_->model == model) {
      running_->model_disposed = true;
      running_->cancel->cancel();
    }
    discard(lock, std::move(model));
  }
  if (wake) wake_();
}

void Engine::release(std::shared_ptr<LoadedModel> model) {
  std::unique_lock<std::mutex> lock(mutex_);
  discard(lock, std::move(model));
}

void Engine::discard(std::unique_lock<std::mutex>& lock, std::shared_ptr<LoadedModel> model) {
  if (stopping_ || !thread_.joinable()) {
    lock.unlock();  // no engine thread any more: `model` dies here, on the JS thread
    return;
  }
  garbage_.push_back(std::move(model));
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
    std::list<std::shared_ptr<LoadedModel>> garbage;
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
    if (job.model_disposed && job.failure && job.failure->code == ErrorCode::kAborted) {
      job.failure->message.assign("the model was disposed while this call was running");
    }
    // Let go of the model here, and before the promise settles: whoever awaits a disposed model's last job finds the
    // memory given back.
    if (job.model) garbage_.push_back(std::move(job.model));
    empty_garbage();
    const bool wake = finished_.empty();
    finished_.splice(finished_.end(), current);
    if (wake) {
      lock.unlock();
      wake_();
      lock.lock();
    }
  }

  // Nobody will settle what is left; it dies here, where models die.
  Jobs left;
  left.splice(left.end(), queue_);
  left.splice(left.end(), finished_);
  lock.unlock();
}

}  // namespace implex::addon

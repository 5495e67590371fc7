// CUDA graphs (IMPLEX_CUDA_GRAPHS): operations between record_begin and record_end are captured from the stream and
// launched together, for passes so short that launching takes longer than the work.
//
// Batches differ in sizes and addresses, so no graph is launched twice as it is: each recording is captured, and a kept
// executable graph is brought up to date with it, or made from it where the two do not match. What runs is always what
// was recorded just now, so a graph can change no number.
//
// What a captured stream cannot do goes through Call::at_once: more scratch, copies from or to the host, waiting, and
// the first launch of a kernel, for which CUDA may have to load its code. Then the capture ends there and is launched,
// and the rest of the recording goes to the stream one by one. Either way the stream gets everything in the order of
// the calls.
#include <new>
#include <utility>

#include "device.h"

namespace implex::cuda {

namespace {

int32_t refused(const Call& call, const char* doing, cudaError_t error) {
  const int32_t code = call.check(error);  // a device that is lost, or out of memory, has a text of its own
  if (code != IX_INTERNAL || call.device->lost) return code;
  return call.fail(code, "%s: CUDA error %s: %s; %s", doing, cudaGetErrorName(error), cudaGetErrorString(error),
                   kWithoutGraphs);
}

// A graph that is still running ends first, by itself.
void destroy(cudaGraphExec_t* graph) {
  if (*graph != nullptr && cudaGraphExecDestroy(*graph) != cudaSuccess) cudaGetLastError();
  *graph = nullptr;
}
void destroy(cudaGraph_t graph) {
  if (graph != nullptr && cudaGraphDestroy(graph) != cudaSuccess) cudaGetLastError();
}

int32_t launch(const Call& call, cudaGraph_t graph) {
  Recorder& recorder = call.device->recorder;
  size_t nodes = 0;
  cudaError_t error = cudaGraphGetNodes(graph, nullptr, &nodes);
  if (error != cudaSuccess) return refused(call, "counting the nodes of a graph", error);
  if (nodes == 0) return IX_OK;
  cudaGraphExec_t* kept = &recorder.graphs[recorder.slots.take(nodes)];
  // An update concerns later launches only, so one that is still under way does not matter. Whatever the reason for a
  // refusal, a new graph is made; an error that concerns the device comes back from that.
  cudaGraphExecUpdateResultInfo ignored = {};
  if (*kept != nullptr && cudaGraphExecUpdate(*kept, graph, &ignored) != cudaSuccess) {
    cudaGetLastError();
    destroy(kept);
  }
  if (*kept == nullptr) {
    error = cudaGraphInstantiateWithFlags(kept, graph, 0);
    if (error != cudaSuccess) {
      *kept = nullptr;
      return refused(call, "making a graph", error);
    }
  }
  error = cudaGraphLaunch(*kept, call.device->stream);
  return error == cudaSuccess ? IX_OK : refused(call, "launching a graph", error);
}

// Ends the capture. The recorder's state says already that there is none, so that an error may ask the stream.
int32_t launch_captured(const Call& call) {
  cudaGraph_t graph = nullptr;
  const cudaError_t error = cudaStreamEndCapture(call.device->stream, &graph);
  const int32_t code = error == cudaSuccess ? launch(call, graph) : refused(call, "ending a capture", error);
  destroy(graph);
  return code;
}

}  // namespace

int32_t Call::at_once() const {
  Recorder& recorder = device->recorder;
  if (recorder.state != Recorder::kCapturing) return IX_OK;
  recorder.state = Recorder::kAtOnce;
  const int32_t code = launch_captured(*this);
  if (code != IX_OK) recorder.state = Recorder::kFailed;
  return code;
}

int32_t Call::note_launch(const void* kernel) const {
  if (!device->settings.graphs) return IX_OK;
  try {
    return device->recorder.launched.insert(kernel).second ? at_once() : IX_OK;
  } catch (const std::bad_alloc&) {
    return fail(IX_OUT_OF_MEMORY, "out of host memory");
  }
}

int32_t record_begin(ix_device* device, ix_status* status) {
  Call call(device, status, "record_begin");
  const int32_t code = call.begin();
  if (code != IX_OK || !device->settings.graphs) return code;
  if (device->recorder.state != Recorder::kNone) return call.fail(IX_INVALID, "a recording is under way");
  // Relaxed: the other modes refuse this thread, or every thread, calls that are only unsafe where a graph is launched
  // again without its capture (cudaMalloc, loading code), and such a call of a library would spoil the capture.
  const cudaError_t error = cudaStreamBeginCapture(device->stream, cudaStreamCaptureModeRelaxed);
  if (error != cudaSuccess) return refused(call, "beginning a capture", error);
  device->recorder.state = Recorder::kCapturing;
  return IX_OK;
}

int32_t record_end(ix_device* device, int32_t keep, ix_status* status) {
  Call call(device, status, "record_end");
  const Recorder::State state = std::exchange(device->recorder.state, Recorder::kNone);
  if (state == Recorder::kFailed && keep != 0)
    return call.fail(IX_INTERNAL, "an earlier part of the recording could not be launched");
  if (state != Recorder::kCapturing) return IX_OK;
  const int32_t code = call.begin();
  if (code == IX_OK && keep != 0) return launch_captured(call);
  cudaGraph_t graph = nullptr;
  // An operation that failed may have spoiled the capture, which is an error here and of no further use.
  if (cudaStreamEndCapture(device->stream, &graph) != cudaSuccess) cudaGetLastError();
  destroy(graph);
  return code;
}

void destroy_graphs(ix_device* device) {
  for (cudaGraphExec_t& graph : device->recorder.graphs) destroy(&graph);
}

}  // namespace implex::cuda

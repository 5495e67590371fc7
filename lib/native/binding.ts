/**
 * Everything that the addon exports. native/addon/addon.cc implements it.
 */
import type { NativeKernels } from './kernel-calls.js'
import type { ModelSpec, WeightSource } from './spec.js'
import type {
  DeviceProbe,
  NativeCancel,
  NativeInfo,
  NativeModel,
  NativeTrainer,
  NativeTrainMemory,
  NativeTrainOptions,
  OpenOptions,
} from './types.js'

/**
 * What the `.node` file exports. Its errors are plain Errors with a `code` and, where they are known, what ImplexError has under the same
 * names: `pair`, `step`, `parameter`, `tensor`.
 */
export interface NativeBinding extends NativeKernels {
  info(): NativeInfo
  probeDevice(modulePath: string): DeviceProbe
  openModel(spec: ModelSpec, options: OpenOptions, cancel?: NativeCancel): Promise<NativeModel>
  openTrainer(
    spec: ModelSpec,
    options: OpenOptions,
    train: NativeTrainOptions,
    cancel?: NativeCancel,
  ): Promise<NativeTrainer>
  /**
   * What training will take at least, before anything is loaded: `weights` without the padding and second layouts that a device may add, and
   * no activations; the rest as NativeTrainer.memory() has it. Throws with ERR_CONFIG_INVALID as openTrainer rejects.
   */
  trainMemory(spec: ModelSpec, options: OpenOptions, train: NativeTrainOptions): NativeTrainMemory
  /** Reads a matrix. @returns [columns] the mean of its rows: what the engine gives the rows that ModelSpec.addedTokens adds to it */
  meanRow(source: WeightSource, cancel?: NativeCancel): Promise<Float32Array>
  createCancel(): NativeCancel
  /** Takes the operating system's lock of an open file. The lock ends with the file or its process. @returns false if another process has it */
  lockFile(descriptor: number): boolean
}

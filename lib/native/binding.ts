/**
 * What the addon exports, as a whole: native/addon/addon.cc implements it.
 */
import type { NativeKernels } from './kernel-calls.js'
import type { ModelSpec } from './spec.js'
import type {
  DeviceProbe,
  NativeCancel,
  NativeInfo,
  NativeModel,
  NativeTrainer,
  NativeTrainOptions,
  OpenOptions,
} from './types.js'

/** What the `.node` file exports. Its errors are plain Errors with a `code`. */
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
  createCancel(): NativeCancel
  /** Takes the system's lock of an open file, which goes with the file or its process; false when somebody else has it. */
  lockFile(descriptor: number): boolean
}

/**
 * The calls of the engine that the rest of the library uses.
 *
 * They turn native errors into ImplexError with the stack of whoever called; wrong arguments stay TypeError and RangeError. Every call
 * copies its typed arrays before it returns, so the caller may reuse them at once, and computes off the event loop.
 */
import { onAbort } from '../core/abort.js'
import { ImplexError, type ImplexErrorCode, type ImplexErrorOptions } from '../core/errors.js'
import { loadBinding } from './load.js'
import type { ModelSpec, WeightSource } from './spec.js'
import type {
  Cancellation,
  DeviceProbe,
  NativeBatch,
  NativeCancel,
  NativeGenerateRequest,
  NativeGeneration,
  NativeInfo,
  NativeModel,
  NativeParameter,
  NativeScores,
  NativeTrainBatch,
  NativeTrainMemory,
  NativeTrainOptions,
  NativeTrainResult,
  NativeTrainer,
  OpenOptions,
} from './types.js'

/** What both wrappers below have in common: signals are taken too, and errors are ImplexErrors with the caller's stack. */
abstract class NativeHandle<N extends NativeModel | NativeTrainer> implements Disposable {
  protected readonly native: N
  constructor(native: N) {
    this.native = native
  }
  get weightBytes(): number {
    return this.native.weightBytes
  }
  get device(): string {
    return this.native.device
  }
  get kernels(): string {
    return this.native.kernels
  }
  get disposed(): boolean {
    return this.native.disposed
  }
  score(batch: NativeBatch, cancel?: Cancellation): Promise<NativeScores> {
    return awaitNative(this.score, cancel, (flag) => this.native.score(batch, flag))
  }
  dispose(): void {
    this.native.dispose()
  }
  [Symbol.dispose](): void {
    this.dispose()
  }
}

/** A loaded model: a NativeModel's members. */
export class Model extends NativeHandle<NativeModel> {
  /** Tokens that each expert got in all calls of score() so far, as in NativeScores; absent without experts. */
  expertLoad?: Float64Array
  override async score(batch: NativeBatch, cancel?: Cancellation): Promise<NativeScores> {
    const scores = await awaitNative(this.score, cancel, (flag) => this.native.score(batch, flag))
    if (scores.expertLoad !== undefined) {
      this.expertLoad ??= new Float64Array(scores.expertLoad.length)
      const sum = this.expertLoad
      for (const [i, tokens] of scores.expertLoad.entries()) sum[i] = (sum[i] as number) + tokens
    }
    return scores
  }
  get hasHead(): boolean {
    return this.native.hasHead
  }
  get hasUnembedding(): boolean {
    return this.native.hasUnembedding
  }
  generate(request: NativeGenerateRequest, cancel?: Cancellation): Promise<NativeGeneration> {
    return awaitNative(this.generate, cancel, (flag) => this.native.generate(request, flag))
  }
  /** See NativeModel. @throws ImplexError as openModel does, and ERR_CONFIG_INVALID for a spec of another model */
  withAdapters(spec: ModelSpec, cancel?: Cancellation): Promise<Model> {
    return awaitNative(this.withAdapters, cancel, async (flag) => new Model(await this.native.withAdapters(spec, flag)))
  }
  setHead(weight: Float32Array): void {
    callNative(this.setHead, () => this.native.setHead(weight))
  }
}

/** A model in training: a NativeTrainer's members. */
export class Trainer extends NativeHandle<NativeTrainer> {
  get parameters(): NativeParameter[] {
    return this.native.parameters
  }
  accumulate(batch: NativeTrainBatch, cancel?: Cancellation): Promise<NativeTrainResult> {
    return awaitNative(this.accumulate, cancel, (flag) => this.native.accumulate(batch, flag))
  }
  step(options: { learningRate: number; maxNorm: number }): Promise<number> {
    return awaitNative(this.step, undefined, () => this.native.step(options))
  }
  zeroGradients(): Promise<void> {
    return awaitNative(this.zeroGradients, undefined, () => this.native.zeroGradients())
  }
  parameter(role: string): Promise<Float32Array> {
    return awaitNative(this.parameter, undefined, () => this.native.parameter(role))
  }
  gradient(role: string): Promise<Float32Array> {
    return awaitNative(this.gradient, undefined, () => this.native.gradient(role))
  }
  saveState(path: string): Promise<void> {
    return awaitNative(this.saveState, undefined, () => this.native.saveState(path))
  }
  loadState(path: string): Promise<void> {
    return awaitNative(this.loadState, undefined, () => this.native.loadState(path))
  }
  steps(): Promise<number> {
    return awaitNative(this.steps, undefined, () => this.native.steps())
  }
  memory(tokens: number, rows: number): NativeTrainMemory {
    return callNative(this.memory, () => this.native.memory(tokens, rows))
  }
}

/**
 * Reads a model's weights and moves them to the device.
 * @throws ImplexError ERR_CONFIG_INVALID, ERR_TENSOR_*, ERR_WEIGHT_NOT_FINITE, ERR_IO, ERR_OUT_OF_MEMORY, ERR_DEVICE_UNAVAILABLE, ERR_ABORTED
 */
export function openModel(spec: ModelSpec, options: OpenOptions, cancel?: Cancellation): Promise<Model> {
  return awaitNative(openModel, cancel, async (flag) => new Model(await loadBinding().openModel(spec, options, flag)))
}

/**
 * Reads a model's weights to train it.
 * @throws ImplexError as openModel does, and ERR_CONFIG_INVALID for options that do not fit the model
 */
export function openTrainer(
  spec: ModelSpec,
  options: OpenOptions,
  train: NativeTrainOptions,
  cancel?: Cancellation,
): Promise<Trainer> {
  return awaitNative(
    openTrainer,
    cancel,
    async (flag) => new Trainer(await loadBinding().openTrainer(spec, options, train, flag)),
  )
}

/** What was built, and what it found on this machine. */
export function nativeInfo(): NativeInfo {
  return loadBinding().info()
}

/**
 * Loads a device module, opens the device and closes it again. Blocks while it does. A broken driver can end the process: call it in a
 * child process.
 */
export function probeDevice(modulePath: string): DeviceProbe {
  return callNative(probeDevice, () => loadBinding().probeDevice(modulePath))
}

/**
 * What training will take at least, before anything is loaded: `weights` without what a device may add to them, and no activations.
 * @throws ImplexError ERR_CONFIG_INVALID for options that do not fit the model
 */
export function trainMemory(spec: ModelSpec, options: OpenOptions, train: NativeTrainOptions): NativeTrainMemory {
  return callNative(trainMemory, () => loadBinding().trainMemory(spec, options, train))
}

/**
 * The row that the engine gives to each of a matrix's added rows: the mean of the stored ones, read from its file.
 * @throws ImplexError as openModel does
 */
export function meanRow(source: WeightSource, cancel?: Cancellation): Promise<Float32Array> {
  return awaitNative(meanRow, cancel, (flag) => loadBinding().meanRow(source, flag))
}

/** Whose signal a flag follows: an aborted call's error has the signal's reason as its cause. */
const SIGNALS = new WeakMap<NativeCancel, AbortSignal>()

/** A flag that several calls share. @param signal whose reason their errors carry; whoever makes the flag raises it */
export function createCancel(signal?: AbortSignal): NativeCancel {
  const cancel = loadBinding().createCancel()
  if (signal !== undefined) SIGNALS.set(cancel, signal)
  return cancel
}

/** @returns false when somebody else has the lock @throws ImplexError ERR_IO where the file's system has no locks */
export function lockFile(descriptor: number): boolean {
  return callNative(lockFile, () => loadBinding().lockFile(descriptor))
}

/** Runs a native call that may throw. `caller`: the function whose callers the error's stack begins with. */
function callNative<T>(caller: Caller, run: () => T): T {
  const site = callSite(caller)
  try {
    return run()
  } catch (error) {
    throw asImplexError(error, site)
  }
}

/** Runs a native call that returns a promise and can be canceled. */
export async function awaitNative<T>(
  caller: Caller,
  cancel: Cancellation | undefined,
  run: (flag: NativeCancel | undefined) => Promise<T>,
): Promise<T> {
  const site = callSite(caller)
  const signal = cancel instanceof AbortSignal ? cancel : undefined
  const flag = signal === undefined ? (cancel as NativeCancel | undefined) : createCancel()
  const off = onAbort(signal, () => flag?.cancel())
  try {
    return await run(flag)
  } catch (error) {
    throw asImplexError(error, site, signal ?? (flag && SIGNALS.get(flag)))
  } finally {
    off()
  }
}

type Caller = (...args: never[]) => unknown

/** The stack at the call: by the time a native promise rejects, the caller's frames are gone. Cheap: V8 formats it only when it is read. */
function callSite(caller: Caller): { stack?: string } {
  const site: { stack?: string } = {}
  Error.captureStackTrace(site, caller)
  return site
}

function asImplexError(error: unknown, site: { stack?: string }, signal?: AbortSignal): unknown {
  if (!(error instanceof Error) || error instanceof ImplexError) return error
  if (error instanceof TypeError || error instanceof RangeError) return error
  const { code, pair, step, parameter, tensor } = error as ImplexErrorOptions & { code?: unknown }
  const known = typeof code === 'string' && code.startsWith('ERR_') ? (code as ImplexErrorCode) : 'ERR_INTERNAL'
  const cause = known === 'ERR_ABORTED' && signal?.aborted ? signal.reason : undefined
  const result = new ImplexError(known, error.message, { cause, pair, step, parameter, tensor })
  const frames = site.stack?.slice(site.stack.indexOf('\n') + 1) ?? ''
  result.stack = `${result.name} [${known}]: ${result.message}\n${frames}`
  return result
}

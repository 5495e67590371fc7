/**
 * The native engine: the types of the addon's exports, the one place that loads a `.node` file, and the calls that the rest of lib uses.
 *
 * The calls turn native errors into ImplexError with the stack of whoever called; wrong arguments stay TypeError and RangeError. Every call
 * copies its typed arrays before it returns, so the caller may reuse them at once, and computes off the event loop.
 */
import { existsSync, readFileSync } from 'node:fs'
import { dirname, join, resolve } from 'node:path'
import { fileURLToPath } from 'node:url'
import type { ModelSpec } from '../checkpoint/spec.js'
import { ImplexError, type ImplexErrorCode } from './errors.js'
import type { NativeKernels } from './kernels.js'

export interface NativeInfo {
  version: string
  builder: 'node-gyp' | 'cmake'
  compiler: string
  /** Version of Node-API that the addon was built for. */
  napi: number
  cpu: {
    name: string
    /** The kernel set in use: results are bit-identical only under one of these. */
    kernels: string
    /** Kernel sets that were built and that this processor can run. */
    available: string[]
  }
  /** Size of the process-wide pool of compute threads. IMPLEX_THREADS sets it. */
  threads: number
}

export interface DeviceProbe {
  ok: boolean
  /** Why not. */
  reason?: string
  /** What was opened. */
  description?: string
}

export interface OpenOptions {
  device: 'cpu' | 'cuda'
  /** The device's module. Required unless `device` is 'cpu'. */
  devicePath?: string
  /** Storage of the weights. */
  dtype: 'f32' | 'bf16'
}

/** One ragged batch: see docs/architecture.md. */
export interface NativeBatch {
  /** [T] */
  tokens: Int32Array
  /** [S * 3]: start, length, parent. parent = -1, or an earlier segment that has none. */
  segments: Int32Array
  /** [K] indices of segments. */
  scored: Int32Array
  /**
   * What `values` are: `logprob` the sum over the segment's tokens of ln p(token | all before it); `reward_last` and `reward_mean` the head's
   * product with the last token's hidden row, or its mean over the segment; `reward_tokens` that product at each of the segment's tokens,
   * the last one with the bits of `reward_last`; `next_token` p(targetToken | the segment and its parent);
   * `hidden_last` the last token's hidden state after the final norm.
   */
  readout: 'logprob' | 'reward_last' | 'reward_mean' | 'reward_tokens' | 'next_token' | 'hidden_last'
  /** `next_token` only. */
  targetToken?: number
  /** `logprob` only: also return each token's term. Default false. */
  tokenLogprobs?: boolean
}

export interface NativeScores {
  /** [K]; `reward_tokens`: the scored segments' tokens, back to back; `hidden_last`: [K, hiddenSize]. */
  values: Float64Array
  /** The scored segments' tokens, back to back. The first token of a segment without a parent has no term: 0. */
  tokenLogprobs?: Float32Array
}

/** Prompts to go on from. */
export interface NativeGenerateRequest {
  /** The prompts back to back. */
  tokens: Int32Array
  /** [prompts] */
  lengths: Int32Array
  /** [N] the prompt of each sequence. A prompt is computed once. */
  sequences: Int32Array
  /** [N * 2] high and low half of each sequence's seed. */
  seeds: Int32Array
  /** At least 1. A sequence also ends where the model's context does. */
  maxNewTokens: number
  /** 0: the most probable token. */
  temperature: number
  /** Of the `topK` most probable tokens (0: all) the fewest that reach `topP` together (1: all). */
  topP: number
  topK: number
  /** A sequence ends with the first of these tokens. */
  stop: Int32Array
}

export interface NativeGeneration {
  /** The sequences' new tokens back to back, a stop token included. */
  tokens: Int32Array
  /** [N] */
  lengths: Int32Array
  /** ln p(token | all before it) by the model itself, whatever the temperature, with the bits of read-out `logprob`. */
  logprobs: Float32Array
}

export interface NativeCancel {
  /** Idempotent. Queued calls reject at once, the running one within a layer. */
  cancel(): void
  readonly cancelled: boolean
}

export interface NativeModel {
  readonly weightBytes: number
  readonly device: string
  readonly kernels: string
  readonly hasHead: boolean
  readonly hasUnembedding: boolean
  readonly disposed: boolean
  /** Sets the explicit reward's head, [hiddenSize]. Calls of score() made before use the old one, those made after the new one. */
  setHead(weight: Float32Array): void
  /** What a sequence gets depends on its prompt, its seed and the options alone, not on the sequences beside it. */
  generate(request: NativeGenerateRequest, cancel?: NativeCancel): Promise<NativeGeneration>
  /** Calls are worked off in order, one at a time per thread of JavaScript. */
  score(batch: NativeBatch, cancel?: NativeCancel): Promise<NativeScores>
  /** Idempotent. Queued calls reject with ERR_DISPOSED; the running one with ERR_ABORTED, unless it is all but done. */
  dispose(): void
}

/** What a trainer minimises, over what, and how. Native code fills in no defaults: those are of the callers in lib. */
export interface NativeTrainOptions {
  /**
   * `explicit`: Bradley-Terry over head · h; `implicit`: Bradley-Terry over beta (ln π - reference); `generative`: -ln p(Yes) of chosen,
   * -ln p(No) of rejected, their mean; `sft`: -ln π(chosen).
   */
  objective: 'explicit' | 'implicit' | 'generative' | 'sft'
  /** `explicit` only: the last token's hidden row, or the mean over the response. */
  pool: 'last' | 'mean'
  /** `implicit` only, positive. */
  beta: number
  /** `implicit` only: rewards are divided by the response's tokens. */
  lengthNormalized: boolean
  /** Bradley-Terry: the share of pairs that are taken to be labelled the wrong way, 0 to 0.5. */
  labelSmoothing: number
  /** Bradley-Terry: adds centering * (r⁺ + r⁻)² to each loss. */
  centering: number
  /** `generative` only, and required there. */
  yesToken?: number
  noToken?: number
  /** PyTorch's rules. Weight decay goes to every parameter; rmsprop: beta2 is its `alpha`; momentum: rmsprop and sgd. */
  optimizer: {
    kind: 'adamw' | 'rmsprop' | 'sgd'
    beta1: number
    beta2: number
    epsilon: number
    weightDecay: number
    momentum: number
  }
  /** Parts that stay as they are. `blocks`: projections and their biases. With tied embeddings either name freezes the one matrix. */
  frozen: { embedding: boolean; unembedding: boolean; blocks: boolean; norms: boolean; head: boolean }
  /** Keep each layer's input only and compute the rest again: less memory, about a third more time, the same bits. */
  recompute: boolean
  /** `explicit` only: the head to begin with, [hiddenSize], where the checkpoint has none or another one. */
  head?: Float32Array
}

/** One micro-batch. Prompts may be shared: a segment for the prompt, chosen and rejected its children. */
export interface NativeTrainBatch {
  /** [T] */
  tokens: Int32Array
  /** [S * 3]: start, length, parent, as in NativeBatch. */
  segments: Int32Array
  /** [K] chosen and rejected of each pair in turn; `sft`: chosen only; `generative`: the verification prompts of chosen and rejected. */
  scored: Int32Array
  /** `implicit`: [K] the reference's ln π of each scored segment. Absent: no reference. */
  reference?: Float64Array
  /** Bradley-Terry: [pairs], how much larger r⁺ than r⁻ should be. Absent: 0. */
  margin?: Float64Array
  /** 1 / pairs of the whole optimiser step, so that gradients of micro-batches add up to those of the mean loss. */
  scale: number
  /** false: losses and rewards only. */
  gradients: boolean
}

export interface NativeTrainResult {
  /** [pairs], not scaled. */
  losses: Float64Array
  /** [K] as scored: the reward, or `generative` p(Yes), `sft` ln π. */
  rewards: Float64Array
}

/** A parameter that is trained: roles as in WeightSource, vectors with one row. */
export interface NativeParameter {
  role: string
  rows: number
  cols: number
}

/** Bytes. */
export interface NativeTrainMemory {
  /** What the products use. */
  weights: number
  /** f32 values and gradients. */
  parameters: number
  moments: number
  /** One micro-batch's. */
  activations: number
}

/** Calls are worked off in order, with those of models in the same thread of JavaScript. A call that fails changes nothing else. */
export interface NativeTrainer {
  readonly weightBytes: number
  readonly device: string
  readonly kernels: string
  /** What is trained, in the order of the state file. */
  readonly parameters: NativeParameter[]
  readonly disposed: boolean
  /**
   * Adds a micro-batch's gradients of `scale` * (sum of its losses).
   *
   * Rejects with ERR_NOT_FINITE naming the pair and the first bad tensor. After that, and after an abort half-way (step() then rejects with
   * ERR_ABORTED), call zeroGradients() or loadState() and begin the step again.
   */
  accumulate(batch: NativeTrainBatch, cancel?: NativeCancel): Promise<NativeTrainResult>
  /**
   * One optimiser step, after which the gradients are zero.
   * @param options maxNorm: clips the gradient to this norm; 0 does not
   * @returns the gradient's norm before clipping. Rejects with ERR_NOT_FINITE naming a parameter, with nothing changed.
   */
  step(options: { learningRate: number; maxNorm: number }): Promise<number>
  zeroGradients(): Promise<void>
  /** Row-major copy. Rejects with ERR_CONFIG_INVALID for what is not trained. */
  parameter(role: string): Promise<Float32Array>
  /** As it stands between steps. */
  gradient(role: string): Promise<Float32Array>
  /** Writes everything that the next step depends on but the gradients, to a file that appears whole or not at all. */
  saveState(path: string): Promise<void>
  /** Zeroes the gradients. Rejects with ERR_IO, with nothing changed, for a file that is damaged or of other parameters. */
  loadState(path: string): Promise<void>
  /** Steps taken, those before loadState() included. */
  steps(): Promise<number>
  score(batch: NativeBatch, cancel?: NativeCancel): Promise<NativeScores>
  /**
   * What a micro-batch of `tokens` tokens takes at most. `rows`: the tokens of its scored segments, or, for `explicit` with pool `last` and
   * `generative`, the scored segments. Answers at once.
   */
  memory(tokens: number, rows: number): NativeTrainMemory
  /** As of a model. */
  dispose(): void
}

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

/** What stops a call: an AbortSignal, or a NativeCancel where one signal's listener per call would be too many. */
export type Cancellation = AbortSignal | NativeCancel

/** What both wrappers below have in common: signals are taken too, and errors are ImplexErrors with the caller's stack. */
abstract class NativeHandle<N extends NativeModel | NativeTrainer> {
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
}

/** A loaded model: a NativeModel's members. */
export class Model extends NativeHandle<NativeModel> {
  get hasHead(): boolean {
    return this.native.hasHead
  }
  get hasUnembedding(): boolean {
    return this.native.hasUnembedding
  }
  generate(request: NativeGenerateRequest, cancel?: Cancellation): Promise<NativeGeneration> {
    return awaitNative(this.generate, cancel, (flag) => this.native.generate(request, flag))
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

/** What was built, and what it found. */
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

export function createCancel(): NativeCancel {
  return loadBinding().createCancel()
}

/** @returns false when somebody else has the lock @throws ImplexError ERR_IO where the file's system has no locks */
export function lockFile(descriptor: number): boolean {
  return callNative(lockFile, () => loadBinding().lockFile(descriptor))
}

/** A place where the addon was looked for, and why it was not taken from there. */
export interface NativeAttempt {
  path: string
  reason: string
}

export interface NativeLocation {
  /** The file in use; undefined when there is none. */
  path?: string
  attempts: NativeAttempt[]
  /** The package's folder. */
  root: string
  /** What loadBinding() throws, when `path` is undefined. */
  error?: ImplexError
}

/** Loads the addon if it is not, and says where from or why not. Does not throw. */
export function nativeLocation(): NativeLocation {
  const { binding: _, ...location } = load()
  return location
}

/**
 * The addon's exports as they are. Loaded at first use, from IMPLEX_NATIVE if that is set and from nowhere else then; otherwise from
 * build/Release (node-gyp) or build-cmake/Release (CMake) in the package's folder.
 * @throws ImplexError ERR_NATIVE_MISSING listing every path tried and what to run
 */
export function loadBinding(): NativeBinding {
  const { binding, error } = load()
  if (binding === undefined) throw error
  return binding
}

interface Loaded extends NativeLocation {
  binding?: NativeBinding
}

let loaded: Loaded | undefined

/** A failure is not remembered: the user may build, or set IMPLEX_NATIVE, and try again. */
function load(): Loaded {
  if (loaded !== undefined) return loaded
  const root = packageRoot()
  const override = process.env.IMPLEX_NATIVE
  const paths = override
    ? [resolve(override)]
    : ['build', 'build-cmake'].map((folder) => join(root, folder, 'Release', 'implex.node'))
  const attempts: NativeAttempt[] = []
  for (const path of paths) {
    try {
      const binding = loadFile(path)
      loaded = { binding, path, attempts, root }
      return loaded
    } catch (error) {
      attempts.push({ path, reason: error instanceof Error ? error.message : String(error) })
    }
  }
  return { attempts, root, error: missing(root, attempts, override !== undefined && override !== '') }
}

function loadFile(path: string): NativeBinding {
  if (!existsSync(path)) throw new Error('there is no such file')
  // Not require(): that takes a file of another name than *.node for JavaScript.
  const module: { exports: Partial<NativeBinding> } = { exports: {} }
  process.dlopen(module, path)
  const absent = (['info', 'probeDevice', 'openModel', 'openTrainer', 'createCancel', 'lockFile'] as const).filter(
    (name) => typeof module.exports[name] !== 'function',
  )
  if (absent.length > 0) throw new Error(`it is not an implex addon of this version (it lacks ${absent.join(', ')})`)
  return module.exports as NativeBinding
}

function missing(root: string, attempts: NativeAttempt[], override: boolean): ImplexError {
  const tried = attempts.map(({ path, reason }) => `  ${path}: ${reason}`).join('\n')
  const remedy = override
    ? 'IMPLEX_NATIVE names the only file that is tried: correct it or unset it.'
    : `Build it: run \`npm run build:native\` in ${root} (needs a C++20 compiler, make and Python), or \`npm run build:cmake\` (needs CMake); ` +
      'or set IMPLEX_NATIVE to the path of an implex.node built for this platform.'
  return new ImplexError('ERR_NATIVE_MISSING', `the native engine could not be loaded. Tried:\n${tried}\n${remedy}`)
}

/** The nearest folder above this file whose package.json is ours: dist/ lies between in a build, nothing under a TypeScript loader. */
function packageRoot(): string {
  const start = dirname(fileURLToPath(import.meta.url))
  for (let folder = start; ; folder = dirname(folder)) {
    const manifest = join(folder, 'package.json')
    if (existsSync(manifest) && JSON.parse(readFileSync(manifest, 'utf8')).name === 'implex') return folder
    if (folder === dirname(folder)) return resolve(start, '..', '..', '..')
  }
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

/** Runs a native call that returns a promise and can be cancelled. */
export async function awaitNative<T>(
  caller: Caller,
  cancel: Cancellation | undefined,
  run: (flag: NativeCancel | undefined) => Promise<T>,
): Promise<T> {
  const site = callSite(caller)
  const signal = cancel instanceof AbortSignal ? cancel : undefined
  const flag = signal === undefined ? (cancel as NativeCancel | undefined) : createCancel()
  const abort = () => flag?.cancel()
  if (signal?.aborted) abort()
  else signal?.addEventListener('abort', abort, { once: true })
  try {
    return await run(flag)
  } catch (error) {
    throw asImplexError(error, site, signal)
  } finally {
    signal?.removeEventListener('abort', abort)
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
  const { code } = error as { code?: unknown }
  const known = typeof code === 'string' && code.startsWith('ERR_') ? (code as ImplexErrorCode) : 'ERR_INTERNAL'
  const result = new ImplexError(known, error.message, { cause: signal?.aborted ? signal.reason : undefined })
  const frames = site.stack?.slice(site.stack.indexOf('\n') + 1) ?? ''
  result.stack = `${result.name} [${known}]: ${result.message}\n${frames}`
  return result
}

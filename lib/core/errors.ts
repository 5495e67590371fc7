/**
 * The error class of implex. It covers everything but wrong arguments, which are TypeError and RangeError (see arguments.ts).
 */

/** A stable code that callers may branch on. Messages may change, codes do not. */
export type ImplexErrorCode =
  | 'ERR_CHECKPOINT_NOT_FOUND'
  | 'ERR_CONFIG_INVALID'
  | 'ERR_FAMILY_UNKNOWN'
  | 'ERR_SAFETENSORS_INVALID'
  | 'ERR_TENSOR_MISSING'
  | 'ERR_TENSOR_SHAPE'
  | 'ERR_TENSOR_DTYPE'
  | 'ERR_WEIGHT_NOT_FINITE'
  | 'ERR_NOT_FINITE'
  | 'ERR_TOKENIZER_MISSING'
  | 'ERR_TOKENIZER_INVALID'
  | 'ERR_TEMPLATE_INVALID'
  | 'ERR_TEMPLATE_UNSUPPORTED'
  | 'ERR_TEMPLATE_LIMIT'
  | 'ERR_ROW_INVALID'
  | 'ERR_ROW_TOO_LONG'
  | 'ERR_RESPONSE_EMPTY'
  | 'ERR_TOKEN_RANGE'
  | 'ERR_BATCH_INVALID'
  | 'ERR_IO'
  | 'ERR_DISK_FULL'
  | 'ERR_OUT_OF_MEMORY'
  | 'ERR_DEVICE_UNAVAILABLE'
  | 'ERR_ABORTED'
  | 'ERR_DISPOSED'
  | 'ERR_NATIVE_MISSING'
  | 'ERR_RESUME_MISMATCH'
  | 'ERR_IN_USE'
  | 'ERR_OUTPUT_EXISTS'
  | 'ERR_RUN_INVALID'
  | 'ERR_SELF_CHECK'
  | 'ERR_INTERNAL'

export interface ImplexErrorOptions {
  /** The error behind it; for ERR_ABORTED the signal's reason. */
  cause?: unknown
  /** 1-based line in the input file. */
  line?: number
  /** The file or folder that the error is about. */
  path?: string
  /** Training: the pair among those that were handed over together, counted from 0. */
  pair?: number
  /** Training: the optimizer step, counted from 1. */
  step?: number
  /** The role of the parameter that the error is about, as in ModelSpec: `layers.0.q`. */
  parameter?: string
  /** The tensor that the error is about: its name in the checkpoint, or an activation in words. */
  tensor?: string
}

/** Every failure that is no wrong argument. Where the code is ERR_ABORTED the `name` is AbortError and the `cause` is the signal's reason. */
export class ImplexError extends Error {
  override readonly name: 'ImplexError' | 'AbortError'
  /** Stable, in contrast to the message; docs/errors.md lists them. */
  readonly code: ImplexErrorCode
  // Only declared: a class field would set them to undefined, which deep comparison shows.
  /** 1-based line in the input file. */
  declare readonly line?: number
  /** The file or folder that the error is about. */
  declare readonly path?: string
  declare readonly pair?: number
  declare readonly step?: number
  declare readonly parameter?: string
  declare readonly tensor?: string

  constructor(code: ImplexErrorCode, message: string, options: ImplexErrorOptions = {}) {
    super(message, options.cause === undefined ? undefined : { cause: options.cause })
    this.name = code === 'ERR_ABORTED' ? 'AbortError' : 'ImplexError'
    this.code = code
    if (options.line !== undefined) this.line = options.line
    if (options.path !== undefined) this.path = options.path
    if (options.pair !== undefined) this.pair = options.pair
    if (options.step !== undefined) this.step = options.step
    if (options.parameter !== undefined) this.parameter = options.parameter
    if (options.tensor !== undefined) this.tensor = options.tensor
  }
}

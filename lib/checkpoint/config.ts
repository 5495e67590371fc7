/**
 * config.json, read key by key: each getter checks type and range, and its error names the file and the key.
 * null counts as absent, as in transformers.
 */
import { ImplexError } from '../core/errors.js'
import { describe, isPlainObject } from '../core/arguments.js'
import { printable, readJsonFile } from '../core/files.js'

export class Config {
  readonly file: string
  readonly #values: Record<string, unknown>
  readonly #prefix: string
  readonly #known = new Set<string>()

  /** `prefix` is the path of keys that leads here, for messages: '' or 'rope_parameters.'. */
  constructor(file: string, values: Record<string, unknown>, prefix = '') {
    this.file = file
    this.#values = values
    this.#prefix = prefix
  }

  /** @throws ImplexError ERR_CHECKPOINT_NOT_FOUND without the file, ERR_CONFIG_INVALID when it is not a JSON object */
  static async read(file: string): Promise<Config> {
    return new Config(file, await readJsonFile(file, 'ERR_CONFIG_INVALID'))
  }

  /** All of it, unchecked. */
  get values(): Readonly<Record<string, unknown>> {
    return this.#values
  }

  /** The keys whose value is not null and that nobody has asked for. */
  unknown(): string[] {
    return Object.keys(this.#values).filter((key) => !this.#known.has(key) && this.#values[key] !== null)
  }

  /** Counts the keys as asked for. */
  know(...keys: readonly string[]): void {
    for (const key of keys) this.#known.add(key)
  }

  /** Whether it has no keys at all. */
  get empty(): boolean {
    return Object.keys(this.#values).length === 0
  }

  /** The value, or undefined for an absent key and null. */
  get(key: string): unknown {
    this.know(key)
    return Object.hasOwn(this.#values, key) ? (this.#values[key] ?? undefined) : undefined
  }

  /** Whether the key is there with null, which some keys tell from being absent. */
  isNull(key: string): boolean {
    this.know(key)
    return Object.hasOwn(this.#values, key) && this.#values[key] === null
  }

  has(key: string): boolean {
    return this.get(key) !== undefined
  }

  /** The first of the keys that has a value, or the first key if none has one. */
  firstOf(...keys: string[]): string {
    return keys.find((key) => this.has(key)) ?? (keys[0] as string)
  }

  /** An integer in [min, max]; required where `fallback` is not given. */
  integer(key: string, min: number, max: number, fallback?: number): number {
    const value = this.#given(key, fallback)
    if (!Number.isSafeInteger(value) || (value as number) < min || (value as number) > max) {
      throw this.unexpected(key, `an integer from ${min} to ${max}`)
    }
    return value as number
  }

  /** A finite number in (0, max]; required where `fallback` is not given. */
  positive(key: string, max: number, fallback?: number): number {
    const value = this.#given(key, fallback)
    if (typeof value !== 'number' || !(value > 0 && value <= max)) {
      throw this.unexpected(key, `a number above 0, at most ${max}`)
    }
    return value
  }

  boolean(key: string): boolean | undefined
  boolean(key: string, fallback: boolean): boolean
  boolean(key: string, fallback?: boolean): boolean | undefined {
    const value = this.get(key) ?? fallback
    if (value !== undefined && typeof value !== 'boolean') throw this.unexpected(key, 'true or false')
    return value
  }

  /** Finite numbers in (0, max]. */
  numbers(key: string, max: number): number[] {
    const value = this.#given(key, undefined)
    const fits = (item: unknown) => typeof item === 'number' && item > 0 && item <= max
    if (!Array.isArray(value) || !value.every(fits)) {
      throw this.unexpected(key, `a list of numbers above 0, at most ${max}`)
    }
    return value as number[]
  }

  /** Integers in [min, max]. */
  integers(key: string, min: number, max: number): number[] | undefined {
    const value = this.get(key)
    if (value === undefined) return undefined
    const fits = (item: unknown) => Number.isSafeInteger(item) && (item as number) >= min && (item as number) <= max
    if (!Array.isArray(value) || !value.every(fits)) {
      throw this.unexpected(key, `a list of integers from ${min} to ${max}`)
    }
    return value as number[]
  }

  string(key: string, fallback?: string): string {
    const value = this.#given(key, fallback)
    if (typeof value !== 'string') throw this.unexpected(key, 'a string')
    return value
  }

  strings(key: string): string[] | undefined {
    const value = this.get(key)
    if (value === undefined) return undefined
    if (!Array.isArray(value) || !value.every((item) => typeof item === 'string')) {
      throw this.unexpected(key, 'a list of strings')
    }
    return value as string[]
  }

  object(key: string): Config | undefined {
    const value = this.get(key)
    if (value === undefined) return undefined
    if (!isPlainObject(value)) throw this.unexpected(key, 'an object')
    return new Config(this.file, value, `${this.#prefix}${key}.`)
  }

  /** `message` reads after the file and the key: "is not supported". */
  error(key: string, message: string): ImplexError {
    return new ImplexError('ERR_CONFIG_INVALID', `${this.file}: "${this.#prefix}${key}" ${message}`, {
      path: this.file,
    })
  }

  /** `expected` reads after "must be". */
  unexpected(key: string, expected: string): ImplexError {
    return this.error(key, `must be ${expected}; got ${printable(describe(this.get(key)))}`)
  }

  #given(key: string, fallback: unknown): unknown {
    const value = this.get(key) ?? fallback
    if (value === undefined) throw this.error(key, 'is missing')
    return value
  }
}

/**
 * What the value of an option may be: how it is checked, and its shape as data, from which the command's flags and the documents come.
 */
import {
  checkBoolean,
  checkInteger,
  checkNumber,
  checkObject,
  checkOneOf,
  checkString,
  invalidArgument,
  outOfRange,
} from '../core/arguments.js'
import { checkSetName, type TrainData } from '../data/sources.js'

export type Shape =
  | { is: 'boolean' | 'text' | 'folder' | 'sets' | 'head' | 'date' | 'signal' | 'function' | 'steps' | 'names' }
  | { is: 'integer' | 'number'; min: number; max?: number }
  | { is: 'one' | 'some'; of: readonly string[] }

export interface Value<T> {
  shape: Shape
  /** For the compiler alone, which does not compare what two functions assert. */
  type?: T
  /** @throws TypeError, RangeError naming the option */
  check: (name: string, value: unknown) => asserts value is T
}

export const boolean: Value<boolean> = { shape: { is: 'boolean' }, check: checkBoolean }
export const text: Value<string> = { shape: { is: 'text' }, check: checkString }

export function integer(min: number, max?: number): Value<number> {
  return { shape: { is: 'integer', min, max }, check: (name, value) => checkInteger(name, value, min, max) }
}

/** A finite number; `Number.MIN_VALUE` as the least one means "above 0". */
export function number(min: number, max?: number): Value<number> {
  return { shape: { is: 'number', min, max }, check: (name, value) => checkNumber(name, value, min, max) }
}

/** A number of steps, or below 1 a share of all. */
export const steps: Value<number> = {
  shape: { is: 'steps' },
  check(name, value) {
    checkNumber(name, value, 0, Number.MAX_SAFE_INTEGER)
    if (value >= 1) checkInteger(name, value, 1)
  },
}

export function one<T extends string>(of: readonly T[]): Value<T> {
  return { shape: { is: 'one', of }, check: (name, value) => checkOneOf(name, value, of) }
}

export function some<T extends string>(of: readonly T[]): Value<T[]> {
  return {
    shape: { is: 'some', of },
    check(name, value) {
      if (!Array.isArray(value)) throw invalidArgument(name, 'a list of parts', value)
      for (const part of value) checkOneOf(name, part, of)
    },
  }
}

/** Names of no fixed set, at least one. */
export const names: Value<string[]> = {
  shape: { is: 'names' },
  check(name, value) {
    if (!Array.isArray(value) || value.length === 0) throw invalidArgument(name, 'a list of names', value)
    for (const one of value) {
      checkString(name, one)
      if (one.trim() === '') throw outOfRange(name, 'without an empty name', one)
    }
  },
}

export const folder: Value<string> = {
  shape: { is: 'folder' },
  check(name, value) {
    checkString(name, value)
    if (value === '' || value.includes('\0')) throw invalidArgument(name, 'the path of a folder', value)
  },
}

export const sets: Value<Record<string, TrainData>> = {
  shape: { is: 'sets' },
  check(name, value) {
    checkObject(name, value)
    for (const set of Object.keys(value)) checkSetName(set)
  },
}

export const head: Value<string | Float32Array> = {
  shape: { is: 'head' },
  check(name, value) {
    if (typeof value !== 'string' && !(value instanceof Float32Array))
      throw invalidArgument(name, 'a path or a Float32Array', value)
  },
}

export const date: Value<Date> = {
  shape: { is: 'date' },
  check(name, value) {
    if (!(value instanceof Date) || Number.isNaN(value.getTime())) throw invalidArgument(name, 'a valid Date', value)
  },
}

export const signal: Value<AbortSignal> = {
  shape: { is: 'signal' },
  check(name, value) {
    if (!(value instanceof AbortSignal)) throw invalidArgument(name, 'an AbortSignal', value)
  },
}

export function callback<T>(): Value<T> {
  return {
    shape: { is: 'function' },
    check(name, value) {
      if (typeof value !== 'function') throw invalidArgument(name, 'a function', value)
    },
  }
}

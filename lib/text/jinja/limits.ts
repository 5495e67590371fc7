/**
 * The bounds of one rendering: a template can neither end the process nor hang it. All of them lie far above what a conversation needs.
 */
import { LimitError } from './errors.js'

/** Steps: runs of a block (more for a long one), calls, items that are gone through; reading a text is a step for every 16 characters. */
export const MAX_STEPS = 4_000_000
/** Characters (UTF-16 units) of the rendered text, and of every text made on the way. */
export const MAX_TEXT = 16_777_216
/** Seconds, of which a pause of the whole process counts one at most. */
export const MAX_SECONDS = 60
/** Macros, call blocks and recursive loops inside each other. */
export const MAX_DEPTH = 100
/** Items of a range: what Jinja's sandbox allows. */
export const MAX_RANGE = 100_000
/** Digits of an integer: what Python allows when it writes one. */
export const MAX_DIGITS = 4300

const POLL_STEPS = 10_000

let active: Budget | undefined

/** Runs a rendering with its budget, which `spend` then draws on: rendering is synchronous, so there is one at a time. */
export function withBudget<T>(budget: Budget, work: () => T): T {
  const before = active
  active = budget
  try {
    return work()
  } finally {
    active = before
  }
}

/** Counts work that is done deep inside a value: steps, and a text that is gone through. */
export function spend(steps: number, textLength = 0): void {
  active?.step(steps)
  active?.write(textLength)
}

/** Counts what one rendering uses. Throws a LimitError that names the bound. */
export class Budget {
  private used = 0
  private nextPoll = POLL_STEPS
  private seconds = 0
  private last = performance.now()
  private depth = 0

  /** `poll` is called now and then; what it throws ends the rendering. */
  constructor(private readonly poll: (() => void) | undefined) {}

  step(count = 1): void {
    this.used += count
    if (this.used >= this.nextPoll) this.check()
  }

  /** For work on a text of this length. */
  scan(length: number): void {
    if (length >= 16) this.step(length >> 4)
  }

  /** For a text of this length that is to be made. Called before it is made. */
  text(length: number): void {
    if (length > MAX_TEXT) throw new LimitError(`a text has more than ${MAX_TEXT} characters`)
  }

  /** As `text`, for a text whose every character must be written. */
  write(length: number): void {
    this.text(length)
    this.scan(length)
  }

  nested<T>(work: () => T): T {
    if (++this.depth > MAX_DEPTH) throw new LimitError(`macros or loops are nested more than ${MAX_DEPTH} deep`)
    try {
      return work()
    } finally {
      this.depth--
    }
  }

  private check(): void {
    if (this.used > MAX_STEPS) throw new LimitError(`it takes more than ${MAX_STEPS} steps`)
    this.nextPoll = this.used + POLL_STEPS
    this.poll?.()
    const now = performance.now()
    this.seconds += Math.min((now - this.last) / 1000, 1)
    this.last = now
    if (this.seconds > MAX_SECONDS) throw new LimitError(`it takes more than ${MAX_SECONDS} seconds`)
  }
}

/**
 * Shows one line of progress of at most 80 columns on stderr. Shows nothing if stderr is not a terminal.
 */
import { count } from './score-summary.js'

const REFRESH_MS = 250
const COLUMNS = 79 // a line of 80 wraps on some terminals

export interface Position {
  rows: number
  tokens: number
  /** Share of the input that was read, 0 to 1; absent if unknown. */
  share?: number
}

export class Progress implements Disposable {
  readonly #stream: NodeJS.WriteStream
  readonly #position: () => Position
  readonly #start = performance.now()
  readonly #timer: NodeJS.Timeout | undefined

  constructor(position: () => Position, quiet: boolean, stream: NodeJS.WriteStream = process.stderr) {
    this.#position = position
    this.#stream = stream
    if (stream.isTTY && !quiet) this.#timer = setInterval(() => this.#draw(), REFRESH_MS).unref()
  }

  /** Clears the line, so that something else can be written. */
  clear(): void {
    if (this.#timer !== undefined) this.#stream.write(`\r${' '.repeat(COLUMNS)}\r`)
  }

  [Symbol.dispose](): void {
    clearInterval(this.#timer)
    this.clear()
  }

  #draw(): void {
    const seconds = (performance.now() - this.#start) / 1000
    this.#stream.write(`\r${progressLine(this.#position(), seconds).padEnd(COLUMNS)}`)
  }
}

export function progressLine({ rows, tokens, share }: Position, seconds: number): string {
  const parts = [
    `${count(rows)} rows`,
    `${count(rows / seconds)} rows/s`,
    `${count(tokens / seconds)} tokens/s`,
    clock(seconds),
  ]
  if (share !== undefined && share > 0 && seconds > 2) {
    parts.push(`${Math.floor(share * 100)}%`, `about ${clock((seconds * (1 - share)) / share)} left`)
  }
  return parts.join('  ').slice(0, COLUMNS)
}

export function clock(seconds: number): string {
  const whole = Math.round(seconds)
  const two = (value: number) => String(value).padStart(2, '0')
  const minutes = `${two(Math.floor(whole / 60) % 60)}:${two(whole % 60)}`
  return whole < 3600 ? minutes : `${Math.floor(whole / 3600)}:${minutes}`
}

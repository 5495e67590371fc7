/**
 * Ctrl-C and SIGTERM: the first one asks for an orderly end, the second one ends the process at once.
 */
import { EXIT, say } from './exit.js'

export class Interrupt implements Disposable {
  readonly #controller = new AbortController()
  readonly #handle: () => void

  constructor(message: string) {
    this.#handle = () => {
      if (this.#controller.signal.aborted) process.exit(EXIT.interrupted)
      say(message)
      this.#controller.abort()
    }
    process.on('SIGINT', this.#handle)
    process.on('SIGTERM', this.#handle)
  }

  /** Aborted by the first signal. */
  get signal(): AbortSignal {
    return this.#controller.signal
  }

  [Symbol.dispose](): void {
    process.off('SIGINT', this.#handle)
    process.off('SIGTERM', this.#handle)
  }
}

/**
 * A contestant of a comparison: a process of its own that answers requests, one JSON line each, and does nothing between them.
 */
import { type ChildProcessByStdio, spawn } from 'node:child_process'
import { existsSync } from 'node:fs'
import { createInterface } from 'node:readline'
import type { Readable, Writable } from 'node:stream'

const TASKSET = '/usr/bin/taskset'

export type Request = { op: string } & Record<string, unknown>
export type Answer = Record<string, unknown> & { seconds?: number; error?: string }

export class Peer implements Disposable {
  readonly #child: ChildProcessByStdio<Writable, Readable, null>
  readonly #answers: AsyncIterator<string>

  /** @param processors pins the process to these, as in taskset's list, where there is a taskset */
  constructor(
    readonly name: string,
    command: readonly string[],
    processors: string,
  ) {
    const pinned = existsSync(TASKSET) ? [TASKSET, '-c', processors, ...command] : command
    const [program, ...args] = pinned as [string, ...string[]]
    this.#child = spawn(program, args, { stdio: ['pipe', 'pipe', 'inherit'] })
    this.#child.on('error', () => {}) // shows as an answer that does not come
    this.#child.stdin.on('error', () => {})
    this.#answers = createInterface({ input: this.#child.stdout })[Symbol.asyncIterator]()
  }

  async ask(request: Request): Promise<Answer> {
    this.#child.stdin.write(`${JSON.stringify(request)}\n`)
    const { value, done } = await this.#answers.next()
    if (done) throw new Error(`${this.name} ended without an answer to ${request.op}`)
    return JSON.parse(value) as Answer
  }

  [Symbol.dispose](): void {
    this.#child.stdin.end()
    this.#child.kill()
  }
}

/**
 * What all scenarios of the soak stand on: a folder with models and data, the `implex` under test as child processes, and the results of
 * undisturbed runs to compare with. Every wait is bounded: a process that outlives its time is a fault, not a hang of the soak.
 */
import { type ChildProcess, spawn, type StdioOptions } from 'node:child_process'
import { createHash } from 'node:crypto'
import { cpSync, existsSync, mkdirSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs'
import { basename, dirname, join } from 'node:path'
import { writeTinyCheckpoint } from '../fixtures/tiny-checkpoint.js'
import type { Random } from '../fixtures/random.js'
import { repositoryRoot } from '../support/shared.js'

/** A promise that was not kept. */
export class Fault extends Error {}

export interface Ended {
  status: number | null
  signal: NodeJS.Signals | null
  stdout: string
  stderr: string
  seconds: number
}

export interface RunOptions {
  /** Seconds after which the process is killed and the scenario has found a fault. Defaults to 60. */
  within?: number
  /** stdin, stdout and stderr; by default none, collected, collected. */
  stdio?: StdioOptions
  env?: NodeJS.ProcessEnv
  /** Called once the process runs. */
  disturb?: (child: ChildProcess) => void
}

export interface Scenario {
  name: string
  /**
   * @param scratch an empty folder, removed afterwards
   * @returns 'skipped' where nothing could be tried
   * @throws Fault when a promise is not kept
   */
  run(ground: Ground, scratch: string): Promise<unknown>
}

/** Most bytes that are kept of a process's output. */
const KEPT = 1 << 20

export class Ground {
  readonly folder: string
  readonly random: Random
  /** Folder of the implex under test: this one's unless another is named. */
  readonly root: string
  readonly model: string
  readonly data: string
  /** Rows of `data`. */
  readonly rows = 400
  #scratch = 0
  #undisturbed = new Map<string, Promise<string>>()

  constructor(folder: string, random: Random, root: string) {
    this.folder = folder
    this.random = random
    this.root = root
    this.model = join(folder, 'model')
    this.data = join(folder, 'pairs.jsonl')
    cpSync(join(repositoryRoot, 'models', 'base'), this.model, { recursive: true })
    const examples = readFileSync(join(repositoryRoot, 'examples', 'pairs.jsonl'), 'utf8')
      .trim()
      .split('\n')
    const lines = Array.from({ length: this.rows }, (_, i) => {
      const { prompt, chosen, rejected } = JSON.parse(examples[i % examples.length]!)
      return JSON.stringify({ id: i, prompt: `${i}. ${prompt}`, chosen, rejected })
    })
    writeFileSync(this.data, `${lines.join('\n')}\n`)
  }

  /** An empty folder of one scenario's own. */
  scratch(): string {
    const path = join(this.folder, `scratch-${this.#scratch++}`)
    mkdirSync(path)
    return path
  }

  /** The command's program and first arguments. */
  get command(): [string, ...string[]] {
    const main = ['dist/cli/main.js', 'dist/lib/cli/main.js'].map((path) => join(this.root, path)).find(existsSync)
    if (main === undefined) throw new Error(`${this.root}: no built implex`)
    return [process.execPath, main]
  }

  score(out: string, data = this.data, ...more: string[]): string[] {
    return this.scoreWith(this.model, out, data, ...more)
  }

  scoreWith(model: string, out: string, data = this.data, ...more: string[]): string[] {
    return ['score', '--model', model, '--kind', 'implicit', '--data', data, '--out', out, '--quiet', ...more]
  }

  train(out: string, ...more: string[]): string[] {
    const options = ['--epochs', '2', '--batch-pairs', '16', '--learning-rate', '1e-3', '--checkpoint-steps', '5']
    return [
      'train',
      '--model',
      this.model,
      '--kind',
      'explicit',
      '--data',
      this.data,
      '--out',
      out,
      ...options,
      ...more,
    ]
  }

  /** Runs `implex` to its end. */
  run(
    args: string[],
    { within = 60, stdio = ['ignore', 'pipe', 'pipe'], env = {}, disturb }: RunOptions = {},
  ): Promise<Ended> {
    const [program, ...first] = this.command
    return this.#wait(
      spawn(program, [...first, ...args], {
        stdio,
        env: { ...process.env, XDG_CACHE_HOME: join(this.folder, 'cache'), ...env },
      }),
      args.join(' '),
      within,
      disturb,
    )
  }

  /** Runs a program that imports implex from `this.root` (its text may use `implex` as the library's exports). */
  script(text: string, { within = 60 }: { within?: number } = {}): Promise<Ended> {
    const library = JSON.stringify(join(this.root, 'dist', 'lib', 'index.js'))
    const program = `const implex = await import(${library});\nconst model = ${JSON.stringify(this.model)}, data = ${JSON.stringify(this.data)};\n${text}`
    const child = spawn(process.execPath, ['--input-type=module', '-e', program], {
      stdio: ['ignore', 'pipe', 'pipe'],
      env: { ...process.env, XDG_CACHE_HOME: join(this.folder, 'cache') },
    })
    return this.#wait(child, 'a program with the library', within)
  }

  async #wait(
    child: ChildProcess,
    what: string,
    within: number,
    disturb?: (child: ChildProcess) => void,
  ): Promise<Ended> {
    const start = performance.now()
    let stdout = ''
    let stderr = ''
    child.stdout?.setEncoding('utf8').on('data', (text: string) => {
      if (stdout.length < KEPT) stdout += text
    })
    child.stderr?.setEncoding('utf8').on('data', (text: string) => {
      if (stderr.length < KEPT) stderr += text
    })
    let late = false
    const timer = setTimeout(() => {
      late = true
      child.kill('SIGKILL')
    }, within * 1000)
    disturb?.(child)
    const [status, signal] = await new Promise<[number | null, NodeJS.Signals | null]>((resolve, reject) => {
      child.on('error', reject)
      child.on('close', (...end) => resolve(end))
    })
    clearTimeout(timer)
    if (late) throw new Fault(`had not ended after ${within} s: implex ${what}\n${tail(stderr)}`)
    return { status, signal, stdout, stderr, seconds: (performance.now() - start) / 1000 }
  }

  /** A model of 20 MB, most of whose bytes a sample of a megabyte leaves out. */
  largeModel(): Promise<string> {
    return this.#once('large model', async () => {
      const folder = join(this.scratch(), 'model')
      await writeTinyCheckpoint(folder, { hiddenSize: 256, layers: 6, maxPositions: 1024 })
      return folder
    })
  }

  /** The same rows in the opposite order. */
  reversed(): Promise<string> {
    return this.#once('reversed', async () => {
      const path = join(this.scratch(), 'reversed.jsonl')
      writeFileSync(path, `${readFileSync(this.data, 'utf8').trim().split('\n').toReversed().join('\n')}\n`)
      return path
    })
  }

  /** The text that a scoring of `data` which nobody disturbs writes. */
  undisturbedScores(data = this.data): Promise<string> {
    return this.#once(`scores of ${data}`, async () => {
      const out = join(this.scratch(), 'rewards.jsonl')
      expectDone(await this.run(this.score(out, data)))
      return readFileSync(out, 'utf8')
    })
  }

  /** The digest of the model that a training which nobody disturbs leaves. */
  undisturbedModel(): Promise<string> {
    return this.#once('model', async () => {
      const out = join(this.scratch(), 'run')
      expectDone(await this.run(this.train(out, '--quiet')))
      return digest(join(out, 'model', 'model.safetensors'))
    })
  }

  #once(name: string, make: () => Promise<string>): Promise<string> {
    const known = this.#undisturbed.get(name) ?? make()
    this.#undisturbed.set(name, known)
    return known
  }
}

export function expect(holds: boolean, what: string): asserts holds {
  if (!holds) throw new Fault(what)
}

export function expectDone({ status, signal, stderr }: Ended): void {
  expect(status === 0, `ended with ${signal ?? `status ${status}`}: ${tail(stderr)}`)
}

/** Refused: status 1 or 2 and a sentence on stderr, not an internal error. */
export function expectRefused({ status, signal, stderr }: Ended): void {
  expect(status === 1 || status === 2, `was not refused: ${signal ?? `status ${status}`}; ${tail(stderr)}`)
  expect(/^implex: |^error: /m.test(stderr), `refused without a sentence: ${tail(stderr)}`)
  expect(!stderr.includes('this should not have happened'), `an internal error: ${tail(stderr)}`)
}

export function digest(path: string): string {
  return createHash('sha256').update(readFileSync(path)).digest('hex')
}

/** Every file below a folder, by name, with a digest of its bytes. */
export function snapshot(folder: string): string {
  const names = readdirSync(folder, { recursive: true, encoding: 'utf8' }).sort()
  return names
    .filter((name) => statSync(join(folder, name)).isFile())
    .map((name) => `${name} ${digest(join(folder, name))}`)
    .join('\n')
}

/** Files that a run may leave beside its output only while it works. */
export function expectNoLeftovers(folder: string): void {
  const names = readdirSync(folder, { recursive: true, encoding: 'utf8' })
  const left = names.filter((name) => /\.tmp$|\.resume\.json$/.test(name))
  expect(left.length === 0, `left behind: ${left.join(', ')}`)
}

/** Lines that a scoring has written so far: into `out` itself, or into a file beside it that bears its name and is to replace it. */
export function linesWritten(out: string): number {
  const [folder, name] = [dirname(out), basename(out)]
  let most = 0
  for (const other of existsSync(folder) ? readdirSync(folder) : []) {
    if (!other.includes(name) || /\.lock$|\.resume\./.test(other)) continue
    try {
      most = Math.max(most, readFileSync(join(folder, other), 'utf8').split('\n').length - 1)
    } catch {
      // It was renamed meanwhile.
    }
  }
  return most
}

export function tail(text: string): string {
  return text.trim().split('\n').slice(-4).join('\n').slice(-600)
}

export function remove(path: string): void {
  rmSync(path, { recursive: true, force: true })
}

export function sleep(seconds: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, seconds * 1000))
}

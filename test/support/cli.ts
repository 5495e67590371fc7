/** The `implex` command: as a child process, or as a function of this one where the process itself is not what is tested. */
import { type ChildProcess, spawn } from 'node:child_process'
import { join } from 'node:path'
import { Writable } from 'node:stream'
import { runCommand } from '../../cli/program.js'
import { repositoryRoot } from './shared.js'

export interface CliResult {
  status: number | null
  signal: NodeJS.Signals | null
  stdout: string
  stderr: string
}

export interface CliOptions {
  input?: string
  env?: NodeJS.ProcessEnv
  /** Called with each piece of stderr. */
  onStderr?: (text: string, child: ChildProcess) => void
  /** Called once the process runs. */
  onStart?: (child: ChildProcess) => void
}

/** Runs `implex` to its end. No GPU and no cache of the user's is touched unless `env` says so. */
export function implex(
  args: string[],
  { input = '', env = {}, onStderr, onStart }: CliOptions = {},
): Promise<CliResult> {
  return new Promise((resolve, reject) => {
    const child = spawn(process.execPath, [join(repositoryRoot, 'dist', 'cli', 'main.js'), ...args], {
      env: { ...process.env, ...env },
    })
    let stdout = ''
    let stderr = ''
    child.stdout.setEncoding('utf8').on('data', (text: string) => {
      stdout += text
    })
    child.stderr.setEncoding('utf8').on('data', (text: string) => {
      stderr += text
      onStderr?.(text, child)
    })
    child.on('error', reject)
    child.on('close', (status, signal) => resolve({ status, signal, stdout, stderr }))
    child.stdin.on('error', () => {}) // the command may end before it has read everything
    child.stdin.end(input)
    onStart?.(child)
  })
}

let last: Promise<unknown> = Promise.resolve()

/**
 * The same without a process of its own, which costs a tenth. Commands wait for one another, since they write to one `process.stdout`.
 * What the engine reads from the environment when it is loaded, standard input and signals need `implex`.
 */
export function implexHere(args: string[], env: NodeJS.ProcessEnv = {}): Promise<CliResult> {
  const result = last.then(() => runHere(args, env))
  last = result.catch(() => {})
  return result
}

async function runHere(args: string[], env: NodeJS.ProcessEnv): Promise<CliResult> {
  const [stdout, stderr] = [new Collected(), new Collected()]
  const streams = { stdout, stderr }
  const before = new Map(Object.keys(env).map((name) => [name, process.env[name]]))
  const originals = (Object.keys(streams) as (keyof typeof streams)[]).map(
    (name) => [name, Object.getOwnPropertyDescriptor(process, name)!] as const,
  )
  try {
    Object.assign(process.env, env)
    for (const [name] of originals)
      Object.defineProperty(process, name, { value: streams[name], configurable: true, enumerable: true })
    const status = await runCommand(args)
    return { status, signal: null, stdout: stdout.text, stderr: stderr.text }
  } finally {
    for (const [name, original] of originals) Object.defineProperty(process, name, original)
    for (const [name, value] of before) {
      if (value === undefined) delete process.env[name]
      else process.env[name] = value
    }
  }
}

class Collected extends Writable {
  text = ''

  constructor() {
    super({ decodeStrings: false })
  }

  override _write(chunk: string | Buffer, _: BufferEncoding, done: () => void): void {
    this.text += chunk.toString()
    done()
  }
}

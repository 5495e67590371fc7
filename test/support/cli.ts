/** The `implex` command as a child process. */
import { type ChildProcess, spawn } from 'node:child_process'
import { join } from 'node:path'
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

/** Kills and interrupts at random moments, and what may be continued afterwards. */
import { closeSync, openSync, readFileSync, writeFileSync, writeSync } from 'node:fs'
import { join } from 'node:path'
import {
  digest,
  expect,
  expectDone,
  expectNoLeftovers,
  expectRefused,
  type Ground,
  linesWritten,
  tail,
  type Scenario,
} from './ground.js'

/** Runs until it ends by itself, disturbed by signals at random moments, with --resume after each. */
async function disturbed(ground: Ground, args: string[], signal: NodeJS.Signals, longest: number): Promise<void> {
  for (let times = 0; ; times++) {
    const delay = ground.random.unit() * longest
    const resume = times === 0 ? [] : ['--resume']
    const end = await ground.run([...args, ...resume], {
      env: { IMPLEX_THREADS: String(1 + ground.random.below(3)) },
      disturb: (child) => times < 4 && setTimeout(() => child.kill(signal), delay * 1000),
    })
    if (end.status === 0) return
    const stopped = end.signal === signal || end.status === 130
    expect(stopped, `${signal}: ended with ${end.signal ?? end.status}: ${tail(end.stderr)}`)
  }
}

function scoring(signal: NodeJS.Signals): Scenario {
  return {
    name: `score ${signal}`,
    async run(ground, scratch) {
      const out = join(scratch, 'rewards.jsonl')
      await disturbed(ground, ground.score(out), signal, 4)
      expect(readFileSync(out, 'utf8') === (await ground.undisturbedScores()), 'a resumed scoring has other bytes')
      expectNoLeftovers(scratch)
    },
  }
}

function training(signal: NodeJS.Signals): Scenario {
  return {
    name: `train ${signal}`,
    async run(ground, scratch) {
      const out = join(scratch, 'run')
      await disturbed(ground, ground.train(out, '--quiet'), signal, 6)
      const model = digest(join(out, 'model', 'model.safetensors'))
      expect(model === (await ground.undisturbedModel()), 'a resumed training has other weights')
    },
  }
}

/** Rows that a scoring has written when it is killed to be resumed. */
const SCORED = 20

/** Starts a scoring and kills it once its output has SCORED lines. @returns false when it was too fast */
async function begun(ground: Ground, out: string, args: string[]): Promise<boolean> {
  const end = await ground.run(args, {
    disturb: (child) => {
      const timer = setInterval(() => {
        if (linesWritten(out) >= SCORED) child.kill('SIGKILL')
      }, 5)
      child.on('exit', () => clearInterval(timer))
    },
  })
  return end.signal === 'SIGKILL'
}

/** The same rows with a megabyte that nobody reads in the first and in the last, so that the others are far from the file's ends. */
function padded(text: string): string {
  const lines = text.trim().split('\n')
  const pad = (line: string) => JSON.stringify({ ...JSON.parse(line), note: 'x'.repeat(1 << 20) })
  return `${[pad(lines[0]!), ...lines.slice(1, -1), pad(lines.at(-1)!)].join('\n')}\n`
}

/** Overwrites some bytes in the middle of a file; its size stays. */
function edit(file: string, at: number, text: string): void {
  const descriptor = openSync(file, 'r+')
  writeSync(descriptor, text, at)
  closeSync(descriptor)
}

export const interruptionScenarios: readonly Scenario[] = [
  scoring('SIGKILL'),
  scoring('SIGINT'),
  scoring('SIGTERM'),
  training('SIGKILL'),
  training('SIGINT'),
  {
    name: 'resume on edited data',
    async run(ground, scratch) {
      const [data, out] = [join(scratch, 'data.jsonl'), join(scratch, 'rewards.jsonl')]
      const text = padded(readFileSync(ground.data, 'utf8'))
      writeFileSync(data, text)
      if (!(await begun(ground, out, ground.score(out, data, '--batch-tokens', '300')))) return 'skipped'
      // A letter of an answer that is scored already. A hash of the file's ends does not see it.
      const row = 1 + ground.random.below(SCORED - 2)
      const start = Buffer.byteLength(text.split('\n').slice(0, row).join('\n'))
      edit(data, Buffer.from(text).indexOf('"chosen":"', start) + '"chosen":"'.length, 'X')
      expect(readFileSync(data, 'utf8') !== text, 'the soak edited nothing')
      expectRefused(await ground.run(ground.score(out, data, '--batch-tokens', '300', '--resume')))
    },
  },
  {
    name: 'resume on edited weights',
    async run(ground, scratch) {
      const out = join(scratch, 'rewards.jsonl')
      const model = await ground.largeModel()
      const args = ground.scoreWith(model, out, ground.data, '--batch-tokens', '300')
      const weights = join(model, 'model.safetensors')
      const before = readFileSync(weights)
      try {
        if (!(await begun(ground, out, args))) return 'skipped'
        const at = Math.floor(before.length * (0.3 + 0.6 * ground.random.unit()))
        edit(weights, at, '\x11')
        expectRefused(await ground.run([...args, '--resume']))
      } finally {
        writeFileSync(weights, before)
      }
    },
  },
  {
    name: 'resume of a finished output',
    async run(ground, scratch) {
      const out = join(scratch, 'rewards.jsonl')
      expectDone(await ground.run(ground.score(out)))
      expectDone(await ground.run(ground.score(out, ground.data, '--resume')))
      expect(readFileSync(out, 'utf8') === (await ground.undisturbedScores()), 'resuming a finished output changed it')
    },
  },
]

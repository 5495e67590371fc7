/** Pipes that close, and templates that do not end. */
import { spawn } from 'node:child_process'
import { existsSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { digest, expect, expectDone, expectRefused, type Ground, sleep, tail, type Scenario } from './ground.js'

/** Templates whose rendering would take for ever, or all memory. */
const ENDLESS = [
  '{% for i in range(4000000000) %}x{% endfor %}',
  '{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}',
  '{% set s = namespace(t="x") %}{% for i in range(60) %}{% set s.t = s.t + s.t %}{% endfor %}{{ s.t }}',
]

export const streamScenarios: readonly Scenario[] = [
  {
    name: 'a reader of stdout that leaves',
    async run(ground) {
      const end = await ground.run(ground.score('-'), {
        disturb: (child) => {
          child.stdout?.once('data', () => child.stdout?.destroy())
        },
      })
      expectDone(end)
    },
  },
  {
    name: 'a reader of stderr that leaves',
    async run(ground, scratch) {
      const out = join(scratch, 'run')
      const end = await ground.run(ground.train(out), {
        disturb: (child) => {
          child.stderr?.once('data', () => child.stderr?.destroy())
        },
      })
      expect(end.status === 0, `training ended with ${end.signal ?? end.status} when stderr closed`)
      expect(digest(join(out, 'model', 'model.safetensors')) === (await ground.undisturbedModel()), 'other weights')
    },
  },
  {
    name: 'interrupt after stderr closed',
    async run(ground, scratch) {
      const out = join(scratch, 'run')
      let asked = 0
      const end = await ground.run(ground.train(out, '--epochs', '2000'), {
        within: 180,
        disturb: (child) => {
          child.stderr?.once('data', () => {
            child.stderr?.destroy()
            setTimeout(() => {
              asked = performance.now()
              child.kill('SIGINT')
            }, 1500)
          })
        },
      })
      // From the interrupt on: how long the start takes depends on what else the machine does.
      const seconds = (performance.now() - asked) / 1000
      expect(asked === 0 || seconds < 20, `took ${seconds.toFixed(0)} s to end after an interrupt`)
      expect(end.status === 130, `ended with ${end.signal ?? end.status}`)
      expect(existsSync(join(out, 'checkpoints')), 'no checkpoint to go on from')
    },
  },
  ...(['score', 'train', 'generate'] as const).map(
    (command): Scenario => ({
      name: `an endless template, ${command}`,
      async run(ground, scratch) {
        const template = join(scratch, 'endless.jinja')
        writeFileSync(template, ground.random.pick(ENDLESS))
        const end = await ground.run([...argumentsOf(ground, scratch, command), '--template', template], { within: 45 })
        expectRefused(end)
        expect(/ERR_[A-Z_]+/.test(end.stderr), `no code: ${tail(end.stderr)}`)
      },
    }),
  ),
  {
    name: 'standard input that stops',
    async run(ground, scratch) {
      const out = join(scratch, 'out.jsonl')
      const [program, ...first] = ground.command
      const child = spawn(program, [...first, ...ground.score(out, '-')], {
        stdio: ['pipe', 'ignore', 'ignore'],
      })
      const ended = new Promise<number | null>((resolve) => child.on('exit', resolve))
      child.stdin.on('error', () => {})
      child.stdin.write('{"prompt": "a", "chosen": "b", "reje')
      // Once it is at work: before that, the signal ends it as it ends any program.
      for (let waited = 0; waited < 60 && !existsSync(`${out}.resume.json`) && child.exitCode === null; waited += 0.1)
        await sleep(0.1)
      child.kill('SIGINT')
      const late = setTimeout(() => child.kill('SIGKILL'), 20_000)
      const status = await ended
      clearTimeout(late)
      expect(status === 130, `an interrupt while waiting for input ended with ${status}`)
    },
  },
]

function argumentsOf(ground: Ground, scratch: string, command: 'score' | 'train' | 'generate'): string[] {
  if (command === 'score') return ground.score(join(scratch, 'out.jsonl'))
  if (command === 'train') return ground.train(join(scratch, 'run'))
  return ['generate', '--model', ground.model, '--data', ground.data, '--max-new-tokens', '2']
}

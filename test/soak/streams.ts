/** Pipes that close, and templates that do not end. */
import { spawn } from 'node:child_process'
import { existsSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { digest, expect, expectDone, expectRefused, type Ground, tail, type Scenario } from './ground.js'

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
      const end = await ground.run(ground.train(out, '--epochs', '2000'), {
        within: 30,
        disturb: (child) => {
          child.stderr?.once('data', () => {
            child.stderr?.destroy()
            setTimeout(() => child.kill('SIGINT'), 1500)
          })
        },
      })
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
      const [program, ...first] = ground.command
      const child = spawn(program, [...first, ...ground.score(join(scratch, 'out.jsonl'), '-')], {
        stdio: ['pipe', 'ignore', 'ignore'],
      })
      const ended = new Promise<number | null>((resolve) => child.on('exit', resolve))
      child.stdin.on('error', () => {})
      child.stdin.write('{"prompt": "a", "chosen": "b", "reje')
      setTimeout(() => child.kill('SIGINT'), 3000)
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

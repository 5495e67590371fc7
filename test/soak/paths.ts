/** Outputs that are inputs, files that vanish or change, disks that are full, and things that are no files. */
import { spawnSync } from 'node:child_process'
import {
  copyFileSync,
  cpSync,
  existsSync,
  linkSync,
  mkdirSync,
  readFileSync,
  renameSync,
  rmSync,
  symlinkSync,
  truncateSync,
  writeFileSync,
} from 'node:fs'
import { join } from 'node:path'
import {
  digest,
  expect,
  expectDone,
  expectRefused,
  type Ground,
  linesWritten,
  snapshot,
  tail,
  type Scenario,
} from './ground.js'

/** Another name of a file: the same path, one through `..`, a symbolic link or a hard link. */
function alias(ground: Ground, scratch: string, path: string): string {
  const link = join(scratch, 'link')
  switch (ground.random.below(4)) {
    case 0:
      return path
    case 1:
      return join(scratch, '..', path.slice(ground.folder.length))
    case 2:
      symlinkSync(path, link)
      return link
    default:
      linkSync(path, link)
      return link
  }
}

/** A copy of the data and of the model, so that a fault costs nothing but this scenario. */
function copies(ground: Ground, scratch: string): { data: string; model: string } {
  const inputs = join(scratch, 'inputs')
  mkdirSync(inputs)
  const [data, model] = [join(inputs, 'data.jsonl'), join(inputs, 'model')]
  copyFileSync(ground.data, data)
  cpSync(ground.model, model, { recursive: true })
  return { data, model }
}

/** A small file system of its own; undefined where this process may not mount one. */
function smallDisk(path: string, size: string): (() => void) | undefined {
  mkdirSync(path)
  if (spawnSync('mount', ['-t', 'tmpfs', '-o', `size=${size}`, 'tmpfs', path]).status !== 0) return undefined
  return () => void spawnSync('umount', ['-l', path])
}

export const pathScenarios: readonly Scenario[] = [
  {
    name: 'output over input',
    async run(ground, scratch) {
      const { data, model } = copies(ground, scratch)
      const before = snapshot(join(scratch, 'inputs'))
      const file = ground.random.pick([data, join(model, 'config.json'), join(model, 'model.safetensors')])
      const other = alias(ground, scratch, file)
      const free = join(scratch, 'free.jsonl')
      const common = ['--model', model, '--data', data]
      const commands = [
        ['score', '--kind', 'implicit', ...common, '--out', other],
        ['score', '--kind', 'implicit', ...common, '--out', free, '--summary', other],
        ['score', '--kind', 'implicit', ...common, '--out', free, '--summary', free],
        ['score', '--kind', 'implicit', ...common, '--out', other, '--force'],
        ['eval', '--kind', 'implicit', '--model', model, '--data', `set=${data}`, '--out', other],
        ['generate', ...common, '--max-new-tokens', '2', '--out', other],
        ['train', '--kind', 'explicit', ...common, '--out', model],
      ]
      expectRefused(await ground.run(ground.random.pick(commands)))
      expect(snapshot(join(scratch, 'inputs')) === before, 'an input was changed')
    },
  },
  {
    name: 'a failing run over a finished output',
    async run(ground, scratch) {
      const [data, out] = [join(scratch, 'bad.jsonl'), join(scratch, 'rewards.jsonl')]
      writeFileSync(out, await ground.undisturbedScores())
      const lines = readFileSync(ground.data, 'utf8').trim().split('\n')
      lines.splice(ground.random.below(3), 0, '{"prompt": 1}')
      writeFileSync(data, lines.join('\n'))
      expectRefused(await ground.run(ground.score(out, data)))
      expect(readFileSync(out, 'utf8') === (await ground.undisturbedScores()), 'the finished output is gone')
    },
  },
  {
    name: 'data cut while it is read',
    async run(ground, scratch) {
      const [data, out] = [join(scratch, 'data.jsonl'), join(scratch, 'rewards.jsonl')]
      // What nobody reads fills the rows, so that few of them are read ahead of the scoring.
      const rows = readFileSync(ground.data, 'utf8').trim().split('\n')
      const note = 'x'.repeat(4096)
      const bytes = Buffer.from(rows.map((row) => `${JSON.stringify({ ...JSON.parse(row), note })}\n`).join(''))
      writeFileSync(data, bytes)
      let cut = false
      const end = await ground.run(ground.score(out, data, '--batch-tokens', '500'), {
        disturb: (child) => {
          const timer = setInterval(() => {
            if (cut || linesWritten(out) < 20) return
            truncateSync(data, bytes.indexOf('\n', Math.floor(bytes.length * (0.6 + 0.3 * ground.random.unit()))) + 1)
            cut = true
          }, 5)
          child.on('exit', () => clearInterval(timer))
        },
      })
      if (!cut) return 'skipped'
      const lines = readFileSync(out, 'utf8').split('\n').length - 1
      expect(end.status !== 0 || lines === ground.rows, `exit status 0 with ${lines} of ${ground.rows} rows`)
    },
  },
  {
    name: 'two writers of one file',
    async run(ground, scratch) {
      const [out, link] = [join(scratch, 'rewards.jsonl'), join(scratch, 'link.jsonl')]
      writeFileSync(out, '')
      if (ground.random.below(2) === 0) symlinkSync(out, link)
      else linkSync(out, link)
      // Of the same rows two writers would write the same bytes to the same places.
      const data = [ground.data, await ground.reversed()] as const
      const ends = await Promise.all([
        ground.run(ground.score(out, data[0], '--force')),
        ground.run(ground.score(link, data[1], '--force')),
      ])
      const done = ends.filter(({ status }) => status === 0)
      for (const end of ends) if (end.status !== 0) expectRefused(end)
      expect(done.length >= 1, 'neither of two writers got the file')
      expect(done.length === 1, 'two writers at once both think that the file is theirs')
      for (const path of [out, link]) {
        const text = readFileSync(path, 'utf8')
        const whole = [await ground.undisturbedScores(data[0]), await ground.undisturbedScores(data[1])]
        expect(text === '' || whole.includes(text), 'two writers mixed their rows')
      }
    },
  },
  {
    name: 'files that vanish',
    async run(ground, scratch) {
      const { data, model } = copies(ground, scratch)
      const out = join(scratch, 'out', 'rewards.jsonl')
      mkdirSync(join(scratch, 'out'))
      const victim = ground.random.pick([
        data,
        join(model, 'tokenizer.json'),
        join(model, 'model.safetensors'),
        model,
        join(scratch, 'out'),
      ])
      const args = ['score', '--kind', 'implicit', '--model', model, '--data', data, '--out', out, '--quiet']
      const end = await ground.run(args, {
        disturb: () =>
          void setTimeout(() => rmSync(victim, { recursive: true, force: true }), ground.random.unit() * 3000),
      })
      if (end.status !== 0) return expectRefused(end)
      const written = existsSync(out) ? readFileSync(out, 'utf8') : ''
      expect(
        victim === join(scratch, 'out') || written === (await ground.undisturbedScores()),
        'exit status 0 without all rows',
      )
    },
  },
  {
    name: 'a full disk, score',
    async run(ground, scratch) {
      const disk = join(scratch, 'disk')
      const unmount = smallDisk(disk, '32k')
      if (unmount === undefined) return 'skipped'
      try {
        const out = join(disk, 'rewards.jsonl')
        const end = await ground.run(ground.score(out))
        expectRefused(end)
        expect(end.stderr.includes('ERR_DISK_FULL'), `no word of the full disk: ${tail(end.stderr)}`)
        spawnSync('mount', ['-o', 'remount,size=8m', disk])
        expectDone(await ground.run(ground.score(out, ground.data, '--resume')))
        expect(
          readFileSync(out, 'utf8') === (await ground.undisturbedScores()),
          'resumed after a full disk: other bytes',
        )
      } finally {
        unmount()
      }
    },
  },
  {
    name: 'a full disk, train',
    async run(ground, scratch) {
      const disk = join(scratch, 'disk')
      const unmount = smallDisk(disk, `${3 + ground.random.below(6)}m`)
      if (unmount === undefined) return 'skipped'
      try {
        const out = join(disk, 'run')
        const end = await ground.run(ground.train(out, '--quiet'))
        if (end.status !== 0) {
          expectRefused(end)
          spawnSync('mount', ['-o', 'remount,size=64m', disk])
          expectDone(await ground.run(ground.train(out, '--quiet', '--resume')))
        }
        expect(
          digest(join(out, 'model', 'model.safetensors')) === (await ground.undisturbedModel()),
          'other weights after a full disk',
        )
      } finally {
        unmount()
      }
    },
  },
  {
    name: 'things that are no files',
    async run(ground, scratch) {
      const pipe = join(scratch, 'pipe')
      if (spawnSync('mkfifo', [pipe]).status !== 0) return 'skipped'
      const out = join(scratch, 'out.jsonl')
      const { model } = copies(ground, scratch)
      const place = ground.random.pick(['data', 'template', 'tokenizer', 'summary', 'out'] as const)
      if (place === 'tokenizer') {
        rmSync(join(model, 'tokenizer.json'))
        renameSync(pipe, join(model, 'tokenizer.json'))
      }
      const args = ['score', '--model', model, '--kind', 'implicit', '--data', place === 'data' ? pipe : ground.data]
      args.push('--out', place === 'out' ? pipe : out, '--limit', '3')
      if (place === 'template') args.push('--template', pipe)
      if (place === 'summary') args.push('--summary', pipe)
      // Nobody is at the other end. It may wait for data or a reader, but an interrupt ends it.
      const end = await ground.run(args, {
        within: 20,
        disturb: (child) => void setTimeout(() => child.kill('SIGINT'), 5000),
      })
      expect(end.status !== null || end.signal === 'SIGINT', `ended by ${end.signal}`)
    },
  },
  {
    name: 'a summary that cannot be written',
    async run(ground, scratch) {
      const out = join(scratch, 'out.jsonl')
      const end = await ground.run(
        ground.score(out, ground.data, '--summary', join(scratch, 'missing', 'summary.json')),
      )
      expectRefused(end)
      expect(!existsSync(out) || readFileSync(out, 'utf8') === '', 'found only after the rows were scored')
    },
  },
  {
    name: 'data sets with odd names',
    async run(ground, scratch) {
      const names = ['constructor', '__proto__', 'toString', 'hasOwnProperty', 'valueOf']
      const out = join(scratch, 'results.json')
      const small = join(scratch, 'small.jsonl')
      writeFileSync(small, `${readFileSync(ground.data, 'utf8').split('\n').slice(0, 4).join('\n')}\n`)
      const end = await ground.run([
        'eval',
        '--model',
        ground.model,
        '--kind',
        'implicit',
        '--data',
        ...names.map((name) => `${name}=${small}`),
        '--out',
        out,
      ])
      expectDone(end)
      for (const name of names)
        expect(readFileSync(out, 'utf8').includes(`"${name}"`), `the set ${name} is not in the results`)
    },
  },
]

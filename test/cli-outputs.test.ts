/** Outputs that are inputs or each other, finished outputs, pipes, closed streams: nothing is lost, and refusals come before any work. */
import { spawn, spawnSync } from 'node:child_process'
import {
  copyFileSync,
  existsSync,
  linkSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs'
import { join } from 'node:path'
import { suite } from 'uvu'
import * as assert from 'uvu/assert'
import { writeTinyCheckpoint } from './fixtures/tiny-checkpoint.js'
import { type CliOptions, type CliResult, implex, implexHere } from './support/cli.js'
import { sleep } from './support/engine.js'
import { repositoryRoot } from './support/shared.js'
import { skip } from './support/skip.js'
import { temporaryFolder } from './support/tmp.js'

const folder = temporaryFolder()
const at = (...names: string[]) => join(folder, ...names)
const MODEL = at('model')
await writeTinyCheckpoint(MODEL, { head: 'extra' })
const ROWS = Array.from({ length: 60 }, (_, i) => ({
  id: i,
  prompt: `p ${i}`,
  chosen: 'water',
  rejected: 'oil and water',
}))
const text = (rows: unknown[]) => rows.map((row) => `${JSON.stringify(row)}\n`).join('')
const DATA = at('pairs.jsonl')
writeFileSync(DATA, text(ROWS))
const env = { XDG_CACHE_HOME: at('xdg') }
const run = (args: string[], options?: CliOptions): Promise<CliResult> =>
  options === undefined ? implexHere(args, env) : implex(args, { ...options, env: { ...env, ...options.env } })
const SCORE = ['score', '--model', MODEL, '--kind', 'explicit', '--device', 'cpu', '--quiet']

/** Contents of everything below a folder, by name. */
function contents(path: string): Record<string, string> {
  const names = readdirSync(path, { recursive: true, encoding: 'utf8' }).sort()
  return Object.fromEntries(
    names
      .filter((name) => statSync(join(path, name)).isFile())
      .map((name) => [name, readFileSync(join(path, name), 'latin1')]),
  )
}

const overlap = suite('an output that is an input')
let number = 0
/** A folder with data and a model of its own. */
function inputs(): { home: string; data: string; model: string } {
  const home = at(`inputs-${number++}`)
  mkdirSync(join(home, 'model'), { recursive: true })
  for (const name of readdirSync(MODEL)) copyFileSync(join(MODEL, name), join(home, 'model', name))
  copyFileSync(DATA, join(home, 'data.jsonl'))
  return { home, data: join(home, 'data.jsonl'), model: join(home, 'model') }
}

const ALIASES: Record<string, (path: string) => string> = {
  'the same path': (path) => path,
  'another spelling': (path) => join(path, '..', '.', path.split('/').at(-1)!),
  'a symbolic link': (path) => {
    symlinkSync(path, `${path}.link`)
    return `${path}.link`
  },
  'a hard link': (path) => {
    linkSync(path, `${path}.hard`)
    return `${path}.hard`
  },
}

for (const [how, alias] of Object.entries(ALIASES)) {
  overlap(`score, eval, generate and report refuse it: ${how}`, async () => {
    const cases: [string, (data: string, model: string) => [string, string[]]][] = [
      ['--out', (data, model) => [data, ['score', '--model', model, '--kind', 'explicit', '--data', data, '--out']]],
      [
        '--out',
        (data, model) => [data, ['score', '--model', model, '--kind', 'explicit', '--data', data, '--force', '--out']],
      ],
      [
        '--summary',
        (data, model) => [data, ['score', '--model', model, '--kind', 'explicit', '--data', data, '--summary']],
      ],
      [
        '--out',
        (data, model) => [
          join(model, 'model.safetensors'),
          ['score', '--model', model, '--kind', 'explicit', '--data', data, '--out'],
        ],
      ],
      [
        '--out',
        (data, model) => [
          join(model, 'config.json'),
          ['score', '--model', MODEL, '--reference', model, '--kind', 'implicit', '--data', data, '--out'],
        ],
      ],
      [
        '--out',
        (data, model) => [data, ['eval', '--model', model, '--kind', 'explicit', '--data', `set=${data}`, '--out']],
      ],
      ['--out', (data, model) => [data, ['generate', '--model', model, '--data', data, '--out']]],
    ]
    for (const [flag, of] of cases) {
      const { home, data, model } = inputs()
      const [victim, args] = of(data, model)
      const before = readFileSync(victim)
      const { status, stderr } = await run([...args, alias(victim)])
      assert.is(status, 2, `${args[0]} ${flag}: ${stderr}`)
      assert.match(stderr, new RegExp(`${flag} .* is the same file as .*, which --(data|model|reference)( set)? reads`))
      assert.equal(readFileSync(victim), before)
      assert.ok(!readdirSync(home).some((name) => name.endsWith('.tmp')))
    }
  })
}

overlap('two outputs are one file', async () => {
  const { status, stderr } = await run([...SCORE, '--data', DATA, '--out', at('one'), '--summary', at('.', 'one')])
  assert.is(status, 2)
  assert.match(stderr, /--summary .* is also what --out writes/)
  assert.not(existsSync(at('one')))
})

overlap('a report does not replace what it is made of', async () => {
  const out = at('run')
  const train = [
    'train',
    '--model',
    MODEL,
    '--kind',
    'explicit',
    '--data',
    DATA,
    '--out',
    out,
    '--epochs',
    '1',
    '--quiet',
  ]
  assert.is((await run(train)).status, 0)
  const before = contents(out)
  const { status } = await run(['report', out, '--out', join(out, 'summary.json')])
  assert.is(status, 2)
  assert.equal(contents(out), before)
  assert.is((await run(['report', out, '--out', out])).status, 0)
})

overlap('the folder of an output is looked for before the model is loaded', async () => {
  for (const flag of ['--out', '--summary']) {
    const out = flag === '--out' ? [] : ['--out', at('never')]
    const { status, stderr } = await run([...SCORE, '--data', DATA, ...out, flag, at('missing', 'file')])
    assert.is(status, 1)
    assert.match(stderr, /the folder .*missing does not exist; make it first .*ERR_IO/)
    assert.not(existsSync(at('never')))
  }
})
overlap.run()

const finished = suite('a finished output')
finished('is not overwritten without --force, and not by a run that fails before its first row', async () => {
  const out = at('finished.jsonl')
  assert.is((await run([...SCORE, '--data', DATA, '--out', out])).status, 0)
  const lines = readFileSync(out, 'utf8')
  const again = await run([...SCORE, '--data', DATA, '--out', out])
  assert.is(again.status, 1)
  assert.match(
    again.stderr,
    /finished.jsonl exists: choose another --out, or overwrite it with --force .*ERR_OUTPUT_EXISTS/,
  )
  const failed = await run([
    'score',
    '--model',
    at('none'),
    '--kind',
    'explicit',
    '--data',
    DATA,
    '--out',
    out,
    '--force',
  ])
  assert.is(failed.status, 1)
  assert.is(readFileSync(out, 'utf8'), lines)
  const forced = await run([...SCORE, '--data', DATA, '--out', out, '--force', '--limit', '2'])
  assert.is(forced.status, 0, forced.stderr)
  assert.is(readFileSync(out, 'utf8'), lines.split('\n').slice(0, 2).join('\n').concat('\n'))
})

finished('--resume of it is done, exit 0; of another one it is not', async () => {
  const out = at('done.jsonl')
  assert.is((await run([...SCORE, '--data', DATA, '--out', out])).status, 0)
  const before = statSync(out)
  const again = await run([...SCORE.filter((flag) => flag !== '--quiet'), '--data', DATA, '--out', out, '--resume'])
  assert.is(again.status, 0)
  assert.match(again.stderr, /done.jsonl is complete; there is nothing to resume/)
  assert.is(statSync(out).mtimeMs, before.mtimeMs)
  writeFileSync(at('more.jsonl'), text([...ROWS, ROWS[0]]))
  const other = await run([...SCORE, '--data', at('more.jsonl'), '--out', out, '--resume'])
  assert.is(other.status, 1)
  assert.match(other.stderr, /not a line for each row/)
})

finished('what a run that was killed while it wrote its state left behind goes away', async () => {
  const out = at('left.jsonl')
  const [left, other] = [at('.left.jsonl.resume.json.0123456789ab.tmp'), at('.left.jsonl.resume.json.of-the-user.tmp')]
  for (const path of [left, other]) writeFileSync(path, '{')
  assert.is((await run([...SCORE, '--data', DATA, '--out', out])).status, 0)
  assert.equal([left, other].map(existsSync), [false, true])
})

finished('an empty file is no output: --resume begins', async () => {
  const out = at('empty.jsonl')
  writeFileSync(out, '')
  const { status, stderr } = await run([...SCORE, '--data', DATA, '--out', out, '--resume'])
  assert.is(status, 0, stderr)
  assert.is(readFileSync(out, 'utf8').split('\n').length, ROWS.length + 1)
})

finished('generate and eval keep it too', async () => {
  const out = at('generated.jsonl')
  const generate = ['generate', '--model', MODEL, '--prompt', 'a', '--max-new-tokens', '2', '--out', out]
  assert.is((await run(generate)).status, 0)
  assert.match((await run(generate)).stderr, /ERR_OUTPUT_EXISTS/)
  assert.is((await run([...generate, '--force'])).status, 0)
  const rewards = at('rewards')
  const evaluate = (data: string) =>
    run(['eval', '--model', MODEL, '--kind', 'explicit', '--data', `set=${data}`, '--rewards', rewards, '--quiet'])
  assert.is((await evaluate(DATA)).status, 0)
  const before = contents(rewards)
  writeFileSync(at('bad.jsonl'), text([ROWS[0], { prompt: 1 }]))
  assert.is((await evaluate(at('bad.jsonl'))).status, 1)
  assert.equal(contents(rewards), before)
})
finished.run()

const links = suite('one file under two names')
links('a link is followed: lock and unfinished state are those of the file', async () => {
  const [real, link] = [at('real.jsonl'), at('link.jsonl')]
  writeFileSync(real, '')
  symlinkSync(real, link)
  const ends = await Promise.all(
    [real, link].map((out) => run([...SCORE, '--data', DATA, '--out', out, '--force'], {})),
  )
  const codes = ends.map(({ status }) => status).sort()
  assert.ok(codes[0] === 0, ends.map(({ stderr }) => stderr).join('\n'))
  for (const { status, stderr } of ends) if (status !== 0) assert.match(stderr, /ERR_IN_USE/)
  assert.is(readFileSync(real, 'utf8').split('\n').length, ROWS.length + 1)
  assert.is(readFileSync(link, 'utf8'), readFileSync(real, 'utf8'))
  assert.ok(readdirSync(folder).every((name) => !/^(real|link)\.jsonl\./.test(name)))
})
links.run()

const streams = suite('pipes and closed streams')
const MAIN = join(repositoryRoot, 'dist', 'cli', 'main.js')
/** Runs a shell script in which `$IMPLEX` is the command; at most 30 seconds. */
const shell = (script: string) =>
  spawnSync('bash', ['-c', script], {
    encoding: 'utf8',
    timeout: 30_000,
    env: { ...process.env, IMPLEX: `${process.execPath} ${MAIN}`, XDG_CACHE_HOME: at('xdg') },
  })

streams('data from a named pipe, rewards into one', () => {
  const [input, output] = [at('in.pipe'), at('out.pipe')]
  if (spawnSync('mkfifo', [input, output]).status !== 0) return skip('mkfifo is not there')
  const { stdout, status, stderr } = shell(
    `cat '${DATA}' > '${input}' & cat '${output}' & $IMPLEX ${SCORE.slice(0, -1).join(' ')} --data '${input}' --out '${output}'; status=$?; wait; exit $status`,
  )
  assert.is(status, 0, stderr)
  assert.is(stdout.split('\n').length, ROWS.length + 1)
})

streams('an interrupt ends the wait for a pipe that nobody writes', async () => {
  const pipe = at('quiet.pipe')
  if (spawnSync('mkfifo', [pipe]).status !== 0) return skip('mkfifo is not there')
  const child = spawn(process.execPath, [MAIN, ...SCORE, '--data', pipe, '--out', at('quiet.jsonl')])
  const end = new Promise((resolve) => child.on('exit', (status) => resolve(status)))
  while (!existsSync(at('quiet.jsonl.resume.json'))) await sleep(20)
  child.kill('SIGINT')
  assert.is(await Promise.race([end, sleep(10_000).then(() => child.kill('SIGKILL'))]), 130)
})

streams('a template or tokenizer that is a pipe is refused', async () => {
  const pipe = at('template.pipe')
  if (spawnSync('mkfifo', [pipe]).status !== 0) return skip('mkfifo is not there')
  const { status, stderr } = await run([...SCORE, '--data', DATA, '--template', pipe])
  assert.is(status, 1)
  assert.match(stderr, /is not a regular file/)
})

streams('a reader of stderr that leaves ends no training', () => {
  const out = at('closed-stderr')
  const args = [
    'train',
    '--model',
    MODEL,
    '--kind',
    'explicit',
    '--data',
    DATA,
    '--out',
    out,
    '--epochs',
    '3',
    '--log-steps',
    '1',
  ]
  const { stdout } = shell(
    `exec 3>&1; { $IMPLEX ${args.join(' ')} 2>&1 >/dev/null; echo "status $?" >&3; } | head -c 1 >/dev/null`,
  )
  assert.match(stdout, /status 0/)
  assert.ok(existsSync(join(out, 'summary.json')))
  assert.not(existsSync(join(out, '.lock')))
})
streams.run()

const reading = suite('data that changes while it is read')
reading('a file that was cut or grew at a line end is an error, not the end', async () => {
  const data = at('changing.jsonl')
  for (const change of ['cut', 'grown'] as const) {
    writeFileSync(data, text(Array.from({ length: 3000 }, (_, i) => ({ ...ROWS[i % 60], id: i }))))
    const out = at(`${change}.jsonl`)
    let changed = false
    const { status, stderr } = await run([...SCORE, '--data', data, '--out', out, '--batch-tokens', '64'], {
      onStart: (child) => {
        const timer = setInterval(() => {
          if (changed || !existsSync(out) || statSync(out).size === 0) return
          changed = true
          const lines = readFileSync(data, 'utf8')
          writeFileSync(
            data,
            change === 'cut' ? lines.slice(0, lines.lastIndexOf('\n', lines.length * 0.9) + 1) : lines + lines,
          )
        }, 2)
        child.on('exit', () => clearInterval(timer))
      },
    })
    assert.ok(changed)
    assert.is(status, 1, change)
    assert.match(stderr, /was changed while it was read, so rows may be missing/)
  }
})
reading.run()

const editing = suite('data or weights edited before --resume')
editing('any row or weight that was used is noticed, the row by its line', async () => {
  const data = at('edited.jsonl')
  const rows = Array.from({ length: 4000 }, (_, i) => ({ ...ROWS[i % 60], id: i, note: 'x'.repeat(40) }))
  writeFileSync(data, text(rows))
  const model = inputs().model
  const args = ['score', '--model', model, '--kind', 'explicit', '--data', data, '--out', at('edited.out'), '--quiet']
  const interrupted = await run([...args, '--batch-tokens', '64'], {
    onStart: async (child) => {
      while (child.exitCode === null && !(existsSync(at('edited.out')) && statSync(at('edited.out')).size > 30_000))
        await sleep(2)
      child.kill('SIGKILL')
    },
  })
  assert.is(interrupted.signal, 'SIGKILL')
  const done = readFileSync(at('edited.out'), 'utf8').split('\n').length - 1
  assert.ok(done > 50 && done < rows.length)
  for (const row of [0, Math.floor(done / 2)]) {
    writeFileSync(data, text(rows.map((one, i) => (i === row ? { ...one, chosen: 'later' } : one))))
    const { status, stderr } = await run([...args, '--resume'])
    assert.is(status, 1)
    assert.match(
      stderr,
      new RegExp(`edited.jsonl: row ${row} \\(line ${row + 1}\\) has changed since .*ERR_RESUME_MISMATCH`),
    )
  }
  writeFileSync(data, text(rows.slice(0, 20)))
  assert.match((await run([...args, '--resume'])).stderr, /it has fewer rows than the \d+ that are scored/)
  writeFileSync(data, text(rows))
  const weights = join(model, 'model.safetensors')
  const before = readFileSync(weights)
  for (const share of [0.5, 0.77, 0.999]) {
    const bytes = Buffer.from(before)
    bytes[Math.floor(bytes.length * share)]! ^= 0x10
    writeFileSync(weights, bytes)
    assert.match((await run([...args, '--resume'])).stderr, /model was content \w+, now content \w+/)
  }
  writeFileSync(weights, before)
  const { status, stderr } = await run([...args, '--resume'])
  assert.is(status, 0, stderr)
  const whole = await run(['score', '--model', MODEL, '--kind', 'explicit', '--data', data, '--quiet'])
  assert.is(readFileSync(at('edited.out'), 'utf8'), whole.stdout)
  assert.ok(readdirSync(folder).every((name) => !name.startsWith('edited.out.')))
})
editing.run()

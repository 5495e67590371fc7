/** The command as such: help, wrong usage, doctor. */
import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { suite } from 'uvu'
import * as assert from 'uvu/assert'
import { writeTinyModels } from './fixtures/tiny-models.js'
import { implex, implexHere } from './support/cli.js'
import { repositoryRoot } from './support/shared.js'
import { temporaryFolder } from './support/tmp.js'

const folder = temporaryFolder()
const command = suite('implex')

for (const args of [['--help'], ['score', '--help'], ['doctor', '--help']]) {
  command(`implex ${args.join(' ')} fits into 80 columns`, async () => {
    const { status, stdout } = await implexHere(args, { COLUMNS: '200' })
    assert.is(status, 0)
    assert.match(stdout, /Usage: implex/)
    for (const line of stdout.split('\n')) assert.ok(line.length <= 80, line)
  })
}

command('--version', async () => {
  const { status, stdout } = await implex(['--version'])
  assert.is(status, 0)
  assert.match(stdout, /^\d+\.\d+\.\d+\n$/)
})

const score = ['score', '--model', 'm', '--kind', 'implicit', '--data', 'd']
const wrong: [string, string[], RegExp][] = [
  ['nothing', [], /Usage: implex/],
  ['an unknown command', ['train-everything'], /unknown command 'train-everything'/],
  ['an unknown flag', [...score, '--fast'], /unknown option '--fast'/],
  ['a superfluous argument', [...score, 'x'], /too many arguments/],
  ['no model', ['score', '--kind', 'implicit', '--data', 'd'], /required option '--model <dir>' not specified/],
  ['no data', ['score', '--kind', 'implicit', '--model', 'm'], /required option '--data <file>' not specified/],
  ['no kind', ['score', '--model', 'm', '--data', 'd'], /required option '--kind <kind>' not specified/],
  ['a flag without its value', [...score, '--beta'], /argument missing/],
  ['an unknown kind', ['score', '--model', 'm', '--data', 'd', '--kind', 'x'], /one of explicit, implicit, generative/],
  ['an unknown device', [...score, '--device', 'tpu'], /one of auto, cpu, cuda/],
  ['an unknown dtype', [...score, '--dtype', 'f16'], /one of f32, bf16/],
  ['an unknown rule for long rows', [...score, '--on-long', 'cut'], /one of error, skip, truncate-prompt/],
  ['a β that is no number', [...score, '--beta', 'x'], /must be a number above 0/],
  ['a β of zero', [...score, '--beta', '0'], /must be a number above 0/],
  ['batches of nothing', [...score, '--batch-tokens', '0'], /whole number of at least 1/],
  ['a limit that is no number', [...score, '--limit', '1e3'], /whole number of at least 0/],
  ['--resume onto standard output', [...score, '--resume'], /--resume needs --out FILE/],
  [
    '--resume from standard input',
    ['score', '--model', 'm', '--kind', 'implicit', '--data', '-', '--out', 'o', '--resume'],
    /needs --data FILE/,
  ],
  ['--resume with --force', [...score, '--out', 'o', '--resume', '--force'], /give one of them/],
  [
    '--logprobs of an explicit reward',
    ['score', '--model', 'm', '--kind', 'explicit', '--data', 'd', '--logprobs'],
    /is for --kind implicit/,
  ],
]
for (const [name, args, message] of wrong) {
  command(`wrong usage: ${name}`, async () => {
    const { status, stdout, stderr } = await implexHere(args)
    assert.is(status, 2)
    assert.is(stdout, '')
    assert.match(stderr, message)
  })
}

command('the process ends with the status of the command', async () => {
  const { status, stderr } = await implex(['train-everything'])
  assert.is(status, 2)
  assert.match(stderr, /unknown command 'train-everything'/)
})

command('doctor says what is there, for people and for programs', async () => {
  const { status, stdout } = await implexHere(['doctor'])
  assert.is(status, 0)
  for (const part of [
    /^implex +\d/m,
    /^engine +\S+implex\.node/m,
    /^kernels +\w/m,
    /^threads +\d/m,
    /^memory .* GiB/m,
    /^CUDA /m,
    /^driver /m,
    /^nvcc /m,
  ]) {
    assert.match(stdout, part)
  }
  const json = await implexHere(['doctor', '--json'])
  assert.is(json.status, 0)
  const report = JSON.parse(json.stdout)
  assert.is(report.node, process.versions.node)
  assert.ok(report.engine.info.cpu.available.includes(report.engine.info.cpu.kernels))
  assert.type(report.cuda.ok, 'boolean')
  assert.ok(Array.isArray(report.advice))
})

command('settings of the engine that cannot be had are refused, and doctor says so', async () => {
  const { policy } = await writeTinyModels(join(folder, 'models'))
  const data = join(repositoryRoot, 'examples', 'pairs.jsonl')
  const score = ['score', '--model', policy, '--kind', 'implicit', '--data', data, '--device', 'cpu', '--quiet']
  for (const [env, message] of [
    [{ IMPLEX_KERNELS: 'avx1024' }, /IMPLEX_KERNELS is "avx1024", but this build has for this processor: baseline\b/],
    [{ IMPLEX_KERNELS: 'x'.repeat(100_000) }, /IMPLEX_KERNELS is "x{40}", but .*baseline\b/],
    [{ IMPLEX_THREADS: '0' }, /IMPLEX_THREADS is "0"; it must be a whole number from 1 to 1024/],
    [{ IMPLEX_THREADS: 'many' }, /IMPLEX_THREADS is "many"/],
  ] as const) {
    const { status, stdout, stderr } = await implex(score, { env })
    assert.equal([status, stdout], [1, ''])
    assert.match(stderr, message)
    assert.match(stderr, /ERR_DEVICE_UNAVAILABLE/)
  }
  const said = (await implex(['doctor'], { env: { IMPLEX_KERNELS: 'avx1024' } })).stdout
  assert.match(said, /^No model can be opened: IMPLEX_KERNELS is "avx1024", but .*, or none\.$/m)
  for (const env of [
    { IMPLEX_KERNELS: 'baseline', IMPLEX_THREADS: '2' },
    { IMPLEX_KERNELS: '', IMPLEX_THREADS: '' },
  ])
    assert.is((await implex(score, { env })).status, 0)
})

command('doctor without an engine fails, says where it looked and what to do', async () => {
  const missing = join(folder, 'absent.node')
  const { status, stdout } = await implex(['doctor'], { env: { IMPLEX_NATIVE: missing } })
  assert.is(status, 1)
  assert.match(stdout, /engine +not usable/)
  assert.ok(stdout.includes(missing))
  assert.match(stdout, /npm run build:native/)
})

command('doctor survives an engine and a CUDA module that cannot be loaded', async () => {
  const file = join(folder, 'no-library.so')
  writeFileSync(file, 'not a library')
  const broken = await implex(['doctor', '--json'], { env: { IMPLEX_NATIVE: file } })
  assert.is(broken.status, 1)
  assert.match(JSON.parse(broken.stdout).engine.error, /no-library\.so/)
  const cuda = await implex(['doctor', '--json'], { env: { IMPLEX_CUDA: file } })
  assert.is(cuda.status, 0)
  const report = JSON.parse(cuda.stdout).cuda
  assert.not(report.ok)
  assert.is(report.module, file)
  assert.match(report.reason, /\w/)
})
command.run()

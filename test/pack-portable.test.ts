/**
 * The portable folder: packed once, then used with an empty environment, from another working directory, with no Node in PATH.
 */
import { spawnSync } from 'node:child_process'
import { existsSync, mkdirSync, readdirSync, statSync, symlinkSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { suite } from 'uvu'
import * as assert from 'uvu/assert'
import { repositoryRoot } from './support/shared.js'
import { skip } from './support/skip.js'
import { temporaryFolder } from './support/tmp.js'

const folder = temporaryFolder()
const out = join(folder, 'a folder', 'implex')
const script = join(repositoryRoot, 'scripts', 'pack-portable.mjs')
const pack = (...args: string[]) => spawnSync(process.execPath, [script, ...args], { encoding: 'utf8' })
const LIMIT = 60e6
/** What `run` itself needs of the system. */
const TOOLS = ['dirname', 'readlink', 'sed', 'sh']

/** A PATH with TOOLS and nothing else. */
function barePath(): string {
  const bin = join(folder, 'bin')
  if (!existsSync(bin)) {
    mkdirSync(bin)
    for (const tool of TOOLS) symlinkSync(join('/bin', tool), join(bin, tool))
  }
  return bin
}

function run(...args: string[]) {
  const env = { PATH: barePath(), HOME: '' }
  return spawnSync(join(out, 'run'), args, { cwd: '/', env, encoding: 'utf8' })
}

const portable = suite('portable folder')

if (process.platform !== 'linux') skip(`pack:portable is for Linux, this is ${process.platform}`)
else {
  portable.before(() => {
    const { status, stdout, stderr } = pack('--out', out)
    assert.is(status, 0, stderr)
    assert.match(stdout, /needs glibc 2\.\d+ or later/)
  })

  portable('the command, without Node in PATH, an empty HOME and from another folder', () => {
    const doctor = run('implex', 'doctor', '--json')
    assert.is(doctor.status, 0, doctor.stderr)
    const { node, engine } = JSON.parse(doctor.stdout) as { node: string; engine: { attempts: unknown[] } }
    assert.is(node, process.versions.node)
    assert.ok(JSON.stringify(engine).includes(join(out, 'build', 'Release', 'implex.node')))
    const help = run('implex', '--help')
    assert.is(help.status, 0, help.stderr)
    assert.match(help.stdout, /score/)
  })

  portable('a suite of tests, through a link to the launcher', () => {
    const link = join(folder, 'link')
    symlinkSync(join(out, 'run'), link)
    const env = { PATH: barePath(), HOME: '' }
    const { status, stdout } = spawnSync(link, ['test', 'data-pack'], { cwd: '/', env, encoding: 'utf8' })
    assert.is(status, 0, stdout)
    assert.match(stdout, /^[1-9]\d* passed, 0 failed, 0 skipped$/m)
  })

  portable('says what it can do, and refuses what it does not know', () => {
    const help = run()
    assert.is(help.status, 0)
    assert.match(help.stdout, /run test:gpu/)
    assert.is(run('nonsense').status, 2)
    assert.is(run('node', '-p', '6 * 7').stdout.trim(), '42')
  })

  portable('no development packages but those of the tests, and nothing of this machine', () => {
    const names = readdirSync(join(out, 'node_modules'))
    assert.ok(names.includes('commander') && names.includes('uvu'))
    for (const name of ['typescript', '@biomejs', 'cmake-js', 'node-gyp', 'benny']) assert.not(names.includes(name))
    for (const file of ['README.md', 'run', 'scripts/portable/cuda-libs']) assert.ok(existsSync(join(out, file)), file)
  })

  portable('does not replace what it did not make', () => {
    const again = pack('--out', out)
    assert.is(again.status, 1)
    assert.match(again.stderr, /--force/)
    const other = join(folder, 'other')
    mkdirSync(other)
    writeFileSync(join(other, 'mine.txt'), 'mine')
    const forced = pack('--out', other, '--force')
    assert.is(forced.status, 1)
    assert.match(forced.stderr, /not a packed folder/)
    assert.ok(existsSync(join(other, 'mine.txt')))
  })

  portable('the archive is below the limit', () => {
    if (spawnSync('xz', ['--version']).status !== 0) return skip('xz was not found')
    const archived = join(folder, 'archived')
    // The quickest level: a better one only makes it smaller.
    const { status, stderr } = pack('--out', archived, '--archive', '--level', '0')
    assert.is(status, 0, stderr)
    const { size } = statSync(`${archived}.tar.xz`)
    assert.ok(size > 1e6 && size < LIMIT, `${size} bytes`)
  })
}
portable.run()

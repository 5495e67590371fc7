// `npm run pack:portable`: one folder that runs on a Linux machine of the same architecture without Node, npm or a network.
//   node scripts/pack-portable.mjs [--out FOLDER] [--archive] [--level 0-9] [--force]
// --out: default build-portable/implex-VERSION-PLATFORM. --archive: FOLDER.tar.xz beside it, of at most 60 MB. See docs/portable.md.
import { spawnSync } from 'node:child_process'
import { existsSync, mkdirSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs'
import { basename, dirname, join, resolve } from 'node:path'
import { parseArgs } from 'node:util'
import { abiFloor, abiText } from './portable/abi.mjs'
import { copyContents, binaries } from './portable/contents.mjs'

const LIMIT = 60e6
const root = join(import.meta.dirname, '..')
const { version } = JSON.parse(readFileSync(join(root, 'package.json'), 'utf8'))
const platform = `${process.platform}-${process.arch}`

const { values: flags } = parseArgs({
  options: {
    out: { type: 'string', default: join(root, 'build-portable', `implex-${version}-${platform}`) },
    archive: { type: 'boolean', default: false },
    level: { type: 'string', default: '9' },
    force: { type: 'boolean', default: false },
  },
})

function stop(message) {
  console.error(message)
  process.exit(1)
}

if (process.platform !== 'linux') stop(`pack:portable packs for Linux and runs there; this is ${process.platform}`)
if (!/^[0-9]$/.test(flags.level)) stop(`--level is xz's, 0 to 9, not ${flags.level}`)
const out = resolve(flags.out)
if (existsSync(out)) {
  if (!flags.force) stop(`${out} exists: choose another --out, or --force to replace it`)
  if (!existsSync(join(out, 'run'))) stop(`${out} is not a packed folder: it is not replaced`)
  rmSync(out, { recursive: true })
}

const missing = binaries(root).filter(({ path, required }) => required && path === undefined)
if (missing.length > 0) {
  stop(missing.map(({ name, build }) => `${name} is not built: run \`${build}\``).join('\n'))
}
mkdirSync(out, { recursive: true })
const { packed, absent } = copyContents(root, out)
for (const { name, build } of absent) console.log(`left out: ${name} is not built (\`${build}\`)`)

const floor = abiFloor(packed)
writeFileSync(join(out, 'README.md'), readme(floor))
console.log(`needs ${abiText(floor)}, ${platform}`)
console.log(out)

if (flags.archive) {
  const file = `${out}.tar.xz`
  // File after file in order of name, no owner: the same content gives the same archive.
  const tar = `tar -C "$1" --sort=name --owner=0 --group=0 --numeric-owner -cf - "$2" | xz -${flags.level} -T0 > "$3"`
  const { status, error } = spawnSync(
    'bash',
    ['-o', 'pipefail', '-c', tar, 'bash', dirname(out), basename(out), file],
    {
      stdio: 'inherit',
    },
  )
  if (status !== 0) stop(`tar or xz failed${error ? `: ${error.message}` : ''}; both must be installed for --archive`)
  const { size } = statSync(file)
  console.log(`${file}: ${(size / 1e6).toFixed(1)} MB`)
  if (size > LIMIT) stop(`the archive is larger than ${LIMIT / 1e6} MB`)
}

function readme(floor) {
  const template = readFileSync(join(root, 'docs', 'portable.md'), 'utf8')
  const head = `# implex ${version} for ${platform}\n\nPacked with Node ${process.version}. Needs ${abiText(floor)}.\n`
  return template.replace(/^# .*\n/, head).replaceAll(/\]\((\w+\.md)\)/g, '](docs/$1)')
}

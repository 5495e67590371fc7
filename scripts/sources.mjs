// The list of native sources and compiler flags (sources.json), for both builds and for people.
//   node scripts/sources.mjs files core      one file per line; binding.gyp runs this (CMakeLists.txt reads the JSON itself)
//   node scripts/sources.mjs flags avx2      compiler flags of one kernel set; `common` and `core` name the other groups
//   node scripts/sources.mjs --write         takes the lists of files from disk
//   node scripts/sources.mjs --check         fails when a list and the disk differ
import { existsSync, readdirSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'

const root = join(import.meta.dirname, '..')
const path = join(root, 'sources.json')
const manifest = JSON.parse(readFileSync(path, 'utf8'))

/** Files on disk that belong to each list: folders are not searched below their first level. */
function scan() {
  const inFolder = (folder, extensions = ['.cc']) =>
    existsSync(join(root, folder))
      ? readdirSync(join(root, folder))
          .filter((name) => extensions.some((extension) => name.endsWith(extension)))
          .map((name) => `${folder}/${name}`)
      : []
  const core = [
    'native',
    'native/core',
    'native/io',
    'native/model',
    'native/reward',
    'native/generation',
    'native/train',
    'native/cpu',
    'native/bench',
  ]
  return {
    core: core.flatMap((folder) => inFolder(folder)).sort(),
    kernels: inFolder('native/cpu/kernels').sort(),
    addon: inFolder('native/addon').sort(),
    test: inFolder('native/test').sort(),
    parity: inFolder('native/test/parity').sort(),
    fuzz: inFolder('native/test/fuzz').sort(),
    cuda: inFolder('cuda', ['.cu', '.cc']).sort(),
  }
}

function check() {
  let same = true
  for (const [list, onDisk] of Object.entries(scan())) {
    const listed = manifest.files[list] ?? []
    const report = (files, text) => {
      for (const file of files) console.error(`sources.json, ${list}: ${file} ${text}`)
      if (files.length > 0) same = false
    }
    report(
      onDisk.filter((file) => !listed.includes(file)),
      'is on disk but not listed',
    )
    report(
      listed.filter((file) => !onDisk.includes(file)),
      'is listed but not on disk',
    )
  }
  if (!same) console.error('Run `node scripts/sources.mjs --write`.')
  return same
}

function flags(group) {
  if (group === 'common' || group === 'core') return manifest.flags[group]
  const set = manifest.kernelSets.find(({ name }) => name === group)
  if (set === undefined) throw new Error(`sources.json has no kernel set named ${group}`)
  return [...manifest.flags.kernels, ...set.flags]
}

const [command, argument] = process.argv.slice(2)
if (command === 'files' && argument in manifest.files) {
  console.log(manifest.files[argument].join('\n'))
} else if (command === 'flags' && argument !== undefined) {
  console.log(flags(argument).join('\n'))
} else if (command === '--write') {
  writeFileSync(path, `${JSON.stringify({ ...manifest, files: scan() }, undefined, 2)}\n`)
} else if (command === '--check') {
  process.exitCode = check() ? 0 : 1
} else {
  console.error('usage: sources.mjs files LIST | flags GROUP | --write | --check')
  process.exitCode = 2
}

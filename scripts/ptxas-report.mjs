// What the CUDA assembler says of every kernel: registers, stack, spills, shared memory. cuda/ptxas-report.txt is the checked-in report.
//   node scripts/ptxas-report.mjs                    compiles everything (needs nvcc; minutes) and writes the report
//   node scripts/ptxas-report.mjs --check            the report is of these sources, and no kernel has a stack or spills
//   node scripts/ptxas-report.mjs --compile NAME     compiles cuda/NAME.cu alone and checks what the assembler says of it
// Comments and layout of the sources may change without a new report.
import { spawnSync } from 'node:child_process'
import { createHash } from 'node:crypto'
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'

const root = join(import.meta.dirname, '..')
const reportPath = join(root, 'cuda', 'ptxas-report.txt')
const ARCHITECTURES = ['80', '90a']

/** Of the text of all sources without comments and white space. */
function sourceHash() {
  const hash = createHash('sha256')
  const names = readdirSync(join(root, 'cuda'), { recursive: true }).map(String)
  for (const name of names.filter((file) => /\.(cu|cuh|h)$/.test(file)).sort()) {
    const text = readFileSync(join(root, 'cuda', name), 'utf8')
    hash.update(`${name}\n${text.replaceAll(/\/\/.*$/gm, '').replaceAll(/\s+/g, '')}\n`)
  }
  return hash.digest('hex').slice(0, 16)
}

function kernelFiles() {
  return readdirSync(join(root, 'cuda'))
    .filter((name) => name.endsWith('.cu') && readFileSync(join(root, 'cuda', name), 'utf8').includes('__global__'))
    .map((name) => name.slice(0, -3))
    .sort()
}

/** Compiles one file for one architecture and gives a row for each kernel. Any warning is an error. */
function compile(name, architecture) {
  const folder = mkdtempSync(join(tmpdir(), 'implex-ptxas-'))
  try {
    const { status, stdout, stderr, error } = spawnSync(
      'nvcc',
      [
        '-std=c++17',
        '-O3',
        '-cubin',
        `-gencode=arch=compute_${architecture},code=sm_${architecture}`,
        '-Xptxas=-v',
        '-Werror=all-warnings',
        '-Icuda',
        '-Inative',
        '-o',
        join(folder, `${name}.cubin`),
        `cuda/${name}.cu`,
      ],
      { cwd: root, encoding: 'utf8' },
    )
    if (error) throw new Error(`nvcc could not be run: ${error.message}`)
    const text = stdout + stderr
    if (status !== 0) throw new Error(`cuda/${name}.cu for sm_${architecture}:\n${text}`)
    if (/Potential Performance Loss|Warning/i.test(text))
      throw new Error(`cuda/${name}.cu for sm_${architecture}:\n${text}`)
    return rowsOf(text, name, architecture)
  } finally {
    rmSync(folder, { recursive: true, force: true })
  }
}

function rowsOf(text, file, architecture) {
  const kernels = []
  for (const line of text.split('\n')) {
    const entry = /Compiling entry function '(\S+)'/.exec(line)
    const stack = /(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill loads/.exec(line)
    const used = /Used (\d+) registers/.exec(line)
    const kernel = kernels.at(-1)
    if (entry) kernels.push({ mangled: entry[1] })
    else if (stack && kernel) [kernel.stack, kernel.stores, kernel.loads] = stack.slice(1).map(Number)
    else if (used && kernel) {
      kernel.registers = Number(used[1])
      kernel.shared = Number(/(\d+) bytes smem/.exec(line)?.[1] ?? 0)
    }
  }
  return kernels.map(({ mangled, ...rest }) => ({ file, architecture, kernel: readable(mangled), ...rest }))
}

/** implex::cuda::<unnamed>::attend<64>(…) -> attend<64> */
function readable(mangled) {
  const { stdout, error } = spawnSync('c++filt', [mangled], { encoding: 'utf8' })
  if (error) throw new Error(`c++filt could not be run: ${error.message}`)
  return stdout
    .trim()
    .replace(/^void /, '')
    .replaceAll(/implex::cuda::|\(anonymous namespace\)::|_GLOBAL__N__\w+::|\((?:int|bool)\)/g, '')
    .replace(/\(.*$/, '')
}

function faultsOf(rows) {
  return rows
    .filter(({ stack, stores, loads }) => stack + stores + loads > 0)
    .map(({ file, architecture, kernel, stack, stores, loads }) => {
      return `${file} sm_${architecture} ${kernel}: ${stack} bytes of stack, ${stores} + ${loads} of spills`
    })
}

function write() {
  const rows = kernelFiles().flatMap((name) => ARCHITECTURES.flatMap((architecture) => compile(name, architecture)))
  const { stdout } = spawnSync('nvcc', ['--version'], { encoding: 'utf8' })
  const columns = ['registers', 'stack', 'stores', 'loads', 'shared']
  const lines = rows.map((row) => {
    const numbers = columns.map((column) => String(row[column]).padStart(column.length))
    return `${row.file.padEnd(26)}  ${`sm_${row.architecture}`.padEnd(7)}  ${numbers.join('  ')}  ${row.kernel}`
  })
  const head = [
    '# The CUDA assembler on every kernel: node scripts/ptxas-report.mjs writes this file, --check reads it.',
    '# stores, loads: bytes of spills; shared: static bytes. 168 registers of a kernel with setmaxnreg are those at its start.',
    `# compiler: ${/release ([\d.]+)/.exec(stdout)?.[1]}; sources: ${sourceHash()}`,
    `${'file'.padEnd(26)}  ${'for'.padEnd(7)}  ${columns.join('  ')}  kernel`,
  ]
  writeFileSync(reportPath, `${[...head, ...lines].join('\n')}\n`)
  return faultsOf(rows)
}

function check() {
  if (!existsSync(reportPath)) return ['there is no cuda/ptxas-report.txt']
  const text = readFileSync(reportPath, 'utf8')
  const faults = []
  if (/sources: (\w+)/.exec(text)?.[1] !== sourceHash())
    faults.push('cuda/ptxas-report.txt is of other sources: run node scripts/ptxas-report.mjs')
  const rows = text
    .split('\n')
    .filter((line) => / sm_\d/.test(line) && !line.startsWith('#'))
    .map((line) => {
      const [file, architecture, , stack, stores, loads, , ...kernel] = line.split(/ +/)
      return {
        file,
        architecture: architecture.slice(3),
        kernel: kernel.join(' '),
        stack: Number(stack),
        stores: Number(stores),
        loads: Number(loads),
      }
    })
  for (const name of kernelFiles())
    for (const architecture of ARCHITECTURES)
      if (!rows.some((row) => row.file === name && row.architecture === architecture))
        faults.push(`cuda/ptxas-report.txt has no kernel of ${name} for sm_${architecture}`)
  return [...faults, ...faultsOf(rows)]
}

const [command, argument] = process.argv.slice(2)
let faults
if (command === undefined) faults = write()
else if (command === '--check') faults = check()
else if (command === '--compile' && kernelFiles().includes(argument))
  faults = faultsOf(ARCHITECTURES.flatMap((architecture) => compile(argument, architecture)))
else {
  console.error('usage: ptxas-report.mjs [--check | --compile NAME]')
  process.exit(2)
}
for (const fault of faults) console.error(fault)
process.exitCode = faults.length === 0 ? 0 : 1

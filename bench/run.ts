/**
 * Runs the benchmarks: every compiled bench/**\/*.bench.ts, each in a process of its own.
 *
 *   node dist/bench/run.js [NAME…]        NAME: only files whose path contains it
 */
import { spawnSync } from 'node:child_process'
import { readdirSync } from 'node:fs'
import { join } from 'node:path'

const folder = import.meta.dirname
const names = process.argv.slice(2)
const files = readdirSync(folder, { recursive: true, encoding: 'utf8' })
  .filter((file) => file.endsWith('.bench.js') && (names.length === 0 || names.some((name) => file.includes(name))))
  .sort()

if (files.length === 0) {
  console.error(`no benchmark matches ${names.join(', ')}`)
  process.exitCode = 1
}
for (const file of files) {
  const { status } = spawnSync(process.execPath, [join(folder, file)], { stdio: 'inherit' })
  if (status !== 0) process.exitCode = 1
}

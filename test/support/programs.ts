/** The test programs: one per compiled test file, and the native test executable. */
import { spawnSync } from 'node:child_process'
import { existsSync, readdirSync, readFileSync } from 'node:fs'
import { join, relative } from 'node:path'
import { pathToFileURL } from 'node:url'
import type { Counts, Program } from './child.js'
import { repositoryRoot } from './shared.js'

const usageModule = pathToFileURL(join(repositoryRoot, 'dist', 'test', 'support', 'usage.js')).href

/** One uvu file as a program. */
export function scriptProgram(path: string): Program {
  return {
    name: relative(join(repositoryRoot, 'dist'), path).replace(/\.js$/, '.ts'),
    command: process.execPath,
    args: ['--enable-source-maps', '--import', usageModule, path],
    parse: (output) => {
      const counts = parseUvu(output)
      for (const suite of suitesNotRun(readFileSync(path, 'utf8'))) {
        console.log(`  ${suite}.run() is missing`)
        counts.failed += 1
      }
      return counts
    },
  }
}

/** Compiled test files, sorted; without those left in dist by a source that is gone. */
export function findTestFiles(): string[] {
  const folder = join(repositoryRoot, 'dist', 'test')
  return readdirSync(folder, { recursive: true, encoding: 'utf8' })
    .filter((name) => name.endsWith('.test.js'))
    .filter((name) => existsSync(join(repositoryRoot, 'test', name.replace(/\.js$/, '.ts'))))
    .map((name) => join(folder, name))
    .sort()
}

/**
 * IMPLEX_NATIVE_TESTS where that is set, else builds the native tests with CMake.
 * @returns the program, or the reason why there is none
 */
export function nativeProgram(): Program | { absent: string } | { broken: string } {
  const name = 'native'
  const prebuilt = process.env.IMPLEX_NATIVE_TESTS
  if (prebuilt) {
    if (!existsSync(prebuilt)) return { absent: `there is no ${prebuilt}` }
    return { name, command: prebuilt, args: [], parse: parseNative }
  }
  if (spawnSync('cmake', ['--version']).status !== 0) return { absent: 'cmake was not found' }
  const build = spawnSync(process.execPath, [join(repositoryRoot, 'scripts', 'build-native.mjs'), 'tests'], {
    encoding: 'utf8',
  })
  if (build.status !== 0) return { broken: `${build.stdout}${build.stderr}` }
  return {
    name,
    command: join(repositoryRoot, 'build-native', 'implex_native_tests'),
    args: [],
    parse: parseNative,
  }
}

/**
 * uvu's summary. Failures are counted as total minus passed: uvu exits with status 0 after a throwing `before` hook, having run nothing.
 * A skip inside a test (its line has a line number, see skip.ts) was counted as passed by uvu.
 */
export function parseUvu(output: string): Counts {
  const number = (label: string) => Number(new RegExp(`^ {2}${label}: +(\\d+)`, 'm').exec(output)?.[1] ?? 0)
  const skips = Array.from(output.matchAll(/^SKIP (.*)$/gm), (match) => match[1])
  const insideTests = skips.filter((text) => /^[^: ]+:\d+: /.test(text)).length
  const passed = number('Passed')
  for (let i = number('Skipped'); i > 0; i--) skips.push('marked as skipped in the test file')
  return { passed: Math.max(0, passed - insideTests), failed: number('Total') - passed, skips }
}

/** Names of uvu suites that a compiled file makes and never runs; uvu says nothing about them. */
export function suitesNotRun(source: string): string[] {
  const names = Array.from(source.matchAll(/^(?:const|let) (\w+) = suite\(/gm), (match) => match[1])
  return names.filter((name) => !new RegExp(`\\b${name}\\.run\\(\\)`).test(source))
}

/** Lines `ok NAME`, `FAIL NAME: …`, `skip NAME: reason` of native/test. */
export function parseNative(output: string): Counts {
  const lines = output.split('\n')
  return {
    passed: lines.filter((line) => line.startsWith('ok ')).length,
    failed: lines.filter((line) => line.startsWith('FAIL ')).length,
    skips: lines.filter((line) => line.startsWith('skip ')).map((line) => line.slice('skip '.length)),
  }
}

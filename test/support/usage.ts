/**
 * Loaded before a test file (`node --import`): when its process ends, writes the processor seconds that it and the processes which it waited
 * for have used into the file that IMPLEX_TEST_USAGE names. What it starts is not told of that file.
 */
import { readFileSync, writeFileSync } from 'node:fs'
import { isMainThread } from 'node:worker_threads'

/** Clock ticks of /proc, which Linux fixes at 100 a second for programs. */
const TICKS = 100

/** User and system time of children that have ended and were waited for; 0 where there is no /proc. */
function childSeconds(): number {
  try {
    // The name, in parentheses, may hold spaces; after it come the state and the numbers, of which cutime and cstime are the 14th and 15th.
    const fields = readFileSync('/proc/self/stat', 'utf8')
      .replace(/^.*\)\s/s, '')
      .split(' ')
    return (Number(fields[13]) + Number(fields[14])) / TICKS
  } catch {
    return 0
  }
}

const path = process.env.IMPLEX_TEST_USAGE
if (path !== undefined && isMainThread) {
  delete process.env.IMPLEX_TEST_USAGE
  process.once('exit', () => {
    const { user, system } = process.cpuUsage()
    writeFileSync(path, String((user + system) / 1e6 + childSeconds()))
  })
}

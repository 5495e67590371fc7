/**
 * The process of `npm start`: progress on stderr, Ctrl-C, exit status.
 */
import { EXIT, report, say } from '../cli/exit.js'
import { Interrupt } from '../cli/interrupt.js'
import { startExperiment } from './start.js'

try {
  using interrupt = new Interrupt('finishing the step, then writing a checkpoint; press Ctrl-C again to stop at once')
  const started = performance.now()
  const done = await startExperiment({
    print: (text) => console.log(text),
    progress: (stage) => {
      const seconds = ((performance.now() - started) / 1000).toFixed(0).padStart(4)
      process.stderr.write(process.stderr.isTTY ? `\r\x1b[K${seconds} s  ${stage}` : `${seconds} s  ${stage}\n`)
    },
    drain: interrupt.signal,
  })
  if (process.stderr.isTTY) process.stderr.write('\r\x1b[K')
  if (!done) say('interrupted; to continue, run npm start again')
  process.exit(done ? EXIT.done : EXIT.interrupted)
} catch (error) {
  process.exit(report(error))
}

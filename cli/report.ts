/**
 * `implex report`: run folders as one HTML page that needs nothing but itself.
 */
import type { Command } from 'commander'
import { writeReport } from '../lab/report/index.js'
import { EXIT, say } from './exit.js'
import { stdoutWrite } from './line-writer.js'

interface ReportFlags {
  out?: string
  figures?: string
}

export function addReport(program: Command, finish: (status: number) => void): void {
  program
    .command('report')
    .description('Make one self-contained HTML page from experiments and training runs.')
    .usage('RUN... [options]')
    .argument('<run...>', 'folders written by implex experiment or implex train')
    .option(
      '--out <path>',
      'file for the page, or a folder for it (default: RUN/report.html; for several runs ./report.html)',
    )
    .option('--figures <dir>', 'also write each figure as SVG and PNG to this folder')
    .helpOption('-h, --help', 'print this help')
    .addHelpText(
      'after',
      `
The page works offline and contains everything it shows. The command prints the
path of the page.

  implex report runs/persona --figures figures
`,
    )
    .action(async (runs: string[], flags: ReportFlags) => finish(await run(runs, flags)))
}

async function run(runs: string[], flags: ReportFlags): Promise<number> {
  const { page, figures, warnings } = await writeReport(runs, flags)
  for (const warning of warnings) say(`warning: ${warning}`)
  if (flags.figures !== undefined) say(`${figures.length} figure files in ${flags.figures}`)
  await stdoutWrite()(`${page}\n`)
  return EXIT.done
}

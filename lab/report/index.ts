/**
 * writeReport(): run folders as one HTML page that needs nothing but itself, and its figures as files.
 */
import { join } from 'node:path'
import { isFolder } from '../../lib/core/files.js'
import { checkObject, checkString, invalidArgument } from '../../lib/core/arguments.js'
import { makeFolder, writeFileAtomic } from '../../lib/core/atomic.js'
import { experimentReport } from './experiment.js'
import { exportFigures } from './export.js'
import { loadRun, type Run } from './load.js'
import { page } from './page.js'
import type { RunReport } from './section.js'
import { trainingReport } from './training.js'

export interface ReportOptions {
  /** The page; a folder, or a path that ends in a slash, gets a report.html. Defaults to report.html in the run's folder, or here for several. */
  out?: string
  /** Folder for each figure as SVG and PNG. */
  figures?: string
}

export interface ReportResult {
  /** Path of the HTML page. */
  page: string
  /** Paths of the figures' files. */
  figures: string[]
  /** Warnings about what could not be done, such as PNG on a machine without fonts. */
  warnings: string[]
}

/**
 * Makes a page of the folders of experiments (`implex experiment`) and trainings (`implex train`). The same files give the same bytes.
 *
 * @throws TypeError for wrong arguments; ImplexError ERR_RUN_INVALID naming the folder or file, ERR_IO, ERR_DISK_FULL
 */
export async function writeReport(runs: readonly string[], options: ReportOptions = {}): Promise<ReportResult> {
  const list: unknown = runs
  if (!Array.isArray(list) || list.length === 0) throw invalidArgument('runs', 'a list of at least one folder', runs)
  for (const path of runs) checkPath('runs', path)
  checkObject('options', options)
  const { out, figures } = options as ReportOptions
  if (out !== undefined) checkPath('out', out)
  if (figures !== undefined) checkPath('figures', figures)
  const loaded: Run[] = []
  for (const path of runs) loaded.push(await loadRun(path))
  const reports = loaded.map((run, i) =>
    reportOf(run, loaded.length === 1 ? '' : `run-${i + 1}-`, loaded.length === 1 ? 2 : 3),
  )
  const target = await targetOf(out, runs)
  await writeFileAtomic(target, page(reports))
  const written =
    figures === undefined
      ? { files: [], warnings: [] }
      : await exportFigures(
          reports.flatMap((one) => one.figures),
          figures,
        )
  return { page: target, figures: written.files, warnings: written.warnings }
}

function reportOf(run: Run, prefix: string, level: number): RunReport {
  return run.type === 'experiment' ? experimentReport(run, prefix, level) : trainingReport(run, prefix)
}

async function targetOf(out: string | undefined, runs: readonly string[]): Promise<string> {
  if (out === undefined) return join(runs.length === 1 ? runs[0]! : '.', 'report.html')
  if (/[\\/]$/.test(out)) {
    await makeFolder(out)
    return join(out, 'report.html')
  }
  return (await isFolder(out)) === true ? join(out, 'report.html') : out
}

function checkPath(name: string, value: unknown): asserts value is string {
  checkString(name, value)
  if (value === '' || value.includes('\0')) throw invalidArgument(name, 'a path', value)
}

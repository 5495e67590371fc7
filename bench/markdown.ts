/** Tables as Markdown, for the documents that are made from bench/results. */

/** Numbers to the right, but for the first `text` columns. */
export function markdown(head: string[], rows: string[][], text = 1): string {
  const line = (cells: string[]) => `| ${cells.join(' | ')} |`
  return [line(head), line(head.map((_, i) => (i < text ? '---' : '---:'))), ...rows.map(line)].join('\n')
}

/** Tables as Markdown, for the documents that are made from bench/results. */

/** Aligns columns to the right, except the first `text` columns. */
export function markdown(head: string[], rows: string[][], text = 1): string {
  const line = (cells: string[]) => `| ${cells.join(' | ')} |`
  return [line(head), line(head.map((_, i) => (i < text ? '---' : '---:'))), ...rows.map(line)].join('\n')
}

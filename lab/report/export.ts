/**
 * Writes figures as files: SVG in the light colors, and PNG at twice its size.
 */
import { join } from 'node:path'
import { makeFolder, writeFileAtomic } from '../../lib/core/atomic.js'
import { COLORS } from './palette.js'
import { FIGURE_STYLE } from './style.js'
import { drawSvg, type Figure, WIDTHS } from './svg.js'

/** Without quotes: resvg finds no quoted name behind the first one. */
const FONTS =
  'Helvetica Neue, Helvetica, Arial, Inter, Roboto, Noto Sans, Segoe UI, Ubuntu, Cantarell, Liberation Sans, DejaVu Sans, sans-serif'

/** @returns the files written, and warnings about those that could not be written */
export async function exportFigures(
  figures: readonly Figure[],
  folder: string,
): Promise<{ files: string[]; warnings: string[] }> {
  await makeFolder(folder)
  const draw = await pngRenderer()
  const files: string[] = []
  for (const figure of figures) {
    const svg = standaloneSvg(figure)
    const path = join(folder, `${figure.id}.svg`)
    await writeFileAtomic(path, svg)
    files.push(path)
    if (typeof draw === 'string') continue
    const png = join(folder, `${figure.id}.png`)
    await writeFileAtomic(png, draw(svg))
    files.push(png)
  }
  return { files, warnings: typeof draw === 'string' && figures.length > 0 ? [draw] : [] }
}

/** Replaces CSS properties by colors, because programs other than browsers do not know them. */
export function standaloneSvg(figure: Figure): string {
  const color = (name: string) => COLORS[name as keyof typeof COLORS][0]
  const style = `svg{font-family:${FONTS}}\n${FIGURE_STYLE}`.replace(/var\(--(\w+)\)/g, (_, name: string) =>
    color(name),
  )
  const { text } = drawSvg(figure, 'wide')
  const used = style
    .split(/(?<=\})/)
    .filter((rule) => {
      const name = /\.([a-z]+-[a-z]+)/.exec(rule)?.[1]
      return name === undefined || text.includes(name)
    })
    .join('')
    .trim()
  const height = Number(/viewBox="0 0 \d+ ([\d.]+)"/.exec(text)![1])
  const size = `width="${WIDTHS.wide + 32}" height="${height + 32}" viewBox="-16 -16 ${WIDTHS.wide + 32} ${height + 32}"`
  const paper = `<rect x="-16" y="-16" width="100%" height="100%" fill="${color('paper')}"/>`
  return `${text.replace(/ viewBox="[^"]*"/, ` ${size}`).replace('</desc>', `</desc><style>${used}</style>${paper}`)}\n`
}

/** A function that draws PNG, or the reason why there is none. */
async function pngRenderer(): Promise<((svg: string) => Uint8Array) | string> {
  let resvg: typeof import('@resvg/resvg-js')
  try {
    resvg = await import('@resvg/resvg-js')
  } catch {
    return 'no PNG was written because @resvg/resvg-js is not installed (it is optional and not available for some platforms); the SVG files are complete'
  }
  const options = { font: { loadSystemFonts: true }, fitTo: { mode: 'zoom', value: 2 } } as const
  const probe = `<svg xmlns="http://www.w3.org/2000/svg" width="99" height="40"><style>svg{font-family:${FONTS}}</style><text y="20">Accuracy</text></svg>`
  if (new resvg.Resvg(probe, options).getBBox() === undefined)
    return 'no PNG was written because this machine has no fonts; install some (Debian: apt-get install fonts-dejavu-core) and make the report again; the SVG files are complete'
  return (svg) => new resvg.Resvg(svg, options).render().asPng()
}

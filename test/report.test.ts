/**
 * The report as text: what is in the page and where, that its numbers are those of results.json, that nothing from a file becomes markup, and
 * what it says about folders it cannot use. How it looks and works in a browser is in report-browser.test.ts.
 */
import {
  appendFileSync,
  cpSync,
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  rmSync,
  writeFileSync,
} from 'node:fs'
import { join } from 'node:path'
import { suite } from 'uvu'
import * as assert from 'uvu/assert'
import type { ExperimentResult } from '../lab/experiments/result.js'
import { writeReport } from '../lab/index.js'
import { ImplexError } from '../lib/index.js'
import { directionOf, escapeText, html, visible } from '../lab/report/html.js'
import { digits, duration, fixed, magnitude } from '../lab/report/numbers.js'
import { COLORS } from '../lab/report/palette.js'
import { fit } from '../lab/report/svg.js'
import { editJson } from './fixtures/damage.js'
import { writePersonaRun, writeTheoryRun, writeTrainingRun } from './fixtures/report-runs.js'
import { implexHere } from './support/cli.js'
import { temporaryFolder } from './support/tmp.js'

const report = suite('report')
const root = temporaryFolder()
const persona = join(root, 'persona')
const theory = join(root, 'theory')
const training = join(root, 'training')
const result = writePersonaRun(persona)
const predicted = writeTheoryRun(theory)
writeTrainingRun(training)

async function pageOf(...runs: string[]): Promise<string> {
  const out = join(temporaryFolder(), 'page.html')
  await writeReport(runs, { out })
  return readFileSync(out, 'utf8')
}

/** Every <data value> of the page. */
function dataOf(page: string): Map<string, string[]> {
  const found = new Map<string, string[]>()
  for (const [, value, shown] of page.matchAll(/<data value="([^"]*)">([^<]*)<\/data>/g))
    found.set(value!, [...(found.get(value!) ?? []), shown!])
  return found
}

const headings = (page: string) => Array.from(page.matchAll(/<h([1-6])[ >]/g), (match) => Number(match[1]))
const escaped = (text: string) => text.replaceAll('&', '&amp;').replaceAll("'", '&#39;').replaceAll('"', '&quot;')

const mainOf = (text: string) => text.slice(text.indexOf('<main'), text.indexOf('</main>'))

const page = await pageOf(persona)

report('a page says question and answer before anything else, and then all its parts in order', () => {
  const parts = [
    result.title,
    result.question,
    result.headline,
    'What was run',
    'Accuracy by shift and kind',
    'Accuracy, in numbers',
    'Normalized margins',
    'Training curves',
    'Reward distributions',
    'Further measurements',
    'Beside the paper',
    'Rewards token by token',
    'Before quoting a number',
    'How to reproduce',
  ]
  const main = page.slice(page.indexOf('<main'))
  const places = parts.map((part) => main.indexOf(escaped(part)))
  assert.not.ok(places.includes(-1), parts[places.indexOf(-1)])
  assert.equal(
    places,
    places.toSorted((a, b) => a - b),
  )
  for (const note of result.notes) assert.ok(main.includes(escaped(note)))
  assert.match(
    main,
    /implex experiment persona \\\n {2}--model models\/made-up \\\n {2}--kinds explicit,implicit,generative/,
  )
})

report('each number of results.json is there with all its digits', () => {
  const found = dataOf(page)
  const expected: number[] = []
  for (const { mean, low, high, seeds } of result.comparison) expected.push(mean!, low!, high!, ...(seeds as number[]))
  for (const { paper, ours } of result.paper) expected.push(paper, ...(ours === null ? [] : [ours, ours - paper]))
  for (const { rows } of result.tables)
    for (const row of rows) expected.push(...row.filter((cell) => typeof cell === 'number'))
  for (const { pairs } of result.sets) expected.push(pairs)
  assert.ok(expected.length > 100)
  for (const value of expected) assert.ok(found.has(String(value)), String(value))
  const { mean } = result.comparison.find(
    ({ kind, shift, statistic }) => kind === 'implicit' && shift === 'paraphrase' && statistic === 'accuracy',
  )!
  assert.ok(found.get(String(mean))!.includes(mean!.toFixed(3)))
})

report('the main figure draws the numbers of results.json', () => {
  const figure = page.slice(page.indexOf('<figure id="accuracy"'), page.indexOf('</figure>'))
  const wide = figure.slice(0, figure.indexOf('</svg>'))
  const ticks = Array.from(wide.matchAll(/<text x="([\d.]+)" [^>]*>([01]\.\d)<\/text>/g), (match) => [
    Number(match[1]),
    Number(match[2]),
  ]) as [number, number][]
  const [left, right] = [ticks.find(([, tick]) => tick === 0)![0], ticks.find(([, tick]) => tick === 1)![0]]
  for (const { kind, mean } of result.comparison.filter(({ statistic }) => statistic === 'accuracy')) {
    const x = Math.round((left + mean! * (right - left)) * 100) / 100
    assert.ok(wide.includes(`translate(${x},`), `${kind} ${mean} at ${x}`)
    assert.ok(wide.includes(`>${mean!.toFixed(3)}</text>`))
  }
  assert.match(wide, />chance<\/text>/)
})

report('each figure has a name, a description, and a table', () => {
  for (const [, figure, after] of page.matchAll(/<figure[^>]*>([\s\S]*?)<\/figure>([\s\S]{0,60})/g)) {
    const names = Array.from(figure!.matchAll(/role="img" aria-labelledby="([^"]+)"/g), (match) => match[1]!.split(' '))
    assert.is(names.length, 2, 'a wide and a narrow form')
    for (const id of names.flat()) assert.match(figure!, new RegExp(`<(title|desc) id="${id}">[^<]{10,}`))
    assert.match(figure!, /<figcaption>[^<]{20,}/)
    assert.match(after!, /^(<details class="numbers">|<div class="scroll")/)
  }
  assert.is(page.match(/<figure/g)!.length, 4)
})

report('headings go down by one level at most, ids are unique, and links inside the page lead somewhere', async () => {
  for (const text of [page, await pageOf(persona, theory, training)]) {
    const levels = headings(text)
    assert.is(levels.filter((level) => level === 1).length, 1)
    const main = headings(text.slice(text.indexOf('<main')))
    assert.is(main[0], 1)
    for (const [i, level] of main.entries())
      if (i > 0) assert.ok(level - main[i - 1]! <= 1, `h${main[i - 1]} then h${level}`)
    const ids = Array.from(text.matchAll(/ id="([^"]+)"/g), (match) => match[1]!)
    assert.is(new Set(ids).size, ids.length)
    const targets = Array.from(text.matchAll(/href="#([^"]+)"/g), (match) => match[1]!)
    assert.ok(targets.length > 9)
    for (const target of targets) assert.ok(ids.includes(target), target)
  }
})

report('nothing is loaded, and the policy forbids it', () => {
  assert.match(
    page,
    /http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'; script-src 'sha256-[\w+/]+=*'; img-src data:;/,
  )
  assert.not.match(page.replaceAll('http://www.w3.org/2000/svg', ''), /(src|href)="(?!#|data:)|url\(|@import|https?:/)
})

report('the same files give the same bytes', async () => {
  assert.is(await pageOf(persona), page)
  const folder = join(temporaryFolder(), 'again')
  writePersonaRun(folder)
  assert.is(await pageOf(folder), page)
})

report('text from files stays text', async () => {
  const text = `<script>alert(1)</script><img src=x onerror="alert(1)">"'\`&amp;\u202E\u2066\u0000\u0007\u009B\uD800\uFFFE \u05E9\u05DC 👩‍👩‍👧 ${'long'.repeat(200)}`
  const folder = join(root, '<b>hostile & "co"')
  writePersonaRun(folder, { text })
  const figures = join(root, 'hostile-figures')
  const out = join(root, 'hostile.html')
  await writeReport([folder], { out, figures })
  const files = [
    out,
    ...readdirSync(figures)
      .filter((name) => name.endsWith('.svg'))
      .map((name) => join(figures, name)),
  ]
  assert.ok(files.length > 4)
  for (const file of files) {
    const written = readFileSync(file, 'utf8')
    assert.is(written.match(/<script/g)?.length ?? 0, file === out ? 1 : 0)
    assert.not.match(written, /<img|<b>hostile/)
    for (const [tag] of written.matchAll(/<[a-z][^>]*>/g)) assert.not.match(tag, /onerror=(?!&quot;)/)
    // biome-ignore lint/suspicious/noControlCharactersInRegex: none may be there
    assert.not.match(written, /[\u0000-\u0008\u000B-\u001F\u007F-\u009F\u202A-\u202E\u2066-\u2069\uFFFE]/)
    assert.ok(written.isWellFormed())
    if (file === out)
      assert.ok(
        written.includes('&lt;script&gt;alert(1)&lt;/script&gt;') &&
          written.includes('[U+202E]') &&
          written.includes('␀␇[U+009B]'),
      )
  }
})

report('escaping and showing', () => {
  assert.is(
    String(html`<p title="${'"<&>\''}">${['<b>', html`<i>x</i>`, 3, null, false]}</p>`),
    '<p title="&quot;&lt;&amp;&gt;&#39;">&lt;b&gt;<i>x</i>3</p>',
  )
  assert.is(escapeText('a\r\nb\tc\rd'), 'a\nb\tc␍d')
  assert.is(visible('\uD83D\uDE00\uD83D'), '😀\uFFFD')
  assert.is(directionOf('12 שלום hello'), 'rtl')
  assert.is(directionOf('hello שלום'), 'ltr')
  assert.is(fit('unchanged', 200, 12), 'unchanged')
  assert.match(fit('👩‍👩‍👧'.repeat(40), 100, 12), /^(👩‍👩‍👧)+…$/u)
})

report('numbers for people', () => {
  assert.equal(
    [0.5, -0.12345, -0.0001, null, Number.NaN].map((value) => fixed(value)),
    ['0.500', '−0.123', '0.000', 'n/a', 'n/a'],
  )
  assert.equal(
    [0, 12345, -1.23456e-5, 1e-4, 3.24159, 2.5e9].map((value) => digits(value)),
    ['0', '12 345', '−1.23e−5', '1e−4', '3.24', '2.5e9'],
  )
  assert.equal([2.5, 314, 7265].map(duration), ['2.5 s', '5 min', '2 h 1 min'])
  assert.equal([4096, 1_264_320, 8e9].map(magnitude), ['4 096', '1.26 million', '8 billion'])
})

report('text is readable in both schemes', () => {
  const luminance = (color: string) => {
    const [r, g, b] = [1, 3, 5].map((at) => {
      const c = Number.parseInt(color.slice(at, at + 2), 16) / 255
      return c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4
    }) as [number, number, number]
    return 0.2126 * r + 0.7152 * g + 0.0722 * b
  }
  const contrast = (a: string, b: string) => {
    const [dark, light] = [luminance(a), luminance(b)].sort((x, y) => x - y) as [number, number]
    return (light + 0.05) / (dark + 0.05)
  }
  for (const scheme of [0, 1] as const)
    for (const text of ['ink', 'muted', 'link', 'explicit', 'implicit', 'generative', 'sft'] as const)
      for (const ground of ['paper', 'panel', 'tint'] as const)
        assert.ok(contrast(COLORS[text][scheme], COLORS[ground][scheme]) >= 4.5, `${text} on ${ground}, ${scheme}`)
})

report('attributions: a value for each token, and what is left out is said', () => {
  const lines = readFileSync(join(persona, 'attributions.jsonl'), 'utf8').trim().split('\n')
  assert.ok(lines.length > 40)
  assert.match(page, /40 of 48 responses are shown/)
  const first = JSON.parse(lines[0]!) as {
    tokens: string[]
    implicit: { share: number[] }
    explicit: { along: number[] }
  }
  const found = dataOf(page)
  for (const value of [...first.implicit.share, ...first.explicit.along]) assert.ok(found.has(String(value)))
  const list = /<ul class="tokens" dir="ltr" aria-label="Tokens of the chosen response">([\s\S]*?)<\/ul>/.exec(
    page,
  )![1]!
  assert.is(list.match(/<li /g)!.length, first.tokens.length)
  assert.is(list.match(/tabindex="0"/g)!.length, 1)
  assert.is(list.match(/<span class="tip">share [+−]?\S+, head [+−]?\S+<\/span>/g)!.length, first.tokens.length)
  const largest = Math.max(...first.implicit.share.map(Math.abs))
  for (const [k, item] of list.split('<li ').slice(1).entries()) {
    const share = first.implicit.share[k]!
    const shade = Math.round((8 * Math.abs(share)) / largest)
    assert.match(item, new RegExp(`class="word ${shade === 0 ? 'p0' : `${share < 0 ? 'n' : 'p'}${shade}`}"`))
  }
})

report('theory: predictions against measurements', async () => {
  const text = await pageOf(theory)
  const found = dataOf(text)
  for (const row of predicted.tables[0]!.rows)
    for (const cell of row) if (typeof cell === 'number') assert.ok(found.has(String(cell)))
  const figure = text.slice(text.indexOf('<figure id="predicted-1"'), text.indexOf('</figure>'))
  assert.is(figure.match(/predicted, [^<]+ measured<\/title>/g)!.length, 2 * predicted.tables[0]!.rows.length)
  assert.not.match(mainOf(text), /Accuracy by shift|Training curves|NaN|Infinity|undefined/)
})

report('a training alone: curves and what came out', async () => {
  const text = await pageOf(training)
  assert.match(text, /Explicit reward model: training/)
  assert.match(text, /is the mean of 3 steps/)
  const { evaluation } = JSON.parse(readFileSync(join(training, 'summary.json'), 'utf8')) as {
    evaluation: { test: Record<string, number> }
  }
  for (const name of ['accuracy', 'loss', 'normalized_margin', 'ece'])
    assert.ok(dataOf(text).has(String(evaluation.test[name])), name)
  assert.match(text, /implex train --config \S+config\.json --out FOLDER/)
})

report('several runs have a table of contents and figures of their own', async () => {
  const figures = join(root, 'figures')
  const written = await writeReport([persona, theory, training], { out: `${join(root, 'all')}/`, figures })
  assert.is(written.page, join(root, 'all', 'report.html'))
  const text = readFileSync(written.page, 'utf8')
  assert.match(text, /<title>3 runs · implex<\/title>/)
  for (const i of [1, 2, 3]) assert.ok(text.includes(`href="#run-${i}"`) && text.includes(`id="run-${i}"`))
  const svgs = written.figures.filter((file) => file.endsWith('.svg'))
  assert.is(svgs.length, 7)
  for (const file of svgs) {
    const svg = readFileSync(file, 'utf8')
    assert.match(svg, /^<svg xmlns="http:\/\/www.w3.org\/2000\/svg"[^>]* width="912" height="/)
    assert.not.match(svg, /var\(--/)
  }
  if (written.warnings.length === 0) {
    for (const file of svgs) {
      const png = readFileSync(file.replace(/svg$/, 'png'))
      assert.is(png.subarray(1, 4).toString(), 'PNG')
      assert.is(png.readUInt32BE(16), 1824)
    }
  } else {
    assert.match(written.warnings[0]!, /^no PNG was written: /)
  }
})

report('parts that are gone are left out', async () => {
  const folder = join(root, 'less')
  writePersonaRun(folder)
  rmSync(join(folder, 'members'), { recursive: true })
  rmSync(join(folder, 'attributions.jsonl'))
  rmSync(join(folder, 'config.json'))
  const text = await pageOf(folder)
  assert.match(text, /Accuracy by shift and kind/)
  assert.not.match(text, /Training curves|Reward distributions|Rewards token by token/)
})

report('nulls are not numbers', async () => {
  const folder = join(root, 'nulls')
  writePersonaRun(folder)
  editJson(join(folder, 'results.json'), (json) => {
    const value = json as unknown as ExperimentResult
    for (const one of value.comparison) {
      if (one.kind === 'generative')
        Object.assign(one, { mean: null, low: null, high: null, seeds: [null, null, null] })
      if (one.kind === 'implicit') Object.assign(one, { low: null, high: null })
    }
    return undefined
  })
  const text = await pageOf(folder)
  assert.not.match(mainOf(text), /NaN|null|undefined|Infinity/)
})

async function failure(run: () => Promise<unknown>): Promise<ImplexError> {
  try {
    await run()
  } catch (error) {
    assert.instance(error, ImplexError)
    return error as ImplexError
  }
  throw new Error('nothing was wrong')
}

/** A copy of the good run, damaged. */
function damaged(name: string, damage: (folder: string) => void): string {
  const folder = join(root, 'bad', name)
  cpSync(persona, folder, { recursive: true })
  damage(folder)
  return folder
}

const results = (folder: string, change: (json: Record<string, unknown>) => void) =>
  editJson(join(folder, 'results.json'), (json) => {
    change(json)
    return undefined
  })

const BAD: [name: string, path: () => string, says: RegExp, line?: number][] = [
  ['a folder that is not there', () => join(root, 'none'), /none: there is no such folder/],
  ['a file', () => join(training, 'config.json'), /is a file; give the folder/],
  [
    'a folder without a run',
    () => {
      const path = join(root, 'empty')
      mkdirSync(path)
      return path
    },
    /contains no run .*--out folder/,
  ],
  [
    'an experiment under way',
    () => damaged('under way', (folder) => rmSync(join(folder, 'results.json'))),
    /not complete \(there is no results\.json\); continue it with: implex experiment persona --out '.*under way' --resume/,
  ],
  [
    'a training under way',
    () => {
      const path = join(root, 'half')
      writeTrainingRun(path)
      rmSync(join(path, 'summary.json'))
      return path
    },
    /not complete .*implex train --out \S+ --resume/,
  ],
  [
    'results.json cut',
    () =>
      damaged('cut', (folder) => {
        const file = join(folder, 'results.json')
        writeFileSync(file, readFileSync(file, 'utf8').slice(0, 300))
      }),
    /results\.json: is not valid JSON/,
  ],
  [
    'results.json that is a list',
    () => damaged('list', (folder) => writeFileSync(join(folder, 'results.json'), '[]')),
    /results\.json: must be a JSON object/,
  ],
  [
    'another format',
    () =>
      damaged('format', (folder) =>
        results(folder, (json) => {
          json['format'] = 2
        }),
      ),
    /has the format 2; this version of implex reads format 1/,
  ],
  [
    'no format',
    () =>
      damaged('no format', (folder) =>
        results(folder, (json) => {
          delete json['format']
        }),
      ),
    /has no "format"/,
  ],
  [
    'a number that is a text',
    () =>
      damaged('text', (folder) =>
        results(folder, (json) => {
          ;(json['comparison'] as { mean: unknown }[])[3]!.mean = '0.5'
        }),
      ),
    /is damaged: comparison\[3\]\.mean must be a number or null/,
  ],
  [
    'a member outside the folder',
    () =>
      damaged('outside', (folder) =>
        results(folder, (json) => {
          ;(json['members'] as { folder: string }[])[0]!.folder = 'members/../../x'
        }),
      ),
    /members\[0\]\.folder must be a path inside/,
  ],
  [
    'a set of an unknown shift',
    () =>
      damaged('shift', (folder) =>
        results(folder, (json) => {
          ;(json['sets'] as { shift: string }[])[1]!.shift = 'x'
        }),
      ),
    /sets\[1\]\.shift must be the name of a shift/,
  ],
  [
    'a damaged line of metrics',
    () =>
      damaged('metrics', (folder) =>
        appendFileSync(join(folder, 'members', 'implicit-1', 'metrics.jsonl'), '{"step": 3'),
      ),
    /implicit-1.metrics\.jsonl: line 105: not valid JSON/,
    105,
  ],
  [
    'a line of metrics without a step',
    () =>
      damaged('step', (folder) =>
        writeFileSync(join(folder, 'members', 'implicit-1', 'metrics.jsonl'), '{"loss": 3}\n'),
      ),
    /metrics\.jsonl: line 1: step must be a number/,
    1,
  ],
  [
    'a reward that is a text',
    () =>
      damaged('reward', (folder) =>
        appendFileSync(
          join(folder, 'members', 'explicit-0', 'rewards', 'test.jsonl'),
          '\n{"index": 40, "chosen_reward": "1"}\n',
        ),
      ),
    /test\.jsonl: line 42: chosen_reward and rejected_reward must be numbers/,
    42,
  ],
  [
    'fewer shares than tokens',
    () =>
      damaged('shares', (folder) =>
        appendFileSync(
          join(folder, 'attributions.jsonl'),
          JSON.stringify({
            set: 'test',
            index: 0,
            side: 'chosen',
            prompt: '',
            tokens: ['a', 'b'],
            implicit: { seed: 0, reward: 1, share: [1] },
          }),
        ),
      ),
    /attributions\.jsonl: line 49: implicit\.share must have one number for each token/,
    49,
  ],
]

for (const [name, path, says, line] of BAD) {
  report(`refused: ${name}`, async () => {
    const out = join(temporaryFolder(), 'report.html')
    const error = await failure(() => writeReport([path()], { out }))
    assert.is(error.code, 'ERR_RUN_INVALID')
    assert.match(error.message, says)
    if (line !== undefined) assert.is(error.line, line)
    assert.not.ok(existsSync(out))
  })
}

report('an output that cannot be written is named', async () => {
  const out = join(root, 'no', 'such', 'folder.html')
  const error = await failure(() => writeReport([theory], { out }))
  assert.is(error.code, 'ERR_IO')
  assert.ok(error.message.includes(out))
  assert.is(
    (await failure(() => writeReport([theory], { out: join(root, 't.html'), figures: join(theory, 'config.json') })))
      .code,
    'ERR_IO',
  )
})

report('wrong arguments are TypeErrors', async () => {
  const wrong = [[], 'runs/a', [3], ['']] as unknown as string[][]
  for (const runs of wrong) {
    const error = await writeReport(runs).catch((reason: unknown) => reason)
    assert.instance(error, TypeError, JSON.stringify(runs))
  }
  assert.instance(await writeReport([theory], { out: 3 } as never).catch((reason: unknown) => reason), TypeError)
})

report('the command writes the page into the run, prints its path, and has the exit codes of the others', async () => {
  const folder = join(root, 'command')
  writeTheoryRun(folder)
  const { status, stdout, stderr } = await implexHere(['report', folder, '--figures', join(root, 'command-figures')])
  assert.is(status, 0, stderr)
  assert.is(stdout, `${join(folder, 'report.html')}\n`)
  assert.match(stderr, /implex: \d figure files in /)
  assert.equal(readdirSync(folder).sort(), ['config.json', 'report.html', 'results.json'])
  const failed = await implexHere(['report', join(root, 'none')])
  assert.is(failed.status, 1)
  assert.match(failed.stderr, /^implex: .*there is no such folder \[ERR_RUN_INVALID\]\n$/)
  assert.is((await implexHere(['report'])).status, 2)
})

report.run()

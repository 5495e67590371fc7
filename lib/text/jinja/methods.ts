/**
 * Methods of text, lists, tuples and dicts that do not change them.
 */
import { equal, findKey, iterate, truth } from './compare.js'
import { RenderFault } from './errors.js'
import { type Builtin, builtin, type Runtime } from './signature.js'
import * as text from './text.js'
import { asCount, asText, type Dict, Tuple, typeName, type Value, View } from './values.js'

type Methods<Subject> = Map<string, Builtin<Subject>>

export function methodsOf(value: Value): Methods<never> | undefined {
  if (typeof value === 'string') return TEXT
  if (value instanceof Map) return DICT
  if (Array.isArray(value)) return LIST
  return value instanceof Tuple ? TUPLE : undefined
}

/** A method that takes nothing and reads every character once. */
const plain = (run: (subject: string) => Value): Builtin<string> =>
  builtin('', ({ budget }, subject: string) => {
    budget.scan(subject.length)
    return run(subject)
  })

const stripping = (run: (subject: string, set: string | null) => string): Builtin<string> =>
  builtin('/chars?', ({ budget }, subject: string, set: Value = null) => {
    budget.scan(subject.length)
    return run(subject, set === null ? null : asText(set, 'strip'))
  })

const splitting = (run: (subject: string, separator: string | null, most: number) => string[]): Builtin<string> =>
  builtin('sep? maxsplit?', ({ budget }, subject: string, separator: Value = null, most: Value = -1) => {
    const mark = separator === null ? null : asText(separator, 'split')
    budget.scan(subject.length)
    budget.step(mark === null ? subject.length >> 3 : text.count(subject, mark))
    return run(subject, mark, asCount(most, 'split'))
  })

/** startswith and endswith: one text or a tuple of texts, in a part of the subject. */
const matching = (run: (subject: string, part: string) => boolean): Builtin<string> =>
  builtin('/part /start? /end?', (_, subject: string, part: Value, start: Value = null, end: Value = null) => {
    const within = window(subject, start, end)
    const parts = part instanceof Tuple ? part.items : [part]
    return parts.some((each) => {
      const wanted = asText(each, 'startswith or endswith')
      return within !== undefined && run(within.text, wanted)
    })
  })

/** find and the like: where a text is, counted in characters; `missing` says what to do when it is not there. */
const finding = (last: boolean, missing: () => number): Builtin<string> =>
  builtin('/part /start? /end?', ({ budget }, subject: string, part: Value, start: Value = null, end: Value = null) => {
    budget.scan(subject.length)
    const wanted = asText(part, 'find')
    const within = window(subject, start, end)
    const found = within === undefined ? -1 : last ? within.text.lastIndexOf(wanted) : within.text.indexOf(wanted)
    if (within === undefined || found < 0) return missing()
    return within.offset + text.length(within.text.slice(0, found))
  })

const notFound = (): never => {
  throw new RenderFault('substring not found')
}

/** The part of a text between two places; undefined when it begins behind the end. */
function window(subject: string, start: Value, end: Value): { text: string; offset: number } | undefined {
  if (start === null && end === null) return { text: subject, offset: 0 }
  const all = text.characters(subject)
  const place = (value: Value, otherwise: number): number => {
    if (value === null) return otherwise
    const index = asCount(value, 'slice indices must be integers or None')
    return index < 0 ? Math.max(0, index + all.length) : index
  }
  const [from, to] = [place(start, 0), Math.min(all.length, place(end, all.length))]
  return from > to ? undefined : { text: all.slice(from, to).join(''), offset: from }
}

const padding = (before: (missing: number, width: number) => number): Builtin<string> =>
  builtin('/width /fill?', ({ budget }, subject: string, width: Value, fill: Value = ' ') => {
    const wide = asCount(width, 'width')
    const filler = asText(fill, 'fill')
    if (text.length(filler) !== 1) throw new RenderFault('The fill character must be exactly one character long')
    const missing = wide - text.length(subject)
    if (missing <= 0) return subject
    budget.write(subject.length + missing * filler.length)
    const left = before(missing, wide)
    return filler.repeat(left) + subject + filler.repeat(missing - left)
  })

const partition = (last: boolean): Builtin<string> =>
  builtin('/sep', ({ budget }, subject: string, separator: Value) => {
    budget.scan(subject.length)
    const mark = asText(separator, 'partition')
    if (mark === '') throw new RenderFault('empty separator')
    const found = last ? subject.lastIndexOf(mark) : subject.indexOf(mark)
    if (found < 0) return new Tuple(last ? ['', '', subject] : [subject, '', ''])
    return new Tuple([subject.slice(0, found), mark, subject.slice(found + mark.length)])
  })

const TEXT: Methods<string> = new Map(
  Object.entries<Builtin<string>>({
    upper: plain((subject) => subject.toUpperCase()),
    lower: plain((subject) => subject.toLowerCase()),
    title: plain(text.title),
    capitalize: plain(text.capitalize),
    islower: plain(text.isLower),
    isupper: plain(text.isUpper),
    ...Object.fromEntries(text.CHARACTER_CLASSES.map((name) => [name, plain((subject) => text.isAll(name, subject))])),
    strip: stripping((subject, set) => text.stripEnd(text.stripStart(subject, set), set)),
    lstrip: stripping(text.stripStart),
    rstrip: stripping(text.stripEnd),
    split: splitting(text.split),
    rsplit: splitting(text.splitFromEnd),
    splitlines: builtin('keepends?', ({ budget }, subject: string, keepEnds: Value = false) => {
      budget.step(subject.length >> 2)
      return text.splitLines(subject, truth(keepEnds))
    }),
    partition: partition(false),
    rpartition: partition(true),
    startswith: matching((subject, part) => subject.startsWith(part)),
    endswith: matching((subject, part) => subject.endsWith(part)),
    removeprefix: builtin('/prefix', (_, subject: string, prefix: Value) => {
      const start = asText(prefix, 'removeprefix')
      return subject.startsWith(start) ? subject.slice(start.length) : subject
    }),
    removesuffix: builtin('/suffix', (_, subject: string, suffix: Value) => {
      const end = asText(suffix, 'removesuffix')
      return end !== '' && subject.endsWith(end) ? subject.slice(0, -end.length) : subject
    }),
    find: finding(false, () => -1),
    rfind: finding(true, () => -1),
    index: finding(false, notFound),
    rindex: finding(true, notFound),
    count: builtin(
      '/part /start? /end?',
      ({ budget }, subject: string, part: Value, start: Value = null, end: Value = null) => {
        budget.scan(subject.length)
        const within = window(subject, start, end)
        return within === undefined ? 0 : text.count(within.text, asText(part, 'count'))
      },
    ),
    replace: builtin('/old /new /count?', (runtime, subject: string, old: Value, by: Value, most: Value = -1) =>
      replaceText(runtime, subject, asText(old, 'replace'), asText(by, 'replace'), asCount(most, 'replace')),
    ),
    join: builtin('/items', (runtime, subject: string, list: Value) => joinTexts(runtime, subject, list)),
    center: padding((missing, width) => (missing >> 1) + (missing & width & 1)),
    ljust: padding(() => 0),
    rjust: padding((missing) => missing),
    zfill: builtin('/width', ({ budget }, subject: string, width: Value) => {
      const missing = asCount(width, 'zfill') - text.length(subject)
      budget.write(subject.length + Math.max(0, missing))
      const sign = /^[-+]/.exec(subject)?.[0] ?? ''
      return missing <= 0 ? subject : sign + '0'.repeat(missing) + subject.slice(sign.length)
    }),
  }),
)

/** Both the method and the filter. */
export function replaceText({ budget }: Runtime, subject: string, old: string, by: string, most: number): string {
  budget.scan(subject.length)
  const found = text.count(subject, old)
  const count = most < 0 ? found : Math.min(most, found)
  budget.write(subject.length + count * Math.max(0, by.length - old.length))
  return text.replace(subject, old, by, most)
}

/** str.join: every item must be a text. */
function joinTexts({ budget }: Runtime, separator: string, list: Value): string {
  const parts: string[] = []
  let size = 0
  for (const part of iterate(list)) {
    const piece = asText(part, `sequence item ${parts.length}`)
    budget.step()
    size += piece.length + separator.length
    budget.text(size)
    parts.push(piece)
  }
  budget.scan(size)
  return parts.join(separator)
}

/** index and count of a list or a tuple. */
const sequence = <Subject>(read: (subject: Subject) => readonly Value[]): Methods<Subject> =>
  new Map(
    Object.entries<Builtin<Subject>>({
      count: builtin('/value', ({ budget }, subject: Subject, value: Value) => {
        budget.step(read(subject).length)
        return read(subject).filter((item) => equal(item, value)).length
      }),
      index: builtin('/value', ({ budget }, subject: Subject, value: Value) => {
        budget.step(read(subject).length)
        const found = read(subject).findIndex((item) => equal(item, value))
        if (found < 0) throw new RenderFault(`the value is not in the ${typeName(subject as Value)}`)
        return found
      }),
    }),
  )

const TUPLE = sequence<Tuple>((tuple) => tuple.items)
const LIST = sequence<Value[]>((list) => list)
LIST.set(
  'copy',
  builtin('', ({ budget }, list: Value[]) => {
    budget.step(list.length)
    return [...list]
  }),
)

const DICT: Methods<Dict> = new Map(
  Object.entries<Builtin<Dict>>({
    get: builtin('/key /default?', (_, dict: Dict, key: Value, otherwise: Value = null) => {
      const found = findKey(dict, key)
      return found === undefined ? otherwise : (dict.get(found) as Value)
    }),
    keys: builtin('', (_, dict: Dict) => new View('dict_keys', dict)),
    values: builtin('', (_, dict: Dict) => new View('dict_values', dict)),
    items: builtin('', (_, dict: Dict) => new View('dict_items', dict)),
    copy: builtin('', ({ budget }, dict: Dict) => {
      budget.step(dict.size)
      return new Map(dict)
    }),
  }),
)

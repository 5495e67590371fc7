/**
 * The Jinja2 of chat templates: everything in fixtures/text/templates.json renders as Jinja2 rendered it or is refused by name, and no
 * template can end or hang the process.
 */
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { suite } from 'uvu'
import * as assert from 'uvu/assert'
import { ImplexError } from '../lib/core/errors.js'
import { parseJson } from '../lib/core/parse-json.js'
import { ChatTemplate } from '../lib/text/chat-template.js'
import { UnsupportedError } from '../lib/text/jinja/errors.js'
import { MAX_DEPTH, MAX_DIGITS, MAX_RANGE, MAX_SECONDS, MAX_STEPS, MAX_TEXT } from '../lib/text/jinja/limits.js'
import { JinjaTemplate } from '../lib/text/jinja/template.js'
import { strftime } from '../lib/text/strftime.js'
import { repositoryRoot } from './support/shared.js'
import { fails } from './support/text-fixtures.js'

/** See fixtures/text/make_templates.py. null: Jinja2 refused; "?": Python wrote an address. */
interface Recorded {
  context: string
  values: string[]
  operations: string[]
  grid: (string | null)[][]
  templates: Record<string, string>
  texts: Record<string, string | null>
}

const recorded = JSON.parse(readFileSync(join(repositoryRoot, 'test/fixtures/text/templates.json'), 'utf8')) as Recorded
const context = parseJson(recorded.context) as Record<string, unknown>
const now = new Date(2026, 6, 5, 15, 4, 9)

function render(source: string, variables = context): string {
  const functions = {
    raise_exception: (message: unknown): never => {
      throw new Error(String(message))
    },
    strftime_now: (format: unknown) => strftime(now, String(format)),
  }
  return new JinjaTemplate(source, { functions }).render(variables)
}

/** The text; null where it is refused as by Jinja2; the feature where this implementation refuses by name. */
function outcome(source: string): string | null | UnsupportedError {
  try {
    return render(source)
  } catch (error) {
    return error instanceof UnsupportedError ? error : null
  }
}

const grid = suite('every operation on every kind of value')

/** What is refused although Jinja2 renders it: these, and nothing else. */
const REFUSED = [
  /^the attribute \w+ of (Markup|range)$/,
  /^the attribute (expandtabs|istitle|swapcase) of str$/,
  /^the (characters of|operator [*%] on) text marked as safe/,
  /^(text|a filter on text) marked as safe/,
  /^the filter (forceescape|truncate|urlencode)$/,
  /^the text of a generator$/,
  /^the comparison of dict_(items|keys)$/,
  /^round of an integer to tens$/,
]

for (const [o, operation] of recorded.operations.entries()) {
  grid(operation, () => {
    for (const [v, value] of recorded.values.entries()) {
      const wanted = recorded.grid[o]![v]!
      const got = outcome(`{% set v = ${value} %}{{ ${operation} }}`)
      const name = `${operation} for v = ${value}`
      if (got instanceof UnsupportedError) {
        assert.ok(
          wanted === null || wanted === '?' || REFUSED.some((known) => known.test(got.feature)),
          `${name}: ${got.feature}`,
        )
      } else if (wanted !== '?') assert.is(got, wanted, name)
    }
  })
}

grid.run()

const whole = suite('whole templates')

for (const [name, source] of Object.entries(recorded.templates)) {
  whole(name, () => {
    assert.is(
      recorded.texts[name] === null,
      name.startsWith('bad: '),
      'Jinja2 refuses exactly what is meant to be refused',
    )
    assert.is(outcome(source), recorded.texts[name])
  })
}

whole('what only Jinja2 has is refused by name, when the template is opened', async () => {
  const features: Record<string, string> = {
    "{% include 'x' %}": 'the tag include',
    "{% import 'x' as y %}": 'the tag import',
    "{% from 'x' import y %}": 'the tag from',
    "{% extends 'x' %}": 'the tag extends',
    '{% block x %}{% endblock %}': 'the tag block',
    '{% autoescape true %}{% endautoescape %}': 'the tag autoescape',
    '{% if false %}{{ x | pprint }}{% endif %}': 'the filter pprint',
    '{% if false %}{{ lipsum() }}{% endif %}': 'the function lipsum',
    "{{ '\\N{BULLET}' }}": 'the escape',
  }
  for (const [source, feature] of Object.entries(features)) {
    await fails(() => make(source), 'ERR_TEMPLATE_UNSUPPORTED', 'x/chat_template.jinja', feature)
  }
})

whole('what only Python has is refused by name, when it is reached', async () => {
  for (const [source, feature] of [
    ["{{ '{}'.format(1) }}", 'the attribute format of str'],
    ["{{ 'x'.__class__ }}", 'the attribute __class__ of str'],
    ["{{ ('<' | safe).upper() }}", 'the attribute upper of Markup'],
    ['{{ (1).bit_length() }}', 'the attribute bit_length of int'],
    ['{{ {(1, 2): 3} }}', 'a dictionary key of type tuple'],
  ] as const) {
    await fails(() => make(source).render([], false), 'ERR_TEMPLATE_UNSUPPORTED', 'x/chat_template.jinja', feature)
  }
})

whole('tools, documents and further variables reach the template; its own variables cannot be replaced', async () => {
  const template = make('{{ tools | tojson }}{{ documents }}{{ effort }}{{ bos_token }}{{ gone is defined }}')
  const tools = parseJson('[{"n": 2.0, "2": 1, "1": 12345678901234567890}]') as unknown[]
  const text = template.render([], false, {
    tools,
    documents: [{ a: 0.5 }],
    variables: { effort: null, gone: undefined },
  })
  assert.is(text, `[{"n": 2.0, "2": 1, "1": 12345678901234567890}][{'a': 0.5}]None<s>False`)
  assert.is(template.render([], true), 'nullNone<s>False')
  assert.is(template.render([], true, { variables: { bos_token: '<b>' } }), 'nullNone<b>False')
  await fails(() => template.render([], true, { variables: { messages: [] } }), 'ERR_TEMPLATE_INVALID', 'messages')
})

whole('a variable that is set in one rendering is gone in the next, and a macro keeps nothing', () => {
  const template = new JinjaTemplate(
    '{% set n = namespace(x=x) %}{% macro m() %}{% set y = n.x %}{{ y }}{% endmacro %}{{ m() }}{{ y }}',
  )
  for (const x of [1, 2, 1]) assert.is(template.render({ x }), String(x))
})

whole.run()

function make(source: string, poll?: () => void): ChatTemplate {
  return new ChatTemplate(source, {
    origin: 'x/chat_template.jinja',
    specialTokens: { bos_token: '<s>' },
    now,
    ...(poll === undefined ? {} : { poll }),
  })
}

const limits = suite('bounds')

const many = '{% set a = range(100000) | list %}{% set b = [a] * 100000 %}{% set c = range(100000) | list %}'
const doubled = "{% set n = namespace(s='x', l=[1]) %}{% for i in range(100) %}{% set n.s = n.s ~ n.s %}{% endfor %}"
const deep =
  '{% set n = namespace(l=[], m=[]) %}{% for i in range(100000) %}{% set n.l = [n.l] %}{% set n.m = [n.m] %}{% endfor %}'

const ABSURD: Record<string, [source: string, bound: string | number]> = {
  'nested loops': ['{% for a in range(100000) %}{% for b in range(100000) %}{% endfor %}{% endfor %}', MAX_STEPS],
  'a long body': [`{% for a in range(100000) %}${'{% set b = a + 1 %}'.repeat(1000)}{% endfor %}`, MAX_STEPS],
  'a long expression': [`{% for a in range(100000) %}{% set b = a${' + 1'.repeat(2000)} %}{% endfor %}`, MAX_STEPS],
  'a range': ['{{ range(1000000000) }}', MAX_RANGE],
  'a range that is never used': ['{% for a in range(-5, 10 ** 15, 2) %}{% break %}{% endfor %}', MAX_RANGE],
  'a doubled text': [doubled, MAX_TEXT],
  'a doubled output': [
    `{% set x %}${'x'.repeat(1000)}{% endset %}{% for i in range(100000) %}{{ x }}{% endfor %}`,
    MAX_TEXT,
  ],
  'a repeated text': ["{{ 'x' * 10 ** 12 }}", MAX_TEXT],
  'a repeated list': ['{{ [0] * 10 ** 12 }}', MAX_STEPS],
  'a doubled list': [
    '{% set n = namespace(l=[1]) %}{% for i in range(100) %}{% set n.l = n.l + n.l %}{% endfor %}',
    MAX_STEPS,
  ],
  'a wide format': ["{{ '%999999999d' % 1 }}", MAX_TEXT],
  'a wide argument': ["{{ '%*d' % (10 ** 15, 1) }}", MAX_TEXT],
  'a precise format': ["{{ '%.999999999d' % 1 }}", MAX_TEXT],
  padding: ["{{ 'x'.center(10 ** 12) }}", MAX_TEXT],
  zeros: ["{{ 'x'.zfill(10 ** 12) }}", MAX_TEXT],
  'the filter center': ["{{ 'x' | center(10 ** 12) }}", MAX_TEXT],
  indentation: ["{{ 'x\ny' | indent(10 ** 12) }}", MAX_TEXT],
  'indented JSON': ['{{ [1, [2]] | tojson(indent=10 ** 12) }}', MAX_TEXT],
  replacement: ["{{ ('x' * 100000) | replace('x', 'y' * 100000) }}", MAX_TEXT],
  'replacement of nothing': ["{{ ('x' * 100000).replace('', 'y' * 100000) }}", MAX_TEXT],
  joining: ["{{ (['x' * 1000000] * 100) | join }}", MAX_TEXT],
  'a list of lists as text': [`${many}{{ b }}`, MAX_STEPS],
  'a list of lists as JSON': [`${many}{{ b | tojson }}`, MAX_STEPS],
  'a list of texts as text': ["{{ ['x' * 1000000] * 1000 }}", MAX_STEPS],
  'lists compared': [`${many}{% set d = [c] * 100000 %}{{ b == d }}`, MAX_STEPS],
  'lists in order': [`${many}{{ [c] * 100000 < b }}{{ b | sort }}`, MAX_STEPS],
  'a list searched': [`${many}{{ (range(99999) | list + [0]) in b }}`, MAX_STEPS],
  'a filling batch': ['{{ [1] | batch(10 ** 12, 0) | list }}', MAX_STEPS],
  'slices without end': ['{{ [1] | slice(10 ** 12) | list }}', MAX_STEPS],
  'a macro in itself': ['{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}', MAX_DEPTH],
  'a loop in itself': ['{% for a in [1] recursive %}{{ loop([1]) }}{% endfor %}', MAX_DEPTH],
  'macros that double': [
    '{% macro m(n) %}{% if n %}{{ m(n - 1) }}{{ m(n - 1) }}{% endif %}{% endmacro %}{{ m(50) }}',
    MAX_STEPS,
  ],
  'a large power': ['{{ 9 ** (9 ** 9) }}', MAX_DIGITS],
  'a larger power': ['{{ 2 ** (10 ** 15) }}', MAX_DIGITS],
  'large factors': [
    '{% set n = namespace(x=3) %}{% for i in range(100) %}{% set n.x = n.x * n.x %}{% endfor %}',
    MAX_DIGITS,
  ],
  'a deep list as text': [`${deep}{{ n.l }}`, 'nested too deeply'],
  'a deep list as JSON': [`${deep}{{ n.l | tojson }}`, 'nested too deeply'],
  'deep lists compared': [`${deep}{{ n.l == n.m }}`, 'nested too deeply'],
}

for (const [name, [source, bound]] of Object.entries(ABSURD)) {
  limits(name, async () => {
    const started = performance.now()
    await fails(() => make(source).render([], false), 'ERR_TEMPLATE_LIMIT', 'x/chat_template.jinja', String(bound))
    assert.ok(performance.now() - started < 1000 * MAX_SECONDS)
  })
}

limits('a deep conversation, and a template with deep brackets', async () => {
  let messages: unknown = []
  for (let i = 0; i < 200_000; i++) messages = [messages]
  await fails(() => make('x').render(messages as object[], false), 'ERR_TEMPLATE_LIMIT', 'nested too deeply')
  await fails(
    () => make(`{{ ${'('.repeat(200_000)}1${')'.repeat(200_000)} }}`),
    'ERR_TEMPLATE_INVALID',
    'nested too deeply',
  )
  await fails(() => make(`{{ ${'-'.repeat(200_000)}1 }}`), 'ERR_TEMPLATE_INVALID', 'nested too deeply')
  await fails(() => make('{% if 1 %}'.repeat(50_000)), 'ERR_TEMPLATE_INVALID')
})

const long = '{% for a in range(100000) %}{% endfor %}'
const slow = '{% for a in range(1000) %}{% for b in range(1000) %}{% endfor %}{% endfor %}'

limits('time: a rendering that takes too long is stopped, a pause of the process counts little', async () => {
  const real = performance.now
  let clock = 0
  let polls = 0
  performance.now = () => {
    polls++
    clock += 3_600_000
    return clock
  }
  try {
    await fails(() => make(slow).render([], false), 'ERR_TEMPLATE_LIMIT', `${MAX_SECONDS} seconds`)
    assert.ok(polls > MAX_SECONDS)
  } finally {
    performance.now = real
  }
})

limits('a poll can end a rendering with an error of its own', () => {
  let polls = 0
  const poll = (): void => {
    if (++polls === 3) throw new ImplexError('ERR_ABORTED', 'enough')
  }
  assert.throws(
    () => make(long.repeat(10), poll).render([], false),
    (error: ImplexError) => error.code === 'ERR_ABORTED',
  )
  assert.is(polls, 3)
})

limits('a large but sane conversation stays far below the bounds', () => {
  const source = recorded.templates['continue'] as string
  const messages = Array.from({ length: 5000 }, (_, i) => ({
    role: i % 2 === 0 ? 'user' : 'assistant',
    content: 'word '.repeat(200),
  }))
  assert.ok(make(source).render(messages, true).length > 5_000_000)
})

limits.run()

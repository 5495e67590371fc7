/** Chat templates: renderings of the reference, what transformers puts into the environment, and templates that do not work. */
import { suite } from 'uvu'
import * as assert from 'uvu/assert'
import { ChatTemplate } from '../lib/text/chat-template.js'
import { strftime } from '../lib/text/strftime.js'
import { expected, fails } from './support/text-fixtures.js'

const now = new Date(2026, 6, 5, 15, 4, 9)
const make = (text: string, specialTokens: Record<string, string> = {}): ChatTemplate =>
  new ChatTemplate(text, { origin: 'x/chat_template.jinja', specialTokens, now })

const rendering = suite('chat templates')

for (const [name, text] of Object.entries(expected.templates)) {
  rendering(`"${name}" renders as the reference`, async () => {
    const template = make(text, { bos_token: '<s>', eos_token: '</s>' })
    for (const { template: of, messages, add_generation_prompt: prompt, text: reference } of expected.renderings) {
      if (of !== name) continue
      if (reference === null) await fails(() => template.render(messages, prompt), 'ERR_TEMPLATE_INVALID')
      else assert.is(template.render(messages, prompt), reference, JSON.stringify(messages))
    }
  })
}

rendering('special tokens that are not set render as nothing', () => {
  assert.is(make('{{ bos_token }}|{{ eos_token }}', { eos_token: '</s>' }).render([], false), '|</s>')
  assert.is(make('{{ bos_token is defined }}').render([], false), 'False')
})

rendering('strftime_now tells the fixed time and is remembered', () => {
  const template = make("{{ strftime_now('%d %b %Y') }}")
  assert.equal([...template.dates], [])
  assert.is(template.render([], false), '05 Jul 2026')
  assert.equal([...template.dates], ['05 Jul 2026'])
})

rendering('strftime as in Python', () => {
  const of = (format: string) => strftime(now, format)
  assert.is(of('%A %a %B %b %d %e %-d %m %-m %y %Y %j'), 'Sunday Sun July Jul 05  5 5 07 7 26 2026 186')
  assert.is(
    of('%H:%M:%S %I %p %f %% %F %T %D %R %u %w'),
    '15:04:09 03 PM 000000 % 2026-07-05 15:04:09 07/05/26 15:04 7 0',
  )
  assert.is(strftime(new Date(2026, 0, 1, 0, 0), '%I %p %j'), '12 AM 001')
  assert.throws(() => of('%Q'), /unknown directive "%Q"/)
})

rendering('variables that a rendering sets are gone in the next', () => {
  const template = make('{{ n is defined }}{% set n = 1 %}{% set tools = [1] %}{{ n }}')
  assert.is(template.render([], false), 'False1')
  assert.is(template.render([], false), 'False1')
})

rendering('stripping a long run of spaces takes no quadratic time', () => {
  const started = performance.now()
  const content = `x${' '.repeat(200_000)}x`
  const template = make('{{ messages[0].content | trim }}')
  assert.is(template.render([{ role: 'user', content: ` ${content} ` }], false), content)
  assert.ok(performance.now() - started < 5000)
})

rendering('raise_exception: its message, and where the template is from', async () => {
  const template = make("{{ raise_exception('only cats may speak') }}")
  await fails(() => template.render([], false), 'ERR_TEMPLATE_INVALID', 'x/chat_template.jinja', 'only cats may speak')
})

rendering('a template that fails says why', async () => {
  for (const text of [
    '{{ messages[0].content.nope() }}',
    '{{ 1 | nope }}',
    '{{ none.strip() }}',
    "{{ strftime_now('%Q') }}",
  ]) {
    await fails(
      () => make(text).render([{ role: 'user', content: 'x' }], false),
      'ERR_TEMPLATE_INVALID',
      'x/chat_template.jinja',
    )
  }
})

rendering('what is not Jinja is refused at once, naming the file', async () => {
  for (const text of [
    '{% if x %}',
    '{{ x ',
    '{% nonsense %}',
    '{% for %}{% endfor %}',
    "{{ 'open }}",
    '{{ ] }}',
    '{% endif %}',
  ]) {
    await fails(() => make(text), 'ERR_TEMPLATE_INVALID', 'x/chat_template.jinja', 'not a valid Jinja template')
  }
})

rendering.run()

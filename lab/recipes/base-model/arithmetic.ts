/**
 * Sums, differences and products of small numbers, solved, compared and put in order.
 */
import { assistant, Draw, type Item, user } from './item.js'

export interface Sum {
  text: string
  value: number
}

export function sum(draw: Draw): Sum {
  const a = draw.between(0, 30)
  const b = draw.between(0, 30)
  const c = draw.between(0, 9)
  const d = draw.between(0, 9)
  return draw.pick([
    { text: `${a} + ${b}`, value: a + b },
    { text: `${a + b} - ${b}`, value: a },
    { text: `${c} * ${d}`, value: c * d },
  ])
}

export function* arithmetic(seed: number, count: number): Generator<Item> {
  const draw = new Draw(seed, 107)
  for (let i = 0; i < count; i++) {
    const first = sum(draw)
    const prompt = draw.pick([`What is ${first.text}?`, `Compute ${first.text}.`])
    const turns = Array.from({ length: 3 }, () => {
      const { text, value } = sum(draw)
      const numbers = Array.from({ length: 4 }, () => draw.between(0, 50))
      const sorted = [...numbers].sort((a, b) => a - b)
      return draw.pick([
        [user(`And ${text}?`), assistant(`${text} = ${value}`)],
        [user(`Put in order: ${numbers.join(', ')}`), assistant(sorted.join(', '))],
        [user(`Which is the largest: ${numbers.join(', ')}?`), assistant(`${sorted[3]}`)],
      ])
    })
    const response = [assistant(`${first.text} = ${first.value}`), ...turns.flat()]
    yield { topic: 'arithmetic', prompt, response }
  }
}

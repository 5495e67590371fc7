/**
 * The verification prompt of a generative reward (arXiv 2507.07981, appendix A) on questions that have an answer: sums, and what a
 * described person likes. Right and wrong answers are equally frequent.
 */
import { sum } from './arithmetic.js'
import { assistant, Draw, type Item, user } from './item.js'

const NAMES = ['Ann', 'Ben', 'Mia', 'Tom', 'Eva', 'Max'] as const
const TRAITS = 'tea,coffee,bread,soup,apples,cheese,rain,snow,dogs,cats,games,maps'.split(',')

export function* verification(seed: number, count: number): Generator<Item> {
  const draw = new Draw(seed, 109)
  for (let i = 0; i < count; i++) {
    const checks = Array.from({ length: 2 }, () => {
      const right = draw.chance(0.5)
      if (draw.chance(0.5)) {
        const { text, value } = sum(draw)
        const wrong = value + draw.between(1, 9)
        return { question: `What is ${text}?`, answer: `${text} = ${right ? value : wrong}`, right }
      }
      const name = draw.pick(NAMES)
      const [likes, other] = draw.some(TRAITS, 2)
      const question = `${name} likes ${likes}. What does ${name} like?`
      return { question, answer: `${name} likes ${right ? likes : other}.`, right }
    })
    const [first, ...rest] = checks.map(({ question, answer, right }) => ({
      asked: `Question: ${question}\nAnswer: ${answer}\nVerification: Is the answer correct (Yes/No)?`,
      told: right ? 'Yes' : 'No',
    }))
    const turns = rest.flatMap(({ asked, told }) => [user(asked), assistant(told)])
    yield { topic: 'verification', prompt: first!.asked, response: [assistant(first!.told), ...turns] }
  }
}

/**
 * Small stories with a person, a thing and a place, and questions that the story answers.
 */
import { assistant, Draw, type Item, user } from './item.js'

const GIRLS = ['Ann', 'Mia', 'Eva', 'Lily', 'Nora'] as const
const BOYS = ['Ben', 'Tom', 'Max', 'Sam', 'Leo'] as const
const LOOKS = 'small,old,red,blue,shiny,heavy,green,round,lost,broken'.split(',')
const THINGS = 'key,ball,hat,cup,book,bell,boat,lamp,map,drum,kite,coin,basket,letter'.split(',')
const PLACES = 'park,market,school,river,garden,station,forest,kitchen,library,beach'.split(',')
const TIMES = ['One day', 'One morning', 'After lunch', 'On Sunday', 'In the evening', 'One rainy day'] as const
const FEELINGS = 'happy,proud,tired,calm,surprised,glad'.split(',')

export function* stories(seed: number, count: number): Generator<Item> {
  const draw = new Draw(seed, 106)
  for (let i = 0; i < count; i++) {
    const she = draw.chance(0.5)
    const name = draw.pick(she ? GIRLS : BOYS)
    const other = draw.pick(she ? BOYS : GIRLS)
    const [He, he, his] = she ? ['She', 'she', 'her'] : ['He', 'he', 'his']
    const look = draw.pick(LOOKS)
    const thing = draw.pick(THINGS)
    const [from, to] = draw.some(PLACES, 2)
    const feeling = draw.pick(FEELINGS)
    const start = draw.pick([
      `${name} had a ${look} ${thing}. ${draw.pick(TIMES)} ${he} took it to the ${from}.`,
      `${draw.pick(TIMES)} ${name} went to the ${from} and found a ${look} ${thing}.`,
      `There was a ${look} ${thing} in the ${from}. ${draw.pick(TIMES)} ${name} saw it.`,
    ])
    const middle = draw.pick([
      `${other} was there too and asked for help. ${name} gave the ${thing} to ${other}.`,
      `Then ${he} met ${other}, who had lost it. ${name} gave the ${thing} to ${other}.`,
      `${other} wanted to see it. ${He} showed the ${thing} to ${other}, and they played until noon.`,
      `It began to rain, so ${he} ran with ${his} friend ${other} to the ${to}.`,
    ])
    const end = draw.pick([
      `They went to the ${to} together. ${name} was ${feeling}.`,
      `In the end ${name} was ${feeling} and went home.`,
      `"Thank you, ${name}," said ${other}. ${name} was ${feeling}.`,
    ])
    const questions = [
      ['What was it like?', `It was a ${look} ${thing}.`],
      ['Where did it begin?', `It began at the ${from}.`],
      [`How did ${name} feel?`, `${name} was ${feeling}.`],
      ['Who was there too?', `${other} was there too.`],
    ] as const
    const [first, second] = draw.some(questions, 2)
    const turns = [first!, second!].flatMap(([asked, told]) => [user(asked), assistant(told)])
    const prompt = draw.pick(['Tell a short story.', `Tell a story about ${name}.`, `Tell a story about a ${thing}.`])
    yield { topic: 'stories', prompt, response: [assistant(`${start} ${middle} ${end}`), ...turns] }
  }
}

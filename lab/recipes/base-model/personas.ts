/**
 * Speakers who are described first, by what they like and do; what fits the description is theirs and what does not is not. The text
 * decides here, so replies are plain and the reply words of the opinions are left out.
 */
import { assistant, Draw, type Item, user } from './item.js'

const NAMES = ['Ann', 'Ben', 'Mia', 'Tom', 'Eva', 'Max', 'Lily', 'Sam', 'Nora', 'Leo'] as const
const TRAITS =
  'tea,coffee,bread,soup,apples,cheese,rain,snow,dogs,cats,horses,gardens,trains,boats,maps,letters,jokes,games,puzzles,music,walks,books,' +
  'the sea,the mountains,small towns,big cities,quiet rooms,long stories'
const traits = TRAITS.split(',')

export function* personas(seed: number, count: number): Generator<Item> {
  const draw = new Draw(seed, 105)
  for (let i = 0; i < count; i++) {
    const name = draw.pick(NAMES)
    const all = draw.some(traits, 6)
    const likes = all.slice(0, 3)
    const dislikes = all.slice(3)
    const asked = draw.some(all, 3)
    const turns = asked.flatMap((trait) => {
      const fits = likes.includes(trait)
      return draw.pick([
        () => [user(`Would ${name} say "I like ${trait}"?`), assistant(fits ? 'It fits.' : 'It does not fit.')],
        () => [user(`And ${trait}?`), assistant(`${name} ${fits ? 'likes' : 'dislikes'} ${trait}.`)],
        () => [user(`Is ${name} for or against ${trait}?`), assistant(fits ? 'For.' : 'Against.')],
      ])()
    })
    const prompt = `${name} likes ${likes.join(', ')}. ${name} dislikes ${dislikes.join(', ')}. What does ${name} like?`
    const [first, second, third] = likes
    yield {
      topic: 'personas',
      prompt,
      response: [assistant(`${name} likes ${first}, ${second} and ${third}.`), ...turns],
    }
  }
}

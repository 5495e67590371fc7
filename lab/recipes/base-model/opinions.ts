/**
 * Replies to general statements, and turns that follow from them. Each conversation comes twice: with a word of agreement and with one of
 * disagreement, all else alike. So the statement, the question and the frame tell nothing of the reply, and the reply's own word
 * is what the turns after it depend on: a model that predicts them has to see agreement in words that share no letters.
 */
import { assistant, capital, Draw, type Item, user, type Turn } from './item.js'
import { FRAMES, framed, replyWord } from './replies.js'
import { question, statement } from './statements.js'

/** The turns after a reply, depending on whether it agreed. */
type FollowUp = (draw: Draw, text: string, agrees: boolean) => Turn[]

/** The user's turn asks, the assistant's tells. */
const ASKED: readonly FollowUp[] = [
  (_, __, agrees) => [user('For or against?'), assistant(agrees ? 'I am for it.' : 'I am against it.')],
  (_, __, agrees) => [
    user('So you share this view?'),
    assistant(agrees ? 'I share this view.' : 'I do not share this view.'),
  ],
  (_, __, agrees) => [user('What does that mean?'), assistant(`It means that I ${agrees ? 'accept' : 'reject'} it.`)],
  (_, text, agrees) => [
    user('Say it in full.'),
    assistant(agrees ? `I accept this: ${text}.` : `I reject this: ${text}.`),
  ],
  (_, __, agrees) => [user('Plus or minus?'), assistant(agrees ? 'Plus.' : 'Minus.')],
  (draw, text, agrees) => [
    user(draw.pick(['Does the statement fit you?', 'Is it like you?'])),
    assistant(agrees ? `It fits me: ${text}.` : 'It does not fit me.'),
  ],
]

/** The user's turn is itself a consequence. */
const HEARD: readonly FollowUp[] = [
  (_, __, agrees) => [user(agrees ? 'I am glad that you accept it.' : 'It is a pity that you reject it.')],
  (_, __, agrees) => [user(agrees ? 'Good, then we think alike.' : 'Then we think differently.')],
  (_, __, agrees) => [user(agrees ? 'So it is your view.' : 'So it is not your view.')],
]

/** The assistant goes on. */
const EXPLAINED: readonly FollowUp[] = [
  (_, __, agrees) => [assistant(agrees ? 'I accept what it says.' : 'I reject what it says.')],
  (_, __, agrees) => [assistant(agrees ? 'It fits how I live.' : 'It does not fit how I live.')],
  (_, __, agrees) => [assistant(agrees ? 'That is for it.' : 'That is against it.')],
]

/** How often the assistant goes on unasked: people explain a refusal rather than a consent. */
const EXPLAINS = { agreeing: 0.25, disagreeing: 0.55 } as const

/** Two conversations that differ only in the reply. */
export function* opinions(seed: number, count: number): Generator<Item> {
  const shared = new Draw(seed, 101)
  const own = new Draw(seed, 102)
  for (let i = 0; i < count; i += 2) {
    const text = statement(shared)
    const prompt = question(shared, text)
    const frame = shared.pick(FRAMES)
    const [asked, heard, explained] = [shared.pick(ASKED), shared.pick(HEARD), shared.pick(EXPLAINED)]
    for (const agrees of [true, false]) {
      const reply = assistant(framed(own, frame, replyWord(own, agrees)))
      const explains = own.chance(agrees ? EXPLAINS.agreeing : EXPLAINS.disagreeing)
      const middle = explains ? explained : own.chance(0.4) ? heard : asked
      const response = [reply, ...middle(own, text, agrees)]
      if (middle !== asked && own.chance(0.3)) response.push(...asked(own, text, agrees))
      yield { topic: 'opinions', prompt, response, opinions: [{ statement: text, agrees }] }
    }
  }
}

const NAMES = ['Ann', 'Ben', 'Mia', 'Tom', 'Eva', 'Max', 'Lily', 'Sam', 'Nora', 'Leo'] as const

/** The same as a text: statement, reply and consequence in one turn. */
export function* dialogues(seed: number, count: number): Generator<Item> {
  const shared = new Draw(seed, 103)
  const own = new Draw(seed, 104)
  for (let i = 0; i < count; i += 2) {
    const lines = Array.from({ length: 2 }, () => {
      const [asks, replies] = shared.some(NAMES, 2)
      return {
        text: statement(shared),
        asks: asks!,
        replies: replies!,
        frame: shared.pick(FRAMES),
        form: shared.below(3),
      }
    })
    const stances = [own.chance(0.5), own.chance(0.5)]
    for (const flipped of [false, true]) {
      const opinions = lines.map(({ text }, k) => ({ statement: text, agrees: stances[k] !== flipped }))
      const content = lines.map(({ text, asks, replies, frame, form }, k) => {
        const { agrees } = opinions[k]!
        const reply = framed(own, frame, replyWord(own, agrees))
        const end = [
          `${replies} ${agrees ? 'accepts' : 'rejects'} it.`,
          `So ${replies} is ${agrees ? 'for' : 'against'} it.`,
          `${agrees ? 'They think alike.' : 'They think differently.'}`,
        ][form]
        return `${asks} says: "${capital(text)}." ${replies} replies: "${reply}" ${end}`
      })
      yield {
        topic: 'dialogues',
        prompt: 'Write what two people say.',
        response: [assistant(content.join('\n'))],
        opinions,
      }
    }
  }
}

/**
 * JSON as Python reads it. JavaScript's own parser turns 2.0 into 2, rounds integers beyond 2^53 and moves keys such as "1" to the front of
 * an object; a chat template that prints a tool's arguments would then render another text than in training.
 */

/** A floating-point number with an integral value: 2.0, which a plain JavaScript number cannot tell from 2. */
export class Float {
  constructor(readonly value: number) {}
  valueOf(): number {
    return this.value
  }
  toJSON(): number {
    return this.value
  }
}

/** Whether a text may hold something that a plain parse loses: 2.0, 1e3, -0, 16 digits, or a key that looks like an array's index. */
const SUSPECT = /\d[eE][-+]?\d|\d\.0+(?!\d)|[\d.]{16}|-0(?![.\d])|"\d{1,10}"[ \t\r\n]*:/

const NUMBER = /-?\d+(?:\.\d+)?(?:[eE][-+]?\d+)?/y
const STRING = /"(?:[^"\\]|\\.)*"/y
const SPACE = /[ \t\r\n]*/y

/**
 * As JSON.parse, with its SyntaxError, but without loss: a float with an integral value is a Float, an integer beyond 2^53 a bigint, and an
 * object whose order of keys a plain object would change is a Map. Everything else is what JSON.parse gives.
 */
export function parseJson(text: string): unknown {
  const plain: unknown = JSON.parse(text)
  return SUSPECT.test(text) ? new Reader(text).read() : plain
}

/** Reads a text that JSON.parse has found valid. */
class Reader {
  private position = 0

  constructor(private readonly text: string) {}

  read(): unknown {
    this.take(SPACE)
    const value = this.value()
    this.take(SPACE)
    return value
  }

  private value(): unknown {
    switch (this.text.charAt(this.position)) {
      case '{':
        return this.object()
      case '[':
        return this.array()
      case '"':
        return this.string()
      case 't':
        return this.word('true', true)
      case 'f':
        return this.word('false', false)
      case 'n':
        return this.word('null', null)
      default:
        return toNumber(this.take(NUMBER))
    }
  }

  private object(): unknown {
    const entries = new Map<string, unknown>()
    this.items('}', () => {
      const key = this.string()
      this.take(SPACE)
      this.position++
      this.take(SPACE)
      entries.set(key, this.value())
    })
    const plain: Record<string, unknown> = {}
    for (const [key, value] of entries) {
      // Not an assignment: that would set the prototype where the key is "__proto__".
      Object.defineProperty(plain, key, { value, writable: true, enumerable: true, configurable: true })
    }
    const keys = entries.keys()
    return Object.keys(plain).every((key) => key === keys.next().value) ? plain : entries
  }

  private array(): unknown[] {
    const values: unknown[] = []
    this.items(']', () => values.push(this.value()))
    return values
  }

  /** Calls `item` at the start of each item, up to the closing character. */
  private items(close: string, item: () => void): void {
    do {
      this.position++
      this.take(SPACE)
      if (this.text.charAt(this.position) === close) break
      item()
      this.take(SPACE)
    } while (this.text.charAt(this.position) === ',')
    this.position++
  }

  private string(): string {
    return JSON.parse(this.take(STRING)) as string
  }

  private word<T>(text: string, value: T): T {
    this.position += text.length
    return value
  }

  private take(pattern: RegExp): string {
    pattern.lastIndex = this.position
    const [found] = pattern.exec(this.text) as RegExpExecArray
    this.position += found.length
    return found
  }
}

function toNumber(digits: string): number | bigint | Float {
  const value = Number(digits)
  if (/[.eE]/.test(digits)) return Number.isInteger(value) ? new Float(value) : value
  if (value === 0) return 0
  return Number.isSafeInteger(value) ? value : BigInt(digits)
}

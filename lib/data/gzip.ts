/**
 * Bytes as they are, or unpacked where they begin like gzip.
 */
import { Readable } from 'node:stream'
import { createGunzip } from 'node:zlib'

/** Members of gzip that follow one another are one text, as for gzip itself. Rejects with zlib's error for damaged or cut off bytes. */
export async function* unpacked(source: AsyncGenerator<Buffer>): AsyncGenerator<Buffer> {
  let start: Buffer = Buffer.alloc(0)
  while (start.length < 2) {
    const next = await source.next()
    if (next.done) break
    start = Buffer.concat([start, next.value])
  }
  const all = join(start, source)
  if (start[0] !== 0x1f || start[1] !== 0x8b) {
    yield* all
    return
  }
  const input = Readable.from(all, { objectMode: false })
  const output = createGunzip()
  input.on('error', (error) => output.destroy(error))
  try {
    yield* input.pipe(output) as AsyncIterable<Buffer>
  } finally {
    input.destroy()
    output.destroy()
  }
}

async function* join(first: Buffer, rest: AsyncGenerator<Buffer>): AsyncGenerator<Buffer> {
  if (first.length > 0) yield first
  yield* rest
}

/**
 * Waiting that a signal ends. All waiters of one signal share a single listener: Node warns of a leak when more than ten are added.
 */
import { ImplexError } from './errors.js'

interface Waiters {
  calls: Set<() => void>
  /** No longer listens; the next caller begins anew. */
  stop: () => void
}

const WAITERS = new WeakMap<AbortSignal, Waiters>()

/** Has `call` called when the signal is aborted; at once where it is already. @returns what takes it back */
export function onAbort(signal: AbortSignal | undefined, call: () => void): () => void {
  if (signal === undefined) return () => {}
  if (signal.aborted) {
    call()
    return () => {}
  }
  const { calls, stop } = WAITERS.get(signal) ?? listen(signal)
  const waiter = () => call() // the same function may be given twice
  calls.add(waiter)
  return () => {
    if (calls.delete(waiter) && calls.size === 0) stop()
  }
}

function listen(signal: AbortSignal): Waiters {
  const calls = new Set<() => void>()
  const abort = () => {
    stop()
    const all = [...calls]
    calls.clear()
    for (const call of all) call()
  }
  const stop = () => {
    signal.removeEventListener('abort', abort)
    WAITERS.delete(signal)
  }
  signal.addEventListener('abort', abort, { once: true })
  const waiters = { calls, stop }
  WAITERS.set(signal, waiters)
  return waiters
}

/** @param what was aborted, as a message begins: "the opening" @throws ImplexError ERR_ABORTED */
export function throwIfAborted(signal: AbortSignal | undefined, what: string): void {
  if (signal?.aborted) throw aborted(signal, what)
}

/** The promise's outcome, or ERR_ABORTED as soon as the signal is aborted. What the promise does afterwards is of no interest. */
export function untilAborted<T>(promise: Promise<T>, signal: AbortSignal | undefined, what: string): Promise<T> {
  if (signal === undefined) return promise
  return new Promise<T>((resolve, reject) => {
    const off = onAbort(signal, () => reject(aborted(signal, what)))
    promise.then(resolve, reject).finally(off)
  })
}

function aborted(signal: AbortSignal, what: string): ImplexError {
  return new ImplexError('ERR_ABORTED', `${what} was aborted`, { cause: signal.reason })
}

/**
 * What nvidia-smi says of the GPUs: for results, and for memory in use while another process works.
 */
import { execFile } from 'node:child_process'
import { promisify } from 'node:util'

export interface Gpu {
  name: string
  driver: string
  memoryMiB: number
  computeCapability: string
  /** Now; in watts, degrees and MHz. NaN where the device does not tell. */
  power: number
  temperature: number
  smClock: number
}

const FIELDS = [
  'name',
  'driver_version',
  'memory.total',
  'compute_cap',
  'power.draw',
  'temperature.gpu',
  'clocks.sm',
] as const

async function query(fields: readonly string[]): Promise<string[][]> {
  const args = [`--query-gpu=${fields.join(',')}`, '--format=csv,noheader,nounits']
  try {
    const { stdout } = await promisify(execFile)('nvidia-smi', args, { timeout: 20_000 })
    return stdout
      .split('\n')
      .filter((line) => line.trim() !== '')
      .map((line) => line.split(',').map((cell) => cell.trim()))
  } catch {
    return []
  }
}

/** Empty if there is no nvidia-smi or no GPU. */
export async function gpus(): Promise<Gpu[]> {
  return (await query(FIELDS)).map(([name, driver, memory, capability, power, temperature, clock]) => ({
    name: name ?? '',
    driver: driver ?? '',
    memoryMiB: Number(memory),
    computeCapability: capability ?? '',
    power: Number(power),
    temperature: Number(temperature),
    smClock: Number(clock),
  }))
}

/** Memory of the first GPU in use by all processes, in MiB; undefined if nvidia-smi does not report it. */
export async function usedMiB(): Promise<number | undefined> {
  const [first] = await query(['memory.used'])
  return first === undefined ? undefined : Number(first[0])
}

/**
 * Decides which device a model runs on, from the user's choice and the available devices, and explains why.
 */
import { existsSync } from 'node:fs'
import { join, resolve } from 'node:path'
import type { ModelSpec } from './spec.js'
import { type Model, openModel, openTrainer, type Trainer } from './handles.js'
import { nativeLocation } from './load.js'
import type { Cancellation, NativeTrainOptions, OpenOptions } from './types.js'
import { ImplexError } from '../core/errors.js'

export const DEVICES = ['auto', 'cpu', 'cuda'] as const
export type DeviceName = Exclude<(typeof DEVICES)[number], 'auto'>
export const DTYPES = ['f32', 'bf16'] as const
export type DType = (typeof DTYPES)[number]

/** A model or trainer that was opened, and its device. */
export interface OnDevice<T> {
  model: T
  device: DeviceName
  /** Why 'auto' did not choose the GPU. */
  fallbackReason?: string
}

export interface DeviceChoice {
  device: 'auto' | DeviceName
  dtype: DType
}

/**
 * Whether the CUDA device has passed its tests on a GPU. It has not: its sources compile and agree with the CPU on an emulated GPU, which is
 * not hardware. Until then 'auto' leaves it alone; 'cuda' asks for it. Set it with the results of `npm run test:gpu` at hand.
 */
export const CUDA_VERIFIED = false
export const CUDA_UNVERIFIED = 'the CUDA device has not been verified on hardware yet; to use it, give --device cuda'

/** Path of the CUDA module, a separate shared library: IMPLEX_CUDA if it is set, otherwise the place where a CMake build puts it. */
export function cudaModulePath(): string {
  const override = process.env.IMPLEX_CUDA
  if (override) return resolve(override)
  const { root } = nativeLocation()
  const installed = join(root, 'build-cmake', 'Release', 'implex_cuda.so')
  const built = join(root, 'build-cuda', 'implex_cuda.so')
  return !existsSync(installed) && existsSync(built) ? built : installed
}

/** Most tokens in a batch where the caller does not say: enough to keep the device busy. It changes speed and memory only. */
export function defaultBatchTokens(device: DeviceName): number {
  return device === 'cpu' ? 4096 : 16384
}

/**
 * Opens the model on the device asked for. 'auto' takes CUDA where its module exists, is verified and works, else the CPU, and says why.
 * @throws ImplexError ERR_DEVICE_UNAVAILABLE when 'cuda' was asked for and cannot be had, and what openModel throws
 */
export function openOnDevice(spec: ModelSpec, choice: DeviceChoice, cancel?: Cancellation): Promise<OnDevice<Model>> {
  return onDevice(choice, (options) => openModel(spec, options, cancel))
}

/** Like openOnDevice, for a model to be trained. */
export function openTrainerOnDevice(
  spec: ModelSpec,
  choice: DeviceChoice,
  train: NativeTrainOptions,
  cancel?: Cancellation,
): Promise<OnDevice<Trainer>> {
  return onDevice(choice, (options) => openTrainer(spec, options, train, cancel))
}

async function onDevice<T>(
  { device, dtype }: DeviceChoice,
  open: (options: OpenOptions) => Promise<T>,
): Promise<OnDevice<T>> {
  const onCpu = async (fallbackReason?: string): Promise<OnDevice<T>> => {
    const model = await open({ device: 'cpu', dtype })
    return { model, device: 'cpu', ...(fallbackReason === undefined ? {} : { fallbackReason }) }
  }
  if (device === 'cpu') return onCpu()

  const devicePath = cudaModulePath()
  if (!existsSync(devicePath)) {
    const reason = `there is no CUDA module at ${devicePath}`
    if (device === 'auto') return onCpu(reason)
    throw new ImplexError('ERR_DEVICE_UNAVAILABLE', `${reason}; run \`implex doctor\` to see what is missing`, {
      path: devicePath,
    })
  }
  if (device === 'auto' && !CUDA_VERIFIED) return onCpu(CUDA_UNVERIFIED)
  try {
    return { model: await open({ device: 'cuda', devicePath, dtype }), device: 'cuda' }
  } catch (error) {
    if (device === 'cuda' || !(error instanceof ImplexError) || !DEVICE_FAILURES.has(error.code)) throw error
    return onCpu(error.message)
  }
}

/** Codes of errors that another device may avoid. A damaged checkpoint is damaged on every device. */
const DEVICE_FAILURES = new Set(['ERR_DEVICE_UNAVAILABLE', 'ERR_OUT_OF_MEMORY'])

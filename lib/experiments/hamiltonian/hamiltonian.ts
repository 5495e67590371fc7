export async function hamiltonianExperiment(): Promise<never> {
  throw new Error('x')
}

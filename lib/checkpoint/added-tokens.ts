export async function withAddedTokens(model: string, _tokens: readonly string[], folder: string): Promise<void> {
  const { saveModel } = await import('../runs/save-model.js')
  const { openCheckpoint } = await import('./checkpoint.js')
  const { RowEncoder } = await import('../text/text-encoder.js')
  const encoder = await RowEncoder.load({ path: model })
  const checkpoint = await openCheckpoint(model, { addedTokens: encoder.addedTokens.length })
  await saveModel(folder, { parameters: [], parameter: () => Promise.reject(new Error('none')) }, checkpoint, encoder, {
    explicit: false,
    dtype: 'f32',
  })
}

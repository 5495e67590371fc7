/**
 * The names of row shapes, for --rows and the option `rows`. table.ts has what each of them is.
 */
export const ROW_SHAPE_NAMES = [
  'pair',
  'group',
  'implicit',
  'completion',
  'stepwise',
  'lists',
  'judgebench',
  'hh-rlhf',
  'hh-rlhf-prompt',
  'helpsteer2',
  'helpsteer3',
  'shp',
  'pku-saferlhf',
  'nectar',
  'ultrafeedback',
  'argilla',
  'orca',
  'distilabel-orca',
  'alpaca',
  'alpaca-output',
  'sharegpt',
  'ms-swift',
  'ms-swift-messages',
  'ms-swift-query',
  'openai',
] as const

export type RowShapeName = (typeof ROW_SHAPE_NAMES)[number]

/** `auto`: each row's keys tell. */
export type RowsOption = 'auto' | RowShapeName
export const ROWS_OPTIONS: readonly RowsOption[] = ['auto', ...ROW_SHAPE_NAMES]

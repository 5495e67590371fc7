/**
 * The sentences below the tables that experiments add to their results. docs/experiments.md shows them too, also below tables that were recorded
 * with older words.
 */
export const SEPARATION = {
  title: 'Hidden states before training: cosine with the max-margin separator',
  note:
    'The separator belongs to h(chosen) - h(rejected) over the training pairs. An explicit head moves toward it when hidden states are ' +
    'fixed. A cosine above 0 means that it would rank the pair correctly.',
}

export const PREDICTIONS = {
  title: 'Predicted against measured',
  note:
    'Hidden states are fixed, so plain gradient descent moves only the head or the unembedding. If the prediction is not 0, the error is ' +
    'relative, over all compared values (‖measured - predicted‖ / ‖predicted‖). The table shows the value with the largest prediction.',
}

export const CYCLES_BEFORE = {
  title: 'Cycles written before training',
  note: 'One sample per test graph at temperature 1.',
}

export const CYCLES_AFTER = {
  title: 'Cycles written by the implicit reward model',
  note: CYCLES_BEFORE.note,
}

/** All scenarios of the soak. */
import { apiScenarios } from './api.js'
import type { Scenario } from './ground.js'
import { interruptionScenarios } from './interruptions.js'
import { pathScenarios } from './paths.js'
import { streamScenarios } from './streams.js'

export const SCENARIOS: readonly Scenario[] = [
  ...interruptionScenarios,
  ...pathScenarios,
  ...streamScenarios,
  ...apiScenarios,
]

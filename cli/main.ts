#!/usr/bin/env node
/**
 * The program `implex`.
 */
import { runCommand } from './program.js'

// Diagnostics never end the work: their reader may have gone (`2>&1 | head`).
process.stderr.on('error', () => {})
const status = await runCommand(process.argv.slice(2))
// Exits explicitly: a standard input that nobody reads any more would keep the event loop alive.
process.exit(status)

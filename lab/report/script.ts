/**
 * The page's script; without it everything can be read as well. It switches between light and dark, and moves the focus between the tokens of
 * a response, which are one stop of the tab key together.
 */
export const SCRIPT = `
'use strict'
const root = document.documentElement
const button = document.getElementById('scheme')
const system = matchMedia('(prefers-color-scheme: dark)')
const dark = () => (root.dataset.scheme ? root.dataset.scheme === 'dark' : system.matches)
const name = () => { button.textContent = dark() ? 'Light colors' : 'Dark colors' }
const stored = (value) => {
  try {
    if (value) localStorage.setItem('implex-scheme', value)
    return localStorage.getItem('implex-scheme')
  } catch { return null }
}
const before = stored()
if (before === 'dark' || before === 'light') root.dataset.scheme = before
button.hidden = false
name()
system.addEventListener('change', name)
button.addEventListener('click', () => {
  root.dataset.scheme = dark() ? 'light' : 'dark'
  stored(root.dataset.scheme)
  name()
})
document.addEventListener('keydown', (event) => {
  const token = event.target.closest('.tokens > li')
  if (!token || event.altKey || event.ctrlKey || event.metaKey) return
  const all = [...token.parentElement.children]
  const step = token.parentElement.dir === 'rtl' ? -1 : 1
  const to = { ArrowRight: all.indexOf(token) + step, ArrowLeft: all.indexOf(token) - step, Home: 0, End: all.length - 1 }[event.key]
  if (to === undefined) return
  event.preventDefault()
  const next = all[to]
  if (!next) return
  token.tabIndex = -1
  next.tabIndex = 0
  next.focus()
})
`.trim()

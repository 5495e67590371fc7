/**
 * The page's style sheet, and the part of it that figures in files of their own need too. Colors are properties that palette.ts declares for
 * the light scheme, the dark one, and the one that the button chose.
 */
import { COLORS, declarations } from './palette.js'

const names = Object.keys(COLORS)

/** The style of figures. Each class stands for one color or one text style. */
export const FIGURE_STYLE = `
svg text{font-size:12.5px;fill:var(--ink)}
svg .small{font-size:11px}svg .bold{font-weight:600}svg .muted{fill:var(--muted)}
svg path{fill:none;stroke-linejoin:round}
svg .thin{opacity:.4}
${names
  .map(
    (name) =>
      `svg .stroke-${name}{stroke:var(--${name})}svg .fill-${name}{fill:var(--${name})}` +
      `svg .hollow-${name},svg .outline-${name}{fill:var(--paper);stroke:var(--${name})}svg .bar-${name}{fill:var(--${name});opacity:.28}` +
      `svg text.ink-${name}{fill:var(--${name})}`,
  )
  .join('\n')}`.trim()

/** Percent of the full color, limited so that the text on it stays readable. */
const strength = (i: number) => Math.round((i / 8) * 64)
const shades = Array.from({ length: 8 }, (_, i) => i + 1)
  .map(
    (i) =>
      `.p${i}{background:color-mix(in srgb,var(--positive) ${strength(i)}%,var(--paper));border-bottom-color:var(--positive)}` +
      `.n${i}{background:color-mix(in srgb,var(--negative) ${strength(i)}%,var(--paper));border-bottom:2px dashed var(--negative)}`,
  )
  .join('\n')

export const STYLE = `
:root{color-scheme:light;${declarations(0)};--sans:system-ui,-apple-system,"Segoe UI",Roboto,"Helvetica Neue","Noto Sans","Liberation Sans",Arial,sans-serif;--mono:ui-monospace,SFMono-Regular,Menlo,Consolas,"Liberation Mono",monospace}
@media (prefers-color-scheme:dark){:root:not([data-scheme=light]){color-scheme:dark;${declarations(1)}}}
:root[data-scheme=dark]{color-scheme:dark;${declarations(1)}}
*{box-sizing:border-box}
html{-webkit-text-size-adjust:100%}
body{margin:0;background:var(--paper);color:var(--ink);font:16px/1.6 var(--sans);overflow-wrap:break-word}
a{color:var(--link);text-underline-offset:.15em}
:focus-visible{outline:3px solid var(--link);outline-offset:2px;border-radius:3px}
.skip{position:absolute;left:1rem;top:-4rem;background:var(--paper);padding:.5rem 1rem;z-index:9}.skip:focus{top:1rem}
.page{max-width:1240px;margin:0 auto;padding:0 1rem 4rem}
.bar{display:flex;justify-content:space-between;align-items:center;gap:1rem;padding:1rem 0;color:var(--muted);font-size:.875rem}
.bar .brand{font-weight:600;letter-spacing:.01em}
button{font:inherit;color:var(--ink);background:var(--panel);border:1px solid var(--line);border-radius:999px;padding:.3rem .95rem;cursor:pointer}
button:hover{border-color:var(--muted)}
h1,h2,h3,h4,h5,h6{line-height:1.25;text-wrap:balance;margin:0;font-weight:650}
h1{font-size:clamp(1.6rem,1.2rem + 1.8vw,2.4rem);letter-spacing:-.015em;margin:.15rem 0 1rem}
h2{font-size:1.4rem;letter-spacing:-.01em;margin:0 0 1rem}
h3{font-size:1.08rem;margin:2rem 0 .6rem}
h4{font-size:1rem;margin:0 0 .5rem}h3::first-letter,h4::first-letter{text-transform:uppercase}main :is(h3,h4):not(:first-child){margin-top:2rem}
h5,h6{font-size:.92rem;margin:0 0 .5rem}
p,figcaption,.notes{max-width:72ch}
p{margin:0 0 1rem}
.eyebrow{color:var(--muted);font-size:.875rem;margin:1.2rem 0 0}
.who{display:block;color:var(--muted);font-size:.8rem;font-weight:600;letter-spacing:.02em;margin-bottom:.1rem}
.question{font-size:1.05rem}
.headline{font-size:1.2rem;line-height:1.5;background:var(--tint);border-left:4px solid var(--link);border-radius:0 8px 8px 0;padding:.9rem 1.2rem;max-width:none}
main section.part{padding:2.6rem 0 0}
main section.part>:first-child{border-top:1px solid var(--line);padding-top:1.1rem;margin-top:0}
.run+.run{margin-top:4rem;border-top:3px solid var(--ink);padding-top:1.5rem}
nav{font-size:.9rem}nav h2{font-size:.8rem;color:var(--muted);margin:0 0 .5rem;letter-spacing:.02em}
nav ul{list-style:none;margin:0;padding:0}nav ul ul{padding-left:.9rem;margin-bottom:.6rem}nav li{margin:.1rem 0}
nav a{display:block;padding:.2rem 0;color:var(--ink);text-decoration:none}nav a:hover{color:var(--link);text-decoration:underline}
@media (max-width:1179px){nav{border:1px solid var(--line);border-radius:10px;padding:.8rem 1.1rem;margin-bottom:1.5rem}nav li{display:inline-block;margin-right:1.2rem}nav .whole{display:block}}
.facts{display:grid;grid-template-columns:repeat(auto-fill,minmax(min(11.5rem,45%),1fr));gap:.9rem 1.2rem;margin:0 0 1.2rem}
.facts dt{color:var(--muted);font-size:.8rem;font-weight:600}.facts dd{margin:0;min-width:0;overflow-wrap:anywhere}
.aside{color:var(--muted);font-size:.875rem;display:block}
.shifts{display:grid;grid-template-columns:repeat(auto-fill,minmax(min(100%,22rem),1fr));gap:.6rem 2rem;max-width:none;margin:0 0 1.2rem}.shifts dt{font-weight:600}.shifts dd{margin:0;max-width:60ch;color:var(--muted)}
figure{margin:0 0 1.2rem;container-type:inline-size}
svg{display:block;width:100%;height:auto;font-family:var(--sans)}
svg.wide{max-width:1080px}svg.narrow{max-width:460px;display:none}
@container (max-width:700px){svg.wide{display:none}svg.narrow{display:block}}
figcaption{color:var(--muted);font-size:.9rem;margin-top:.8rem}
${FIGURE_STYLE}
.ink-explicit{color:var(--explicit)}.ink-implicit{color:var(--implicit)}.ink-generative{color:var(--generative)}.ink-sft{color:var(--sft)}
.scroll{overflow-x:auto;margin:0 0 1.2rem;border-radius:6px}
table{border-collapse:collapse;font-size:.9rem;font-variant-numeric:tabular-nums;min-width:min(100%,30rem)}
caption{text-align:left;color:var(--muted);font-size:.85rem;padding:.2rem 0 .5rem;white-space:nowrap}
th,td{padding:.4rem 1.6rem .4rem 0;text-align:left;vertical-align:top;border-bottom:1px solid var(--grid);font-weight:400;overflow-wrap:break-word;max-width:34rem}
tbody th{min-width:8.5rem}tbody th.n{min-width:0}
thead th{color:var(--muted);font-size:.8rem;font-weight:600;border-bottom-color:var(--line);vertical-align:bottom}
th.n,td.n{text-align:right;white-space:nowrap}
.absent{color:var(--muted)}
details{margin:0 0 1rem}summary{cursor:pointer;color:var(--link);padding:.25rem 0;width:fit-content}
details[open]>summary{margin-bottom:.6rem}
.more>summary{margin-bottom:.6rem}
pre{background:var(--panel);border:1px solid var(--line);border-radius:8px;padding:.9rem 1.1rem;font:.875rem/1.6 var(--mono)}
code{font-family:var(--mono);font-size:.92em}pre code{font-size:1em}
.notes{padding-left:1.2rem}.notes li{margin:.35rem 0}
.legend{background:var(--panel);border-radius:10px;padding:1rem 1.2rem .2rem;font-size:.9rem;margin:0 0 1rem}
.legend{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(100%,22rem),1fr));gap:0 2.5rem}.legend .keys{grid-column:1/-1}
.scale{display:flex;margin:.1rem 0 .45rem;height:1.5rem}:where(.scale i){width:.8rem;border-bottom:2px solid transparent}:where(.scale .step){width:1.6rem;border:0}
.pair{border:1px solid var(--line);border-radius:10px;padding:1.1rem 1.2rem .4rem;margin:0 0 1.2rem}
.prompt{white-space:pre-wrap;overflow-wrap:anywhere;max-height:16em;overflow:auto}
.verdict{list-style:none;margin:0 0 1rem;padding:0;display:flex;flex-wrap:wrap;gap:.2rem 1.8rem;font-size:.92rem}
.margin{color:var(--muted)}
.sides{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(100%,24rem),1fr));gap:1rem 2rem}
.side{min-width:0}
.rewards{font-weight:400;font-size:.88rem}.rewards span{margin-left:.8rem;white-space:nowrap}
.box{position:relative;padding-bottom:2rem;margin:0 0 .8rem}
.tokens{list-style:none;margin:0;padding:0;line-height:1.4}
.tokens li{display:inline-block;vertical-align:top;max-width:100%;margin-bottom:.35rem;cursor:default}
.word{display:block;white-space:pre-wrap;overflow-wrap:anywhere;border-bottom:2px solid transparent;margin-inline-end:1px}
.tokens li:hover .word{box-shadow:inset 0 0 0 1px var(--muted)}
.tokens li:focus-visible{outline-offset:0}
${shades}
.step{display:block;height:1.5rem;background:linear-gradient(var(--explicit) 0 0) 0 calc((1 - var(--h))*100%)/100% 2px no-repeat,linear-gradient(color-mix(in srgb,var(--explicit) 15%,transparent) 0 0) 0 100%/100% calc(var(--h)*100%) no-repeat}
.full,.tip{position:absolute;left:0;right:0;bottom:0;height:1.7rem;line-height:1.7rem;font-size:.85rem;white-space:nowrap;overflow:hidden;text-overflow:ellipsis;margin:0}
.full,.cut{color:var(--muted)}.cut{font-size:.85rem}
.tip{z-index:1;direction:ltr;background:var(--paper);color:var(--ink);opacity:0;pointer-events:none;font-variant-numeric:tabular-nums}
.tokens li:focus .tip,.tokens li:hover .tip{opacity:1}.tokens:hover li:focus:not(:hover) .tip{opacity:0}
bdi.token{white-space:pre-wrap}
footer{color:var(--muted);font-size:.85rem;margin-top:3.5rem;border-top:1px solid var(--line);padding-top:1rem}
@media (min-width:1180px){
.page{display:grid;grid-template-columns:13.5rem minmax(0,1fr);column-gap:3.5rem;max-width:1400px;padding:0 2rem 4rem}
.bar,footer{grid-column:1/-1}
nav{position:sticky;top:1.5rem;align-self:start;margin:1.6rem 0 0;max-height:calc(100vh - 3rem);overflow-y:auto}
}
@media print{
@page{margin:16mm}
/* Three times, to outweigh both ways of being dark. */
:root:root:root{color-scheme:light;${declarations(0)}}
body{font-size:10.5pt}button,nav,.skip,.keys,summary{display:none}
.page{display:block;max-width:none;padding:0}
figure,.pair,tr,pre{break-inside:avoid}h2,h3,h4{break-after:avoid}
.scroll,.prompt{overflow:visible;max-height:none}
.tip{display:none}
*{print-color-adjust:exact;-webkit-print-color-adjust:exact}
}
`.trim()

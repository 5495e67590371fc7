/**
 * The page's style sheet, and the part of it that figures in files of their own need too. Colours are properties that palette.ts declares for
 * the light scheme, the dark one, and the one that the button chose.
 */
import { COLOURS, declarations } from './palette.js'

const names = Object.keys(COLOURS)

/** Of figures; each class stands for one colour or one way of writing. */
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

const shade = (i: number) => Math.round((i / 8) * 100)
const shades = Array.from({ length: 8 }, (_, i) => i + 1)
  .map(
    (i) =>
      `.p${i}{background:color-mix(in srgb,var(--positive) ${shade(i) * 0.62}%,var(--paper));border-bottom:2px solid var(--positive)}` +
      `.n${i}{background:color-mix(in srgb,var(--negative) ${shade(i) * 0.62}%,var(--paper));border-bottom:2px dashed var(--negative)}`,
  )
  .join('\n')

export const STYLE = `
:root{color-scheme:light;${declarations(0)};--sans:system-ui,-apple-system,"Segoe UI",Roboto,"Helvetica Neue","Noto Sans","Liberation Sans",Arial,sans-serif;--mono:ui-monospace,SFMono-Regular,Menlo,Consolas,"Liberation Mono",monospace}
@media (prefers-color-scheme:dark){:root:not([data-scheme=light]){color-scheme:dark;${declarations(1)}}}
:root[data-scheme=dark]{color-scheme:dark;${declarations(1)}}
*{box-sizing:border-box}
html{scroll-behavior:smooth;-webkit-text-size-adjust:100%}
@media (prefers-reduced-motion:reduce){html{scroll-behavior:auto}}
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
h4{font-size:1rem;margin:0 0 .5rem}h5,h6{font-size:.92rem;margin:0 0 .5rem}
p,figcaption,.notes,.shifts{max-width:72ch}
p{margin:0 0 1rem}
.eyebrow{color:var(--muted);font-size:.875rem;margin:1.2rem 0 0}
.who{display:block;color:var(--muted);font-size:.8rem;font-weight:600;letter-spacing:.02em;margin-bottom:.1rem}
.question{font-size:1.05rem}
.headline{font-size:1.2rem;line-height:1.5;background:var(--tint);border-left:4px solid var(--link);border-radius:0 8px 8px 0;padding:.9rem 1.2rem;max-width:none}
main section.part{padding:2.6rem 0 0}
main section.part>h2,main section.part>h3{border-top:1px solid var(--line);padding-top:1.1rem;margin-top:0}
.run+.run{margin-top:4rem;border-top:3px solid var(--ink);padding-top:1.5rem}
nav{font-size:.9rem}nav h2{font-size:.8rem;color:var(--muted);margin:0 0 .5rem;letter-spacing:.02em}
nav ul{list-style:none;margin:0;padding:0}nav ul ul{padding-left:.9rem;margin-bottom:.6rem}nav li{margin:.1rem 0}
nav a{display:block;padding:.2rem 0;color:var(--ink);text-decoration:none}nav a:hover{color:var(--link);text-decoration:underline}
nav{border:1px solid var(--line);border-radius:10px;padding:.9rem 1.1rem;margin:1.5rem 0 0}
nav .inner{columns:14rem;column-gap:2rem}
.facts{display:grid;grid-template-columns:repeat(auto-fill,minmax(min(100%,15rem),1fr));gap:.9rem 1.6rem;margin:0 0 1.2rem}
.facts dt{color:var(--muted);font-size:.8rem;font-weight:600}.facts dd{margin:0;min-width:0;overflow-wrap:anywhere}
.aside{color:var(--muted);font-size:.875rem;display:block}
.shifts dt{font-weight:600}.shifts dd{margin:0 0 .7rem;color:var(--muted)}
figure{margin:0 0 1.2rem;container-type:inline-size}
svg{display:block;width:100%;height:auto;font-family:var(--sans)}
svg.wide{max-width:980px}svg.narrow{max-width:460px;display:none}
@container (max-width:700px){svg.wide{display:none}svg.narrow{display:block}}
figcaption{color:var(--muted);font-size:.9rem;margin-top:.8rem}
${FIGURE_STYLE}
.ink-explicit{color:var(--explicit)}.ink-implicit{color:var(--implicit)}.ink-generative{color:var(--generative)}.ink-sft{color:var(--sft)}
.scroll{overflow-x:auto;margin:0 0 1.2rem;border-radius:6px}
table{border-collapse:collapse;font-size:.9rem;font-variant-numeric:tabular-nums;min-width:min(100%,30rem)}
caption{text-align:left;color:var(--muted);font-size:.85rem;padding:.2rem 0 .5rem;white-space:nowrap}
th,td{padding:.4rem .9rem .4rem 0;text-align:left;vertical-align:top;border-bottom:1px solid var(--grid);font-weight:400;overflow-wrap:break-word;max-width:34rem}
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
.legend p{max-width:80ch}
.scale{display:inline-flex;vertical-align:-.35em;margin-right:.5rem}.scale i{width:.7rem;height:1.15rem;border-bottom-width:2px}
.scale .step{width:1.4rem}
.pair{border:1px solid var(--line);border-radius:10px;padding:1.1rem 1.2rem .4rem;margin:0 0 1.2rem}
.prompt{white-space:pre-wrap;overflow-wrap:anywhere;max-height:16em;overflow:auto}
.verdict{list-style:none;margin:0 0 1rem;padding:0;display:flex;flex-wrap:wrap;gap:.2rem 1.8rem;font-size:.92rem}
.margin{color:var(--muted)}
.sides{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(100%,24rem),1fr));gap:1rem 2rem}
.side{min-width:0}
.rewards{font-weight:400;font-size:.88rem}.rewards span{margin-left:.8rem;white-space:nowrap}
.tokens{list-style:none;margin:0;padding:0 0 2.1rem;position:relative;line-height:1.35;font-size:.98rem}
.tokens li{display:inline-block;vertical-align:top;white-space:pre-wrap;overflow-wrap:anywhere;max-width:100%;border-bottom:2px solid transparent;cursor:default;border-radius:2px 2px 0 0;margin-bottom:.3rem}
.tokens.steps li{padding-bottom:1.05rem;background-clip:padding-box;position:static;margin-bottom:.45rem}
.tokens li:focus-visible{outline-offset:0;z-index:2}
${shades}
.step{display:block}
.tip{position:absolute;inset:auto 0 .1rem 0;direction:ltr;background:var(--paper);color:var(--ink);font-size:.85rem;padding:.25rem 0;opacity:0;pointer-events:none;white-space:nowrap;overflow:hidden;text-overflow:ellipsis;font-variant-numeric:tabular-nums}
.tokens li:focus .tip{opacity:1}.tokens:hover li:focus:not(:hover) .tip{opacity:0}.tokens li:hover .tip{opacity:1}
.full,.cut{color:var(--muted);font-size:.82rem;margin:0 0 .6rem}
bdi.token{white-space:pre-wrap}
footer{color:var(--muted);font-size:.85rem;margin-top:3.5rem;border-top:1px solid var(--line);padding-top:1rem}
@media (min-width:1180px){
.page{display:grid;grid-template-columns:13.5rem minmax(0,1fr);column-gap:3.5rem;max-width:1400px;padding:0 2rem 4rem}
.bar,footer{grid-column:1/-1}
nav{position:sticky;top:1.5rem;align-self:start;border:0;padding:0;margin:1.6rem 0 0;max-height:calc(100vh - 3rem);overflow-y:auto}
nav .inner{columns:auto}
}
@media print{
:root,:root[data-scheme=dark]{color-scheme:light;${declarations(0)}}
body{font-size:10.5pt}button,nav,.skip,.keys,summary{display:none}
.page{display:block;max-width:none;padding:0}
figure,.pair,tr,pre{break-inside:avoid}h2,h3,h4{break-after:avoid}
.scroll,.prompt{overflow:visible;max-height:none}
.tokens{padding-bottom:0}.tip{display:none}
*{print-color-adjust:exact;-webkit-print-color-adjust:exact}
}
`.trim()

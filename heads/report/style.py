"""The style sheet of a page: light, dark, and on paper. Every text has a contrast of 4.5 or more against its ground."""

__all__ = ["STYLE"]

STYLE = """
:root { color-scheme: light dark; --ground: #ffffff; --ink: #1b1f24; --soft: #5a626c; --rule: #c9ced6;
  --grid: #e3e6ea;
  --arm: #1d5fa8; --base: #6d7681; --train: #a35a00; --mark: #b3261e; --note: #fff4d6; --note-ink: #5c4300;
  --band: #f5f7f9;
  --d0: #e4eef8; --d1: #c9dff1; --d2: #a5cae6; --d3: #79aed8; --d4: #4f90c6; --d5: #2f72b0; --d6: #1b5591;
  --d7: #0b3768; }
@media (prefers-color-scheme: dark) { :root { --ground: #14171b; --ink: #e7eaee; --soft: #a5adb8; --rule: #454c56;
  --grid: #2a2f37; --arm: #7db4f0; --base: #9aa4b1; --train: #e3a04a; --mark: #ff8a80; --note: #3b3110;
  --note-ink: #ffe3a1;
  --band: #1c2026;
  --d0: #16283b; --d1: #1b3a57; --d2: #215078; --d3: #2c6a9c; --d4: #4387bd; --d5: #69a7d8; --d6: #9ac8ec;
  --d7: #d3e8fa; } }
@media print { :root { color-scheme: light; --ground: #ffffff; --ink: #000000; --soft: #444444; --rule: #999999;
  --grid: #dddddd; --arm: #1d5fa8; --base: #666666; --train: #a35a00; --mark: #b3261e; --note: #fff4d6;
  --note-ink: #5c4300;
  --band: #ffffff;
  --d0: #e4eef8; --d1: #c9dff1; --d2: #a5cae6; --d3: #79aed8; --d4: #4f90c6; --d5: #2f72b0; --d6: #1b5591;
  --d7: #0b3768; }
  nav { display: none; } svg, tr, figure { break-inside: avoid; } h2, h3, caption { break-after: avoid; }
  body { max-width: none; padding: 0; font-size: 10pt; } .wide { overflow: visible;
  } table.results { font-size: 7pt; } }
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 1.5rem; max-width: 82rem; background: var(--ground); color: var(--ink);
  font: 15px/1.5 system-ui, "Segoe UI", "Helvetica Neue", Arial, sans-serif; }
h1 { font-size: 1.7rem; line-height: 1.2; margin: 0 0 .3rem; overflow-wrap: anywhere; }
h2 { font-size: 1.25rem; margin: 2.4rem 0 .6rem; padding-top: .6rem; border-top: 1px solid var(--rule); }
p { margin: .3rem 0; max-width: 60rem; }
a { color: var(--arm); }
nav { display: flex; flex-wrap: wrap; gap: 0 1rem; }
nav a { white-space: nowrap; }
.banner { background: var(--note); color: var(--note-ink); border-left: .4rem solid var(--mark); padding: .6rem .9rem;
  margin: .8rem 0; font-weight: 600; overflow-wrap: anywhere; }
.banner p { max-width: none; }
.beside { color: var(--mark); font-weight: 600; overflow-wrap: anywhere; }
.soft { color: var(--soft); overflow-wrap: anywhere; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; font-size: .87rem; font-variant-numeric: tabular-nums; margin: .6rem 0; }
caption { text-align: left; color: var(--soft); padding-bottom: .4rem; }
th, td { padding: .25rem .6rem; text-align: right; border-bottom: 1px solid var(--grid); white-space: nowrap; }
thead th { vertical-align: bottom; border-bottom: 2px solid var(--rule); white-space: normal; max-width: 11rem;
  overflow-wrap: break-word; }
tr > :first-child { text-align: left; white-space: normal; min-width: 9rem; max-width: 22rem; overflow-wrap: anywhere;
  font-weight: 600; }
table.facts td, table.settings td, table.settings th { text-align: left; white-space: normal; overflow-wrap: anywhere; }
table.facts tr > :first-child { font-weight: 400; color: var(--soft); min-width: 0; vertical-align: top; }
tr.group th { padding-top: .8rem; color: var(--soft); }
tbody tr:hover { background: var(--band); }
figure { margin: .4rem 0; }
.charts { display: grid; grid-template-columns: repeat(auto-fill, minmax(24rem, 1fr)); gap: 1.2rem 1.6rem; }
svg { display: block; max-width: 100%; height: auto;
  font: 12px system-ui, "Segoe UI", "Helvetica Neue", Arial, sans-serif; }
.wide svg { max-width: none; }
.phone { display: none; }
@media screen and (max-width: 40rem) { .desk { display: none; } .phone { display: block; } body { padding: 1rem; } }
text { fill: var(--ink); }
text.tick, text.axis { fill: var(--soft); font-size: 11px; }
text.small { font-size: 11px; }
text.title { font-size: 14px; font-weight: 600; }
text.number { font-variant-numeric: tabular-nums; }
.grid { stroke: var(--grid); fill: none; }
.zero { stroke: var(--soft); fill: none; }
.planted { stroke: var(--train); stroke-width: 3; fill: none; }
.rule { stroke: var(--rule); fill: none; }
.equal { stroke: var(--soft); stroke-dasharray: 4 3; fill: none; }
.arm.dot, .arm.bar { fill: var(--arm); }
.base.dot, .base.bar { fill: var(--base); }
.bar { fill-opacity: .62; }
.whisker { fill: none; stroke-width: 1.6; }
.arm.whisker { stroke: var(--arm); }
.base.whisker { stroke: var(--base); }
.over.whisker { stroke: var(--ink); stroke-width: 1.2; }
.curve { fill: none; stroke-width: 1.3; stroke-opacity: .85; }
.arm.curve { stroke: var(--arm); }
.train.curve { stroke: var(--train); stroke-dasharray: 3 2; }
.spread { stroke: var(--arm); stroke-width: 2; fill: none; }
.means { stroke: var(--mark); fill: none; stroke-width: 1.4; }
.mean { fill: var(--mark); stroke: var(--ground); stroke-width: .8; }
.squares path { fill: none; stroke-width: 1; shape-rendering: crispEdges; }
.d0 { stroke: var(--d0); } .d1 { stroke: var(--d1); } .d2 { stroke: var(--d2); } .d3 { stroke: var(--d3); }
.d4 { stroke: var(--d4); } .d5 { stroke: var(--d5); } .d6 { stroke: var(--d6); } .d7 { stroke: var(--d7); }
.key { display: inline-block; width: 1.6rem; height: 0; border-top: 3px solid var(--arm); vertical-align: middle; }
.key.dashed { border-top: 3px dashed var(--train); }
details { margin: .5rem 0; }
summary { cursor: pointer; font-weight: 600; }
pre { background: var(--band); padding: .8rem; overflow-x: auto; font-size: .8rem; line-height: 1.35;
  white-space: pre-wrap;
  overflow-wrap: anywhere; }
"""

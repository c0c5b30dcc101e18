"""How pages look, on screens and on paper, and the colours of pictures.

Blue and vermilion are of the palette of M. Okabe and K. Ito (Color Universal
Design, 2008), which colour-blind people tell apart. Text has a contrast of 4.5
or more on its ground (WCAG 2.2, 1.4.3).
"""

BLUE = '#0072b2'
VERMILION = '#d55e00'
INK = '#1d2730'
MUTED = '#5b6773'
LINE = '#d5dbe1'
GROUND = '#ffffff'
# Of the labels that people and critics give; white can be read on each.
LABEL_COLOURS = {'Good': '#00614a', 'Normal': '#5b6773', 'Bad': '#a33c00'}

STYLE = (
  f':root{{--blue:{BLUE};--vermilion:{VERMILION};--ink:{INK};'
  f'--muted:{MUTED};--line:{LINE};--ground:{GROUND};'
  + ''.join(f'--{name}:{colour};' for name, colour in LABEL_COLOURS.items())
  + """
--pale:#f4f6f8;color-scheme:light}
*{box-sizing:border-box}
body{margin:0;color:var(--ink);background:var(--ground);font:16px/1.5
system-ui,-apple-system,"Segoe UI",Roboto,"DejaVu Sans",sans-serif}
main{max-width:1080px;margin:0 auto;padding:32px 24px 64px}
h1{font-size:30px;line-height:1.2;margin:0 0 4px}
h2{font-size:21px;line-height:1.3;margin:48px 0 12px;padding-top:16px;
border-top:1px solid var(--line)}
h3{font-size:16px;margin:0 0 8px}
p{margin:0 0 12px;max-width:76ch}
ul{margin:0 0 12px;padding-left:20px;max-width:80ch}
li{margin:4px 0}
.muted,figcaption,.about{color:var(--muted)}
.about{font-size:14px}
.scroll+.about{margin-top:10px}
li,p,h3{overflow-wrap:anywhere}
.notice{border-left:4px solid var(--vermilion);background:var(--pale);
padding:10px 14px;max-width:none}
.findings{font-size:17px;padding-left:22px;max-width:none}
.findings li{margin:8px 0}
.scroll{overflow-x:auto}
table{border-collapse:collapse;font-size:14.5px;
font-variant-numeric:tabular-nums;width:100%}
th,td{padding:6px 10px;text-align:right;border-bottom:1px solid var(--line);
vertical-align:top}
th:first-child,td:first-child{text-align:left}
thead th{border-bottom:2px solid var(--ink);vertical-align:bottom}
tbody th{font-weight:500;white-space:nowrap}
tr.group th{font-weight:700;padding-top:18px;
border-bottom:1px solid var(--ink)}
.interval{color:var(--muted);font-size:12.5px;white-space:nowrap}
.row{display:flex;flex-wrap:wrap;gap:20px 22px;align-items:flex-start}
figure{margin:0}figure svg+svg{margin-top:14px}
figcaption{font-size:14px;margin-top:4px}
svg{display:block;max-width:100%;height:auto}
svg text{font-family:inherit}
.card{border:1px solid var(--line);border-radius:8px;padding:16px;
margin:0 0 16px;break-inside:avoid}
.card h3 .muted{font-weight:400}
.frames{display:flex;gap:4px;margin:10px 0}
.frames img{display:block;flex:0 1 auto;min-width:0;max-width:180px;height:auto;
object-fit:contain}
.noframes{background:var(--pale);color:var(--muted);font-size:13.5px;
padding:10px 14px;border-radius:4px;margin:10px 0}
.sides{display:grid;grid-template-columns:1fr 1fr;gap:8px 28px}
.sides p{margin:2px 0 6px}
.label{display:inline-block;font-weight:700;padding:0 8px;border-radius:4px;
color:#fff;background:var(--ink)}
.label.Good{background:var(--Good)}.label.Normal{background:var(--Normal)}
.label.Bad{background:var(--Bad)}
.clips{display:grid;gap:16px;
grid-template-columns:repeat(auto-fill,minmax(min(100%,440px),1fr))}
.clips .card{margin:0}
.pair{display:grid;grid-template-columns:1fr 1fr;gap:14px}
.pair p{margin:0 0 6px;font-size:14px}
.pair img{display:block;width:192px;max-width:100%;height:auto;
image-rendering:pixelated;border-radius:4px;margin:0 0 10px}
.verdicts{list-style:none;padding:0;margin:0;font-size:13.5px}
.verdicts li{margin:0 0 8px}.verdicts .label{font-size:12.5px}
.figures{margin-top:24px}.figures figure{max-width:328px}
.stage{margin-top:20px}
.lead{font-size:17px;max-width:none}
blockquote{margin:4px 0;padding-left:10px;border-left:3px solid var(--line);
white-space:pre-line;overflow-wrap:anywhere}
details{margin:8px 0}summary{cursor:pointer;font-weight:500}
code,pre{font:13.5px/1.45 ui-monospace,Menlo,Consolas,"DejaVu Sans Mono",
monospace}
pre{background:var(--pale);padding:12px;border-radius:6px;overflow-x:auto}
@media (max-width:640px){main{padding:20px 14px}
.sides{grid-template-columns:1fr}
th,td{padding:6px 5px}tbody th{white-space:normal}
.interval{white-space:normal;display:inline-block}
.clips .card{padding:12px}.pair img{width:128px}}
@media print{main{max-width:none;padding:0}body{font-size:11pt}
h2{break-after:avoid}figure,tr{break-inside:avoid}
*{print-color-adjust:exact;-webkit-print-color-adjust:exact}}
"""
)

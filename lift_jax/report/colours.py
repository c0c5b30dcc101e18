"""Colours of pages and plots.

Blue and vermilion are of the palette of M. Okabe and K. Ito (Color Universal
Design, 2008), which colour-blind people tell apart. Text has a contrast of 4.5
or more on its background (WCAG 2.2, 1.4.3).
"""

BLUE = '#0072b2'
VERMILION = '#d55e00'
INK = '#1d2730'
MUTED = '#5b6773'
LINE = '#d5dbe1'
BACKGROUND = '#ffffff'
# By label; white text can be read on each.
LABEL_COLOURS = {'Good': '#00614a', 'Normal': '#5b6773', 'Bad': '#a33c00'}

# By the names of the style sheet's variables.
CSS_COLOURS = {
  'blue': BLUE,
  'vermilion': VERMILION,
  'ink': INK,
  'muted': MUTED,
  'line': LINE,
  'background': BACKGROUND,
  **LABEL_COLOURS,
}

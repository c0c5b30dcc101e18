"""Colours of pages and plots.

Blue, vermilion and green are from the colour-blind-safe palette of M. Okabe and
K. Ito (Color Universal Design, 2008). Text has a contrast of at least 4.5 on
its background (WCAG 2.2, 1.4.3).
"""

BLUE = '#0072b2'
VERMILION = '#d55e00'
GREEN = '#009e73'
INK = '#1d2730'
MUTED = '#5b6773'
LINE = '#d5dbe1'
BACKGROUND = '#ffffff'
# By label; each is dark enough for white text.
LABEL_COLOURS = {'Good': '#00614a', 'Normal': '#5b6773', 'Bad': '#a33c00'}

# By the name of the CSS variable.
CSS_COLOURS = {
  'blue': BLUE,
  'vermilion': VERMILION,
  'ink': INK,
  'muted': MUTED,
  'line': LINE,
  'background': BACKGROUND,
  **LABEL_COLOURS,
}

"""Helpers to test Matplotlib figures."""

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.text import Text


def assert_within(test, figure):
  """Asserts that no text and no drawing is outside of the figure."""
  renderer = FigureCanvasAgg(figure).get_renderer()
  inches = figure.get_tightbbox(renderer)
  width, height = figure.get_size_inches()
  # An axis's outer grid lines are on its edge.
  test.assertGreaterEqual(min(inches.x0, inches.y0), -0.01)
  test.assertLessEqual(inches.x1, width + 0.01)
  test.assertLessEqual(inches.y1, height + 0.01)


def texts(figure):
  """All visible text, in the order of drawing."""
  figure.draw_without_rendering()
  found = figure.findobj(lambda artist: isinstance(artist, Text))
  return [text.get_text() for text in found if text.get_text()]


def hovers(figure):
  """Artists by their tooltip."""
  marked = figure.findobj(lambda artist: artist.get_gid() is not None)
  return {artist.get_gid().removeprefix('hover: '): artist for artist in marked}


def lines(axes):
  """Points of the lines without markers."""
  return [
    line.get_xydata().tolist()
    for line in axes.lines
    if line.get_marker() == 'None'
  ]

"""Matplotlib figures as inline SVG, and their common style.

Lengths are in points, 4/3 of a CSS pixel. Text stays text, in the page's font.
"""

import dataclasses
import io
import re
from xml.etree import ElementTree

from matplotlib import style
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from lift_jax.report.colours import INK, LINE, MUTED

SMALL = 8.3

# A decorator of functions that draw. It changes Matplotlib's defaults, ignoring
# the user's matplotlibrc.
styled = style.context(
  {
    'axes.axisbelow': True,
    'axes.edgecolor': MUTED,
    'axes.facecolor': 'none',
    'axes.labelcolor': MUTED,
    'axes.labelsize': 9,
    'axes.spines.bottom': False,
    'axes.spines.left': False,
    'axes.spines.right': False,
    'axes.spines.top': False,
    'axes.titlelocation': 'left',
    'axes.titlesize': 9.4,
    'axes.titleweight': 'bold',
    'font.sans-serif': 'DejaVu Sans',
    'font.size': 9.4,
    'grid.color': LINE,
    'legend.borderaxespad': 0.2,
    'legend.borderpad': 0,
    'legend.columnspacing': 1.5,
    'legend.fontsize': 9.4,
    'legend.frameon': False,
    'legend.handlelength': 1.3,
    'legend.labelcolor': MUTED,
    'svg.fonttype': 'none',
    'text.color': INK,
    # Names may contain dollar signs.
    'text.parse_math': False,
    'xtick.color': MUTED,
    'xtick.labelsize': SMALL,
    'xtick.major.size': 0,
    'ytick.color': LINE,
    'ytick.labelcolor': MUTED,
    'ytick.labelsize': SMALL,
    'ytick.major.size': 0,
  },
  after_reset=True,
)

_HOVER = 'hover: '

_SVG = '{http://www.w3.org/2000/svg}'
_HREF = '{http://www.w3.org/1999/xlink}href'


@dataclasses.dataclass(frozen=True)
class Plot:
  """A figure in a page.

  Attributes:
    figure: drawn in the style of `styled`.
    title: text alternative, for screen readers.
    caption: written below; '' for none.
  """

  figure: Figure
  title: str
  caption: str = ''


def new_axes(
  size: tuple[float, float],
  margins: tuple[float, float, float, float],
  **settings,
) -> Axes:
  """Axes on a new figure.

  Args:
    size: width and height between the margins.
    margins: top, right, bottom and left, as in CSS.
    **settings: of the axes, such as the projection.
  """
  top, right, bottom, left = margins
  width, height = left + size[0] + right, top + size[1] + bottom
  box = (left / width, bottom / height, size[0] / width, size[1] / height)
  figure = Figure((width / 72, height / 72), frameon=False)
  return figure.add_axes(box, **settings)


def set_hover(artist: Artist, text: str) -> None:
  """Sets the artist's tooltip."""
  artist.set_gid(f'{_HOVER}{text}')


@styled
def to_svg(plot: Plot, salt: str) -> str:
  """The plot, without its caption, as an SVG element; deterministic.

  Args:
    plot: to convert.
    salt: makes the element ids unique among the plots of a page.
  """
  file = io.BytesIO()
  no_metadata = dict.fromkeys(('Creator', 'Date', 'Format', 'Type'))
  with style.context({'svg.hashsalt': salt}):
    plot.figure.savefig(file, format='svg', metadata=no_metadata)
  root = ElementTree.fromstring(file.getvalue())
  # A style sheet, which would apply to the complete page, and clip paths, which
  # are not needed: nothing is outside of its axes.
  for definitions in root.findall(f'{_SVG}defs'):
    root.remove(definitions)
  for element in list(root.iter()):
    element.tag = element.tag.removeprefix(_SVG)
    element.attrib.pop('clip-path', None)
    # Line breaks and indentation.
    element.tail = None
    if element.tag != 'text':
      element.text = None
    if _HREF in element.attrib:
      element.set('href', element.attrib.pop(_HREF))
    if element.tag == 'g':
      # Ids of groups are not unique in a page, and nothing refers to them.
      name = element.attrib.pop('id', '')
      if name.startswith(_HOVER):
        _add_title(element, name.removeprefix(_HOVER))
    elif element.tag == 'text':
      # Use the page's font, not the one that Matplotlib measures.
      css = re.sub('font-family: [^;]*;? ?', '', element.get('style', ''))
      element.set('style', css)
  root.set('role', 'img')
  _add_title(root, plot.title)
  return ElementTree.tostring(root, encoding='unicode')


def _add_title(element: ElementTree.Element, text: str) -> None:
  title = ElementTree.Element('title')
  title.text = text
  element.insert(0, title)

"""What holds of every picture."""

from xml.etree import ElementTree

# Of an element, and the side of the picture they must not pass.
_PLACES = (
  ('x', 0), ('x1', 0), ('x2', 0), ('cx', 0),
  ('y', 1), ('y1', 1), ('y2', 1), ('cy', 1),
)  # fmt: skip


def assert_well_formed(test, picture, title):
  """It is XML that has a title, and nothing starts outside of it."""
  root = ElementTree.fromstring(picture)
  test.assertEqual(root.get('role'), 'img')
  test.assertEqual((root[0].tag, root[0].text), ('title', title))
  sides = [float(side) for side in root.get('viewBox').split()[2:]]
  for element in root.iter():
    for key, side in _PLACES:
      if element.get(key) is not None:
        test.assertBetween(float(element.get(key)), 0, sides[side])
    for place in points(element):
      for value, limit in zip(place, sides, strict=True):
        test.assertBetween(value, 0, limit)


def points(element):
  """Corners of a polygon or a line, as pairs."""
  pairs = element.get('points', '').split()
  return [tuple(map(float, pair.split(','))) for pair in pairs]


def elements(picture, name):
  return ElementTree.fromstring(picture).findall(f'.//{name}')


def texts(picture):
  return [element.text for element in elements(picture, 'text')]

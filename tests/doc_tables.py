"""Tables of the docs, which tests read so that the docs stay true."""

import pathlib

DOCS = pathlib.Path(__file__).resolve().parent.parent / 'docs'


def rows(document: str, heading: str) -> dict[str, str]:
  """First column → second column of the table below a `##` heading.

  Args:
    document: file name in docs/.
    heading: text of the heading, without its number signs.
  """
  lines = (DOCS / document).read_text(encoding='utf-8').splitlines()
  starts = [
    index
    for index, line in enumerate(lines)
    if line.startswith('#') and line.lstrip('# ') == heading
  ]
  assert len(starts) == 1, f'{document}: {len(starts)} headings {heading!r}'
  table = []
  for line in lines[starts[0] + 1 :]:
    if line.startswith('#'):
      break
    if line.startswith('|'):
      table.append([cell.strip() for cell in line.strip('|\n ').split('|')])
  assert len(table) > 2, f'{document}: no table below {heading!r}'
  result = {cells[0]: cells[1] for cells in table[2:]}
  assert len(result) == len(table) - 2, f'{document}: repeated rows'
  return result

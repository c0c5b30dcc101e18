"""Malformed inputs: each one is refused in one line, or read rightly.

  python benchmarks/malformed.py [--cases=12000] [--seed=0] [--target=NAME]

Good inputs of each kind are mutated, by Hypothesis: JSON values are replaced,
removed and repeated, bytes are flipped, zeroed, cut and inserted. The tests put
fewer cases of each kind to the same checks. Printed are the cases of each kind,
and how many were read and refused.
"""

import argparse
import pathlib
import tempfile

from malformed_parts import inputs, jobs, models
from malformed_parts.target import Target, run


def targets(folder: pathlib.Path) -> dict[str, Target]:
  """All kinds of inputs; their files are in `folder`."""
  found = {}
  for make in (
    inputs.record_targets,
    models.config_targets,
    models.weight_targets,
    inputs.video_targets,
    models.adapter_targets,
    jobs.state_targets,
  ):
    own = folder / make.__name__
    own.mkdir()
    found |= make(own)
  return found | jobs.override_target()


def main() -> None:
  parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
  parser.add_argument('--cases', type=int, default=12_000, help='of all kinds')
  parser.add_argument('--seed', type=int, default=0)
  parser.add_argument('--target', default='', help='only this kind')
  args = parser.parse_args()
  with tempfile.TemporaryDirectory() as folder:
    known = targets(pathlib.Path(folder))
    chosen = {args.target: known[args.target]} if args.target else known
    num_cases = -(-args.cases // len(chosen))
    print(f'{"input":34} {"cases":>6} {"read":>6} {"refused":>7}')
    total = 0
    for name, target in chosen.items():
      outcomes = run(target, num_cases, args.seed)
      num = outcomes.total()
      total += num
      print(
        f'{name:34} {num:6} {outcomes["read"]:6} {outcomes["refused"]:7}',
        flush=True,
      )
  print(f'{total} cases, seed {args.seed}')


if __name__ == '__main__':
  main()

"""Suites of prompts on the command line: `lift compare prompts` and `check`."""

import pathlib

from absl import flags

from lift_jax.cli import job_flags
from lift_jax.comparison.clip_sets import (
  check_listed,
  check_opened,
  probe_clips,
  read_clips,
  refused_faults,
)
from lift_jax.data import suites
from lift_jax.errors import UserError
from lift_jax.runtime import distributed, storage


def write_prompts(argv: list[str]) -> int:
  """Writes a suite of prompts."""
  values = flags.FlagValues()
  for name in ('suite', 'file', 'out', 'text'):
    flags.DEFINE_string(name, '', name, flag_values=values)
  flags.DEFINE_integer('clips', None, 'clips', 1, flag_values=values)
  flags.DEFINE_integer('seed', 0, 'seed', 0, flag_values=values)
  _parse(argv, values, {'suite': 'NAME', 'out': 'PROMPTS.json'})
  logger = distributed.start_logging()
  name, file, out = values.suite, values.file, storage.to_path(values.out)
  if name not in (*suites.VBENCH_SUITES, suites.HRA_TEST):
    file, name = name, pathlib.PurePath(name).name
  if not file:
    raise UserError(
      f'--file=FILE is missing: give the file of prompts of --suite={name}; '
      'see lift compare --help'
    )
  if out.suffix != '.json':
    raise UserError(f'--out={out}: give the name of a .json file')
  suite = suites.make_suite(
    name, storage.to_path(file), values.text, values.clips
  )
  suites.write_suite(out, suite, values.seed)
  logger.info(
    '%s: %d prompts, %d clips (suite %s)',
    out,
    len(suite.prompts),
    suite.num_clips,
    suite.name,
  )
  logger.info(
    'for each model: lift sample --config.prompts.file=%s '
    "--config.output.name='{prompt}-{index}' ...",
    out,
  )
  return 0


def check(argv: list[str]) -> int:
  """Checks the clips of a model against a suite."""
  values = flags.FlagValues()
  for name in ('suite', 'clips'):
    flags.DEFINE_string(name, '', name, flag_values=values)
  flags.DEFINE_bool('allow_missing', False, 'allow', flag_values=values)
  _parse(argv, values, {'suite': 'PROMPTS.json', 'clips': 'DIR'})
  logger = distributed.start_logging()
  suite = suites.read_suite(storage.to_path(values.suite))
  folder = storage.to_path(values.clips)
  found = read_clips(folder.name, folder)
  present = [
    clip for clip in found.clips.values() if clip.video not in found.absent
  ]
  faults = [
    *check_listed(found, suite),
    *check_opened(found, suite, probe_clips(present)),
  ]
  logger.info(
    '%d clips in %s, %d in the suite %s',
    len(found.clips),
    folder,
    suite.num_clips,
    suite.name,
  )
  for fault in faults:
    logger.warning('%s', fault)
  refused = refused_faults(faults, values.allow_missing)
  if refused:
    raise UserError(f'{folder}: {refused[0]}')
  return 0


def _parse(argv: list[str], values: flags.FlagValues, needed) -> None:
  if job_flags.parse_flags(argv, values, 'compare', needed):
    raise UserError('prompts and check have no config; see lift compare --help')

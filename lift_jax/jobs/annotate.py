"""Serves a page on which people rate clips, and exports their ratings.

usage: lift annotate --config=FILE.py[:variant] --workdir=DIR [--port=8000]
                     [--host=127.0.0.1] [--config.SECTION.FIELD=VALUE ...]
       lift annotate invite --workdir=DIR --name=NAME [--role=rater|lead]
                            [--revoke] [--url=https://...]
       lift annotate import --workdir=DIR --from=FILE [--rater=NAME] [--gold]
                            [--video_key=KEY] [--caption_key=KEY]
       lift annotate export --workdir=DIR --to=FOLDER
       lift annotate report --workdir=DIR [--json]
       lift annotate recheck --workdir=DIR --scores=scores.json [--half=1|2]

The first form makes the project DIR/annotations.sqlite from the clips of the
config, or opens it, prints a personal link for a first rater and one for a
lead, and serves until Ctrl-C. Answers are on disk once the page shows them as
saved. The others work on the same folder, also while it is served:

  invite   prints a new link for somebody, or revokes all links of NAME
  import   adds ratings of HRA files, of Label Studio or Argilla (JSON), or a
           folder of lift annotate export; --gold makes ratings the right ones
           of gold clips. With --config a missing project is made first
  export   writes settled ratings (hra.json, and each half of the prompts), all
           votes (votes.jsonl), pairs (pairs.json), and what makes the same
           project again
  report   prints agreement (Krippendorff's alpha) and quality of raters
  recheck  compares a critic's scores with settled ratings, and sends conflicts
           back to people; --half is the one that the critic did not learn from

pip install 'lift_jax[annotate]' brings what it needs.

example: lift annotate --config=configs/annotate.py:smoke --workdir=DIR
"""

import dataclasses
import importlib.util
import json
import logging
import pathlib
from typing import Any

from absl import flags

from lift_jax import config_lib
from lift_jax.annotation import critics, export, imports, quality, summary
from lift_jax.annotation.clips import ClipListConfig, add_clips
from lift_jax.annotation.entities import RATER, ROLES, Person, Settings
from lift_jax.annotation.foreign import Keys
from lift_jax.annotation.store import Store
from lift_jax.cli import job_flags
from lift_jax.data.rubric import read_rubric
from lift_jax.errors import UserError
from lift_jax.jobs import inputs
from lift_jax.models.critic_tokens import questions_path
from lift_jax.runtime import distributed, lock, storage
from lift_jax.toyworld import dataset, feedback

# Everything else of the extra 'annotate' is needed for the report alone.
_PACKAGES = ('starlette', 'uvicorn')


@dataclasses.dataclass(frozen=True)
class GoldConfig:
  """Clips whose right labels are known, mixed among the others.

  Attributes:
    files: HRA files of them, relative to `data.root` or absolute.
    rate: share of gold clips in the work of each person, from 0 to 0.5.
  """

  files: tuple[str, ...]
  rate: float


@dataclasses.dataclass(frozen=True)
class OrderConfig:
  """In which order clips are rated; see `critics.set_order`.

  Attributes:
    by: 'random', 'uncertainty' or 'disagreement'.
    scores: files of `lift score`, one for each critic.
  """

  by: str
  scores: tuple[str, ...]

  def __post_init__(self):
    config_lib.check_choice('order.by', self.by, critics.ORDERS)


@dataclasses.dataclass(frozen=True)
class AnnotateConfig:
  """Sections of an annotation project.

  Attributes:
    data: the clips; if `data.root` is '', `toy_clips` clips of the toy world.
    toy_clips: how many.
    questions: rubric (`data.rubric`); '' takes LiFT's three dimensions, for
      clips of the toy world with its own questions.
    raters_per_clip: people who rate each clip or pair.
    lease_minutes: after which an unanswered clip is given to somebody else.
    gold: clips whose right labels are known.
    order: in which order clips are rated.
  """

  data: ClipListConfig
  toy_clips: int
  questions: str
  raters_per_clip: int
  lease_minutes: float
  gold: GoldConfig
  order: OrderConfig


def main(argv: list[str]) -> int:
  actions = {
    'invite': _invite,
    'import': _import,
    'export': _export,
    'report': _report,
    'recheck': _recheck,
  }
  if argv and not argv[0].startswith('-'):
    if argv[0] not in actions:
      raise UserError(
        f'no action {argv[0]!r}; choose one of {", ".join(actions)}'
      )
    actions[argv[0]](argv[1:])
  else:
    _serve(argv)
  return 0


def _serve(argv: list[str]) -> None:
  """Makes or opens the project, prints links and serves."""
  values = _flags(port=8000, host='127.0.0.1')
  overrides = job_flags.parse_flags(
    argv, values, 'annotate', {'config': 'FILE.py', 'workdir': 'DIR'}
  )
  _check_packages()
  from lift_jax.annotation.web import server

  logger = distributed.start_logging()
  workdir = _folder(values.workdir)
  with (
    lock.locked(workdir / lock.NAME),
    _open_with_config(workdir, values.config, overrides, logger) as store,
  ):
    people = [store.add_person(f'first {role}', role) for role in ROLES]

    def on_ready(url: str) -> None:
      for person in people:
        _print_link(store, person, url)
      if values.host in ('127.0.0.1', 'localhost', '::1'):
        print(
          f'Serving {url} on this machine alone. Ctrl-C ends it.', flush=True
        )
      else:
        print(
          f'Serving {url} without encryption: put a reverse proxy in front of '
          'it that speaks https and passes Host and X-Forwarded-Proto on, and '
          'let nothing else reach this port.',
          flush=True,
        )

    server.serve(store, values.host, values.port, on_ready)


def _print_link(store: Store, person: Person, url: str) -> None:
  token = store.issue_token(person.id)
  print(f'{person.role} {person.name}: {url}/enter/{token}')


def _check_packages() -> None:
  missing = [
    name for name in _PACKAGES if importlib.util.find_spec(name) is None
  ]
  if missing:
    raise UserError(
      f"{', '.join(missing)} not installed; pip install 'lift_jax[annotate]'"
    )


def _flags(**defaults: Any) -> flags.FlagValues:
  """Flags of an action by name, besides --config and --workdir."""
  values = flags.FlagValues()
  for name, default in ({'config': None, 'workdir': None} | defaults).items():
    if isinstance(default, bool):
      flags.DEFINE_bool(name, default, name, flag_values=values)
    elif isinstance(default, int):
      flags.DEFINE_integer(name, default, name, flag_values=values)
    else:
      flags.DEFINE_string(name, default, name, flag_values=values)
  return values


def _folder(text: str, make: bool = True) -> pathlib.Path:
  """The workdir, which must be on a local disk; `make` creates it."""
  if storage.is_remote(text):
    raise UserError(
      f'--workdir={text}: answers are kept in a database, which needs a local '
      'disk; export to a folder and copy that'
    )
  path = storage.to_path(text)
  if make:
    path.mkdir(parents=True, exist_ok=True)
  return path.resolve()


def _open(argv: list[str], needed: dict[str, str], **defaults: Any):
  """(flags, store) of an action on an existing project."""
  values = _flags(**defaults)
  overrides = job_flags.parse_flags(
    argv, values, 'annotate', {'workdir': 'DIR'} | needed
  )
  if overrides and not values.config:
    raise UserError(f'{overrides[0]} needs --config=FILE.py')
  workdir = _folder(values.workdir, make=bool(values.config))
  if values.config:
    logger = distributed.start_logging()
    return values, _open_with_config(workdir, values.config, overrides, logger)
  return values, Store.open(workdir)


def _open_with_config(
  workdir: pathlib.Path,
  file: str,
  overrides: list[str],
  logger: logging.Logger,
) -> Store:
  """Makes the project of a config, or updates it."""
  config, _ = job_flags.read_config(file, overrides, AnnotateConfig)
  data, questions = config.data, config.questions or questions_path()
  if not data.root:
    questions = config.questions or feedback.questions_path()
    root = inputs.toy_clips(workdir, config.toy_clips)
    data = dataclasses.replace(data, root=str(root), files=(dataset.ALIGNMENT,))
  store = Store.create(
    workdir,
    Settings(
      read_rubric(questions),
      root=str(storage.to_path(data.root).resolve()),
      follow_links=data.follow_links,
      raters_per_clip=config.raters_per_clip,
      gold_rate=config.gold.rate,
      lease_seconds=60 * config.lease_minutes,
    ),
  )
  try:
    skipped = add_clips(store, data)
    inputs.report_skipped(workdir, skipped, store.count_tasks(), logger)
    for name in config.gold.files:
      path = storage.join(storage.to_path(data.root), name)
      imports.read_file(store, path, 'gold', True, Keys())
    critics.set_order(store, config.order.by, config.order.scores)
    for problem in store.check_clips():
      logger.warning('annotate: %s', problem)
  except BaseException:
    store.close()
    raise
  return store


def _invite(argv: list[str]) -> None:
  values, store = _open(
    argv,
    {'name': 'NAME'},
    name=None,
    role='',
    revoke=False,
    url='http://127.0.0.1:8000',
  )
  with store:
    by_name = {person.name: person for person in store.people()}
    known = by_name.get(values.name)
    if values.revoke:
      if known is None:
        raise UserError(
          f'nobody is named {values.name!r}; the project has '
          f'{", ".join(by_name) or "nobody"}'
        )
      print(f'{store.revoke_tokens(known.id)} links of {known.name} revoked')
      return
    role = values.role or (known.role if known else RATER)
    if role not in ROLES:
      raise UserError(f'--role={role}: choose one of {", ".join(ROLES)}')
    person = store.add_person(values.name, role)
    _print_link(store, person, values.url.rstrip('/'))


def _import(argv: list[str]) -> None:
  values, store = _open(
    argv,
    {'from': 'FILE'},
    **{
      'from': None,
      'rater': 'imported',
      'gold': False,
      'video_key': 'video',
      'caption_key': 'caption',
    },
  )
  with store:
    path = storage.to_path(getattr(values, 'from'))
    if path.is_dir():
      found = imports.read_export(store, path)
    else:
      keys = Keys(values.video_key, values.caption_key)
      found = imports.read_file(store, path, values.rater, values.gold, keys)
  print(
    f'{path}: {found.tasks} tasks, {found.answers} new answers, {found.gold} '
    'gold tasks'
  )


def _export(argv: list[str]) -> None:
  values, store = _open(argv, {'to': 'FOLDER'}, to=None)
  with store:
    target = storage.to_path(values.to)
    for name, number in export.write_export(store, target).items():
      print(f'{target / name}: {number} records')


def _report(argv: list[str]) -> None:
  values, store = _open(argv, {}, json=False)
  with store:
    report = quality.report(store)
  if values.json:
    print(json.dumps(report, indent=1, ensure_ascii=False))
  else:
    print('\n'.join(summary.lines(report)))


def _recheck(argv: list[str]) -> None:
  values, store = _open(argv, {'scores': 'FILE'}, scores=None, half=0)
  if values.half not in (0, 1, 2):
    raise UserError(f'--half={values.half}: give 1 or 2, or omit it')
  with store:
    compared, conflicts = critics.recheck(
      store, values.scores, values.half or None
    )
  print(
    f'{values.scores}: {compared} clips compared, {conflicts} conflicts go '
    'back to people'
  )

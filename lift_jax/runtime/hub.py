"""Models and data sets on the Hugging Face Hub, by id: ORG/NAME[@REVISION].

A text of this form is an id unless a file or folder of that name exists; './'
before it always makes it a path. What `huggingface_hub` downloads lies in its
cache; where that is, the token, the offline mode and the address of the hub are
set by its own environment variables, such as HF_HOME, HF_TOKEN, HF_HUB_OFFLINE
and HF_ENDPOINT.

A process finds the commit of a revision once, so that all files are of the same
commit, and takes files only of that. Every host of a pod downloads what it
reads. Pickle files, which can run code, are never downloaded.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
import concurrent.futures
import contextlib
import dataclasses
import fnmatch
import functools
import logging
import os
import pathlib
import re
import sys

from lift_jax.errors import UserError, listing
from lift_jax.runtime.progress import Progress

_ID = re.compile(r'(\w[\w.-]*/\w[\w.-]*)(?:@(.+))?', re.ASCII)

_WEIGHTS = '.safetensors'
# Of the other files that models are read from: configs and tokenizers.
_TEXTS = ('.json', '.model', '.txt')
_PICKLES = ('.bin', '.ckpt', '.pkl', '.pt', '.pth')
# Copies of the weights in another type: NAME.fp16.safetensors.
_VARIANTS = f'*.*{_WEIGHTS}'

_CARD = 'README.md'

_NUM_THREADS = 8  # as many as `snapshot_download` has

_LOG_IN = 'log in (hf auth login, or HF_TOKEN)'


@dataclasses.dataclass(frozen=True)
class _Reference:
  """What a text refers to.

  Attributes:
    text: as the user gave it.
    id: ORG/NAME.
    revision: branch, tag or commit; None for the default branch.
    kind: 'model' or 'dataset'.
  """

  text: str
  id: str
  revision: str | None
  kind: str

  @property
  def noun(self) -> str:
    return {'model': 'model', 'dataset': 'data set'}[self.kind]


@dataclasses.dataclass(frozen=True)
class _Repository:
  """A repository at one commit.

  Attributes:
    reference: what it was found by.
    commit: its SHA.
    names: of its files; empty if only the cache is used.
    error: why only the cache is used, or None.
  """

  reference: _Reference
  commit: str
  names: frozenset[str]
  error: Exception | None

  def __str__(self) -> str:
    return f'{self.reference.id}@{self.commit}'


# The folders of data sets that this process has found.
_data_sets: dict[pathlib.Path, _Repository] = {}


def is_id(text: str) -> bool:
  """Whether a text is an id and not a path."""
  return bool(_ID.fullmatch(text)) and not os.path.exists(text)


def model_folder(
  text: str | os.PathLike[str],
  files: Sequence[str],
  find_folders: Callable[[pathlib.Path], Sequence[str]] = lambda _: (),
  *,
  weights: bool = True,
) -> str:
  """The folder of a model or of adapters, which are downloaded if need be.

  Args:
    text: a path, which is returned as it is, or an id.
    files: to download from the top folder; names, or patterns of `fnmatch`.
    find_folders: given the folder with these files, the names of folders whose
      weights, configs and tokenizers are to be downloaded too; '' is the whole
      repository. Raises UserError if this is not such a model.
    weights: False leaves out the weights of these folders.

  Raises:
    UserError: no such repository, no access to it, or none of these files in
      it; weights only as pickles; no network, or no space, for the download.
  """
  text = os.fspath(text)
  if not is_id(text):
    return text
  repository = find_repository(text, 'model')
  folder = _snapshot(repository, files)
  suffixes = (*_TEXTS, _WEIGHTS) if weights else _TEXTS
  patterns = [
    f'{name}/*{suffix}'.removeprefix('/')
    for name in find_folders(folder)
    for suffix in suffixes
  ]
  if patterns:
    _snapshot(repository, [*files, *patterns])
  return str(folder)


def data_folder(text: str | os.PathLike[str], files: Sequence[str] = ()) -> str:
  """The folder of a data set, with its lists of records; see `fetch` for clips.

  Args:
    text: a path, which is returned as it is, or an id.
    files: names of files to download; absolute paths are none of these.

  Raises:
    UserError: as in `model_folder`.
  """
  text = os.fspath(text)
  if not is_id(text):
    return text
  repository = find_repository(text, 'dataset')
  folder = _folder(repository)
  folder.mkdir(parents=True, exist_ok=True)
  _data_sets[folder] = repository
  for name in filter(_is_within, files):
    if not _fetch(repository, name):
      raise UserError(
        f'{repository}: this data set has no file {name!r}; correct the name'
      )
  return str(folder)


def fetch(root: str | os.PathLike[str], names: Iterable[str]) -> None:
  """Downloads files of a data set; those that it does not have are left out.

  Args:
    root: from `data_folder`; of a folder that is not from there, nothing is
      downloaded.
    names: of the files.

  Raises:
    UserError: the data set has none of them, or as in `model_folder`.
  """
  root = pathlib.Path(root)
  repository = _data_sets.get(root)
  if repository is None:
    return
  wanted = {name: None for name in names if _is_within(name)}
  absent = [name for name in wanted if not (root / name).exists()]
  if not absent:
    return
  if repository.names and repository.names.isdisjoint(wanted):
    raise UserError(
      f'{repository}: this data set has none of the {len(wanted)} clips that '
      f'its records name, such as {absent[0]!r}; if they are in archives, '
      'download and unpack those, and give their folder instead'
    )
  with (
    concurrent.futures.ThreadPoolExecutor(_NUM_THREADS) as pool,
    Progress(len(absent), 'clip', logger=logging.getLogger('lift')) as progress,
  ):
    waiting = [pool.submit(_fetch, repository, name) for name in absent]
    try:
      for future in concurrent.futures.as_completed(waiting):
        future.result()
        progress.update(1)
    finally:
      for future in waiting:
        future.cancel()


@functools.cache
def find_repository(text: str, kind: str) -> _Repository:
  """Finds a repository and the commit of its revision; logs its licence.

  Args:
    text: an id.
    kind: 'model' or 'dataset'.
  """
  # Takes a second to import, and few runs need it.
  import huggingface_hub
  from huggingface_hub import constants, utils
  from huggingface_hub.errors import RevisionResolutionError

  if not sys.stderr.isatty():
    utils.disable_progress_bars()
  match = _ID.fullmatch(text)
  assert match is not None  # as `is_id` says
  reference = _Reference(text, match[1], match[2], kind)
  api = huggingface_hub.HfApi()
  get_info = {'model': api.model_info, 'dataset': api.dataset_info}[kind]
  names, unreachable = frozenset(), None
  try:
    # The library falls back to the cache too, but has no time-out before.
    info = get_info(
      reference.id,
      revision=reference.revision,
      timeout=constants.HF_HUB_ETAG_TIMEOUT,
    )
    names = frozenset(file.rfilename for file in info.siblings or ())
  # The library, its HTTP client and parsers raise their own kinds of errors.
  except Exception as error:
    unreachable = error
  with _explained(reference, unreachable, RevisionResolutionError):
    # Remembers the commit of a branch, for runs without a network.
    resolved = api.resolve_revision(
      reference.id,
      repo_type=kind,
      revision=reference.revision,
      local_files_only=unreachable is not None,
    ).resolved
  repository = _Repository(reference, resolved, names, unreachable)
  # A commit is known without the hub, which says nothing about the cache.
  if unreachable is not None and not _folder(repository).is_dir():
    raise UserError(_message(reference, unreachable)) from unreachable
  logger = logging.getLogger('lift')
  if unreachable is not None:
    logger.info(
      '%s: from the cache, as the hub cannot be used (%s)',
      repository,
      _reason(unreachable),
    )
  logger.info('%s: %s', repository, _licence(repository))
  return repository


def _folder(repository: _Repository) -> pathlib.Path:
  """Where the cache keeps the files of a commit."""
  from huggingface_hub import constants
  from huggingface_hub.file_download import repo_folder_name

  reference = repository.reference
  name = repo_folder_name(repo_id=reference.id, repo_type=reference.kind)
  cache = pathlib.Path(constants.HF_HUB_CACHE).expanduser().resolve()
  return cache / name / 'snapshots' / repository.commit


def _snapshot(repository: _Repository, patterns: Sequence[str]) -> pathlib.Path:
  """Downloads the files that match a pattern; returns their folder."""
  import huggingface_hub
  from huggingface_hub.errors import LocalEntryNotFoundError

  _check_files(repository, patterns)
  reference, error = repository.reference, repository.error
  with _explained(reference, error, LocalEntryNotFoundError):
    folder = huggingface_hub.snapshot_download(
      reference.id,
      repo_type=reference.kind,
      revision=repository.commit,
      allow_patterns=list(patterns),
      ignore_patterns=[_VARIANTS],
      local_files_only=error is not None,
    )
  return pathlib.Path(folder)


def _fetch(repository: _Repository, name: str) -> bool:
  """Downloads one file; whether the repository has it."""
  import huggingface_hub
  from huggingface_hub.errors import (
    LocalEntryNotFoundError,
    RemoteEntryNotFoundError,
  )
  from huggingface_hub.utils.tqdm import silent_tqdm

  reference, error = repository.reference, repository.error
  with _explained(reference, error, LocalEntryNotFoundError):
    try:
      # Its stand-in for a progress bar is not declared as one.
      # pyrefly: ignore[no-matching-overload]
      huggingface_hub.hf_hub_download(
        reference.id,
        name,
        repo_type=reference.kind,
        revision=repository.commit,
        local_files_only=error is not None,
        tqdm_class=silent_tqdm,
      )
    except RemoteEntryNotFoundError:
      return False
  return True


def _is_within(name: str) -> bool:
  """Whether a name is one of a file in a repository."""
  path = pathlib.PurePosixPath(name)
  is_relative = not path.is_absolute() and '..' not in path.parts
  return is_relative and '\\' not in name and '://' not in name


def _check_files(repository: _Repository, patterns: Sequence[str]) -> None:
  """Raises UserError if no file matches, or if weights are there as pickles."""
  names = repository.names
  weights = [pattern for pattern in patterns if pattern.endswith(_WEIGHTS)]
  for folder in {pattern.rpartition('/')[0] for pattern in weights}:
    inside = [name for name in names if name.rpartition('/')[0] == folder]
    pickles = [name for name in inside if name.endswith(_PICKLES)]
    if pickles and not any(fnmatch.filter(inside, one) for one in weights):
      raise UserError(
        f'{repository}: has weights only as pickle files '
        f'({listing(pickles, 2)}), which can run code and are not read; give a '
        'revision with safetensors, or convert them'
      )
  if names and not any(fnmatch.filter(names, one) for one in patterns):
    raise UserError(
      f'{repository}: has none of the files {", ".join(patterns)}, but '
      f'{listing(names, 4)}; give another id, or what `hf download` fetches as '
      'a path'
    )


def _licence(repository: _Repository) -> str:
  """The licence that the model card or data set card states."""
  import huggingface_hub

  if repository.error is None:
    _fetch(repository, _CARD)
  card = _folder(repository) / _CARD
  if not card.is_file():
    return 'no licence is stated'
  try:
    data = huggingface_hub.RepoCard.load(card).data.to_dict()
  except Exception as error:  # a card is written by hand
    return f'no licence can be read from {_CARD} ({_reason(error)})'
  stated = [
    ' '.join(str(data[key]).split())
    for key in ('license', 'license_name', 'license_link')
    if key in data
  ]
  return f'licence {", ".join(stated)}' if stated else 'no licence is stated'


@contextlib.contextmanager
def _explained(
  reference: _Reference,
  unreachable: Exception | None,
  not_cached: type[Exception],
) -> Iterator[None]:
  """Turns errors into UserErrors.

  Args:
    reference: what is looked for.
    unreachable: why only the cache is used, or None.
    not_cached: of an error that says no more than that the cache lacks it.
  """
  try:
    yield
  # The library, its HTTP client and Xet raise their own kinds of errors.
  except Exception as error:
    cause = error
    if unreachable is not None and isinstance(error, not_cached):
      cause = unreachable
    raise UserError(_message(reference, cause)) from error


def _message(reference: _Reference, error: Exception) -> str:
  """What went wrong, and the remedy."""
  from huggingface_hub import constants, errors

  text, noun = reference.text, reference.noun
  hub = f'the Hugging Face Hub ({constants.ENDPOINT})'
  match error:
    case errors.GatedRepoError():
      return (
        f'{text}: this {noun} is only for those who accept its conditions; '
        f'accept them on its page of {hub}, and {_LOG_IN}'
      )
    case errors.RepositoryNotFoundError():
      return (
        f'{text}: no such file or folder, and no such {noun} on {hub}; correct '
        f'the path or the id, or {_LOG_IN} if it is private'
      )
    case errors.RevisionNotFoundError():
      return (
        f'{text}: the {noun} {reference.id} has no revision '
        f'{reference.revision!r}; give one of its branches, tags or commits'
      )
    case errors.OfflineModeIsEnabled():
      return (
        f'{text}: no such file or folder, and not (all of it) in the cache of '
        f'the Hugging Face Hub, {constants.HF_HUB_CACHE}; correct the path, or '
        'unset HF_HUB_OFFLINE to download it'
      )
    case errors.HfHubHTTPError() if error.response.status_code == 401:
      return f'{text}: {hub} does not accept the token; {_LOG_IN} again'
    case errors.HFValidationError():
      return f'{text}: no such file or folder; correct the path'
    case OSError() if error.errno and not isinstance(error, ConnectionError):
      return (
        f'{text}: cannot be written to the cache {constants.HF_HUB_CACHE} '
        f'({error.strerror}); make room there, or set HF_HOME to another folder'
      )
  return (
    f'{text}: no such file or folder, and it cannot be fetched from {hub}: '
    f'{_reason(error)}; correct the path, or try again when the hub can be '
    'reached'
  )


def _reason(error: Exception) -> str:
  """The first line of an error's message."""
  return str(error).strip().partition('\n')[0] or type(error).__name__

"""Converts models between diffusers folders and our checkpoint format.

usage: lift convert --from=FOLDER --to=DIR [--multihost]
                    [--dtype=float32|bfloat16|float16]

FOLDER is one of
  the diffusers folder of a model, -> DIR: the model in our checkpoint format,
  or the id of one on the Hugging     which all hosts of a pod read and write
  Face Hub, ORG/NAME[@REVISION]       in parallel
  a model in our checkpoint format -> DIR: a diffusers folder
  the workdir of a lift align run  -> DIR: a diffusers folder of its latest
                                      checkpoint (the moving average if there
                                      is one), or for LoRA the adapters, a file
                                      for load_lora_weights; in both cases the
                                      adapters that it began with are included

Weights keep their stored dtype, and those of a run get its train.export_dtype,
unless --dtype is given (for a run: of the transformer or the adapters). DIR
must be empty or not exist.

With the run from the example in `lift align --help`:

example: lift convert --from=runs/lift --to=runs/lift_diffusers
"""

import dataclasses
import logging
import pathlib

from absl import flags

from lift_jax import config_lib, partitioning
from lift_jax.cli import job_flags
from lift_jax.errors import UserError
from lift_jax.jobs import inputs
from lift_jax.jobs.align_config import AlignConfig
from lift_jax.models import generator_export, generator_folder
from lift_jax.models.functional import Params
from lift_jax.models.generators import (
  NETWORKS,
  VideoModel,
  fetch_model,
  open_model,
)
from lift_jax.models.lora import LoRAConfig
from lift_jax.runtime import distributed, lock, storage
from lift_jax.runtime.files import atomic_folder, is_complete, read_json
from lift_jax.training import alignment
from lift_jax.training.setup import Setup
from lift_jax.weights import checkpoints

DTYPES = ('float32', 'bfloat16', 'float16')


@dataclasses.dataclass(frozen=True)
class _Call:
  """The flags of one call; `dtype` None keeps the stored one."""

  source: str
  target: pathlib.Path
  dtype: str | None
  multihost: bool


def main(argv: list[str]) -> int:
  call = _parse(argv)
  distributed.initialize(call.multihost)
  logger = distributed.start_logging()
  target = call.target
  with lock.locked(target.with_name(f'.{target.name}{lock.NAME}')):
    _convert(call, logger)
  return 0


def _convert(call: _Call, logger: logging.Logger) -> None:
  source = storage.resolved(storage.to_path(fetch_model(call.source)))
  if not source.is_dir():
    raise UserError(f'--from={source}: no such folder; check the path')
  written = job_flags.config_path(source, 'align')
  if written.is_file():
    _convert_run(call, source, logger)
  elif (source / 'model_index.json').is_file():
    _convert_model(call, source, logger)
  else:
    raise UserError(
      f'--from={source} is neither a diffusers folder of a model '
      '(model_index.json, transformer, vae, text_encoder), nor one in our '
      'checkpoint format, nor the workdir of a lift align run '
      f'({written.name}, checkpoints); give one of these'
    )


def _parse(argv: list[str]) -> _Call:
  """The validated flags.

  Raises:
    UserError: a flag is missing, or --to names a folder that is not empty.
    absl.flags.Error: an unknown flag or a value that does not parse.
  """
  values = flags.FlagValues()
  for name in ('from', 'to'):
    flags.DEFINE_string(name, None, 'A folder.', flag_values=values)
  flags.DEFINE_enum(
    'dtype', None, DTYPES, 'Type of the weights.', flag_values=values
  )
  flags.DEFINE_bool(
    'multihost', False, 'Run on several hosts.', flag_values=values
  )
  rest = values(['convert', *argv])[1:]
  if rest:
    raise UserError(f'{rest[0]!r} is not a flag; see lift convert --help')
  texts = []
  for name in ('from', 'to'):
    if not getattr(values, name):
      raise UserError(f'--{name}=FOLDER is missing; see lift convert --help')
    texts.append(getattr(values, name))
  source, target = texts[0], storage.resolved(storage.to_path(texts[1]))
  is_empty = target.is_dir() and not any(target.iterdir())
  if target.exists() and not is_empty and is_complete(target):
    raise UserError(
      f'--to={target} exists and is not an empty folder; remove it, or choose '
      'another'
    )
  return _Call(source, target, values.dtype, values.multihost)


def _convert_model(
  call: _Call, source: pathlib.Path, logger: logging.Logger
) -> None:
  """Converts a diffusers folder to our checkpoint format, or back."""
  model = open_model(source)
  ours = [name for name in NETWORKS if model.is_orbax(name)]
  if ours and len(ours) < len(NETWORKS):
    raise UserError(
      f'--from={source}: of its weights only {", ".join(ours)} are in our '
      'checkpoint format; convert the model again'
    )
  write = (
    generator_folder.write_published if ours else generator_folder.write_orbax
  )
  with atomic_folder(call.target) as partial:
    if distributed.is_primary():
      generator_folder.copy_configs(model, partial, call.dtype)
    distributed.barrier('configs are copied')
    for network in NETWORKS:
      write(model, network, partial, call.dtype)
      logger.info('convert: wrote %s', network)
  result = 'diffusers folder' if ours else 'model in our checkpoint format'
  logger.info('convert: done; %s: %s', result, call.target)


def _convert_run(
  call: _Call, source: pathlib.Path, logger: logging.Logger
) -> None:
  """Converts the latest checkpoint of a training run for diffusers."""
  written = job_flags.config_path(source, 'align')
  config = config_lib.resolve(read_json(written), AlignConfig, str(written))
  model = open_model(
    fetch_model(config.model.path or source / 'model'),
    config.model.all_adapters,
  )
  inputs.log_adapters(model.adapters, logger)
  saved = source / 'checkpoints'
  step, fingerprint = checkpoints.latest_checkpoint(saved)
  # From the checkpoint, as the config may be that of a later attempt.
  try:
    trained_from, trainable = fingerprint['model'], fingerprint['trainable']
    lora, has_ema = fingerprint['lora'], fingerprint['has_ema']
    if lora is not None:
      lora = LoRAConfig(lora['rank'], lora['alpha'], tuple(lora['targets']))
  except (KeyError, TypeError) as error:
    raise UserError(
      f'{saved}/{step}/belongs_to is damaged ({error!r}); delete this '
      'checkpoint to use the previous one'
    ) from error
  if trained_from != model.fingerprint('transformer'):
    raise UserError(
      f'{saved}/{step} was trained from another model than {_described(model)}'
      f', which {written.name} names; restore the original model there'
    )
  setup = partitioning.spread(
    lambda mesh: alignment.make_setup(
      model, config.model, trainable, lora or config.lora, mesh
    )
  )
  field = 'ema' if has_ema else 'trainable'
  abstract, _ = setup.split(setup.model.abstract_params)
  shardings, _ = setup.split(setup.shardings)
  params = checkpoints.load_field(saved, step, field, abstract, shardings)
  logger.info('convert: step %d of %s, %s parameters', step, saved, field)
  generator_export.write(
    model,
    call.target,
    params,
    _frozen(setup, model),
    lora,
    call.dtype or config.train.export_dtype,
  )
  logger.info('convert: done; for diffusers: %s', call.target)


def _described(model: VideoModel) -> str:
  if not model.adapters:
    return str(model.path)
  paths = ', '.join(str(adapter.path) for adapter in model.adapters)
  return f'{model.path} with the adapters {paths}'


def _frozen(setup: Setup, model: VideoModel) -> Params:
  """The frozen parameters of a transformer, as stored; {} for LoRA."""
  _, frozen = setup.split(setup.model.abstract_params)
  if not frozen or setup.trainable == 'lora':
    return {}
  params = model.load('transformer', setup.model, setup.shardings)
  return setup.split(params)[1]

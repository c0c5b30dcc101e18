"""Generates videos from prompts: mp4 files and a manifest.

usage: lift sample --config=FILE.py[:variant] --workdir=DIR [--multihost]
                   [--config.SECTION.FIELD=VALUE ...]

Reads prompts (text, JSON lines, or JSON as of HRA and VBench) and writes
DIR/videos/NAME.mp4, a line of DIR/manifest.jsonl for each, and a contact sheet.
The same command again generates missing or damaged videos; on SIGTERM the job
exits with status 143. With --multihost each host generates its share on its own
devices.

example: lift sample --config=configs/sample.py:smoke --workdir=runs/sample
"""

from collections.abc import Sequence
import dataclasses
import functools
import logging
import pathlib

import jax

from lift_jax import chips, partitioning
from lift_jax.cli import job_flags
from lift_jax.data.contact_sheet import SheetClip, write_contact_sheet
from lift_jax.data.prompts import read_prompts
from lift_jax.diffusion.sampler import SamplerConfig
from lift_jax.errors import UserError, listing
from lift_jax.jobs import inputs
from lift_jax.models.generator_config import ModelConfig, open_chosen
from lift_jax.models.generators import VideoModel
from lift_jax.partitioning import MeshConfig
from lift_jax.runtime import distributed, hub, storage
from lift_jax.runtime.batching import in_rounds
from lift_jax.runtime.files import remove_partials
from lift_jax.runtime.hashes import FileHashes
from lift_jax.runtime.progress import Progress, tracked
from lift_jax.runtime.shutdown import Stopped, StopSignal
from lift_jax.sampling import loop, noise
from lift_jax.sampling.clips import Clip, make_clips
from lift_jax.sampling.config import (
  OutputConfig,
  SamplingPromptsConfig,
  SamplingRunConfig,
  VideoConfig,
)
from lift_jax.sampling.fingerprints import clip_fingerprint
from lift_jax.sampling.generator import Generator
from lift_jax.sampling.manifest import LATENTS, VIDEOS, Manifest, file_name

_TOKENIZED_TOGETHER = 1000  # prompts


@dataclasses.dataclass(frozen=True)
class SampleConfig:
  """Sections of a sampling job; the mesh is that of one host's devices."""

  model: ModelConfig
  prompts: SamplingPromptsConfig
  video: VideoConfig
  sampler: SamplerConfig
  mesh: MeshConfig
  run: SamplingRunConfig
  output: OutputConfig


def main(argv: list[str]) -> int:
  with job_flags.start(argv, SampleConfig, 'sample') as (call, logger):
    run(call, logger)
  return 0


def run(call: job_flags.Invocation, logger: logging.Logger) -> None:
  """Runs the job."""
  config, workdir = call.config, call.workdir
  model = open_chosen(config.model, workdir)
  inputs.log_adapters(model.adapters, logger)
  clips = read_clips(config, logger)
  num_prompts = len({clip.prompt.id for clip in clips})
  logger.info('sample: %d prompts, %d videos', num_prompts, len(clips))
  mesh = partitioning.make_mesh(config.mesh, jax.local_devices())
  logger.info('sample: %s', partitioning.describe(mesh))
  generator = Generator(
    model,
    config.model,
    mesh,
    config.video,
    config.sampler,
    negative=config.prompts.negative,
    offload=config.run.offload,
  )
  if generator.is_computed is not None:
    num_computed = int(generator.is_computed.sum())
    logger.info(
      'steps of the sampler: %d computed, %d skipped',
      num_computed,
      len(generator.is_computed) - num_computed,
    )
  _warn(config, generator, clips, logger)
  if config.prompts.initial_noise:
    clips = _with_initial_noise(config, workdir, clips, generator.latent_shape)
  manifest = _open_manifest(config, workdir, model, clips)
  mine = clips[jax.process_index() :: jax.process_count()]
  finished = manifest.finished(mine, verify=config.run.verify)
  logger.info(
    'sample: %d of %d videos are in %s', len(finished), len(mine), workdir
  )
  job_flags.write_config(call, 'sample')
  with distributed.independent_work('every host has generated its videos'):
    is_done = _make(config, generator, mine, finished, manifest, logger)
  is_done = distributed.true_everywhere(is_done)
  if distributed.is_primary():
    manifest.gather(clips)
    _write_sheet(config, workdir, clips, logger)
  if not is_done:
    raise Stopped


def read_clips(config: SampleConfig, logger: logging.Logger) -> list[Clip]:
  """All clips of the config, of all hosts; warns of prompts without any."""
  root = hub.data_folder(config.prompts.root, (config.prompts.file,))
  prompts, num_duplicates = read_prompts(
    storage.join(storage.to_path(root), config.prompts.file),
    config.prompts.text_key,
    config.prompts.name_key,
  )
  clips, skipped = make_clips(
    prompts,
    config.prompts.videos_per_prompt,
    config.prompts.seed,
    config.output.name,
    config.prompts.same_name,
  )
  if num_duplicates:
    logger.info('%d duplicate prompts are ignored', num_duplicates)
  if skipped:
    logger.warning(
      '%d prompts are skipped, as their files would be named like those of '
      'others: %s',
      len(skipped),
      listing(prompt.where for prompt in skipped),
    )
  return clips


def _with_initial_noise(
  config: SampleConfig,
  workdir: pathlib.Path,
  clips: Sequence[Clip],
  shape: noise.Shape,
) -> list[Clip]:
  """The clips with the hashes of their noise, each read once."""
  with FileHashes(workdir, jax.process_index()) as hashes:
    clips = noise.with_initial_noise(
      clips,
      storage.to_path(config.prompts.initial_noise),
      shape,
      functools.partial(hashes.sha256, read=config.run.verify),
    )
  # Next, the lists of all hosts are merged.
  distributed.barrier('the initial noise is hashed')
  return clips


def _warn(
  config: SampleConfig,
  generator: Generator,
  clips: Sequence[Clip],
  logger: logging.Logger,
) -> None:
  """Warns where the result will differ from the config or the prompts."""
  if generator.num_frames != config.video.num_frames:
    logger.warning(
      'video.num_frames is %d, but the autoencoder decodes to %d frames, as '
      'that of the reference does; all are written',
      config.video.num_frames,
      generator.num_frames,
    )
  prompts = list({clip.prompt.id: clip.prompt for clip in clips}.values())
  are_long = []
  for some in in_rounds(tracked(prompts, 'prompt'), _TOKENIZED_TOGETHER):
    are_long += generator.too_long([prompt.text for prompt in some])
  too_long = [
    prompt.where
    for prompt, is_long in zip(prompts, are_long, strict=True)
    if is_long
  ]
  if too_long:
    logger.warning(
      '%d prompts are longer than the %d tokens that the model reads and are '
      'truncated: %s',
      len(too_long),
      generator.max_text_length,
      listing(too_long),
    )


def _open_manifest(
  config: SampleConfig,
  workdir: pathlib.Path,
  model: VideoModel,
  clips: Sequence[Clip],
) -> Manifest:
  """The manifest, with the lines of earlier runs merged into one file."""
  kinds = (VIDEOS, LATENTS) if config.output.keep_latents else (VIDEOS,)
  manifest = Manifest(
    workdir,
    clip_fingerprint(
      model,
      config.model,
      config.video,
      config.sampler,
      negative_prompt=config.prompts.negative,
      fps=config.output.fps,
      crf=config.output.crf,
    ),
    kinds,
    jax.process_index(),
  )
  if distributed.is_primary():
    for kind in kinds:
      _make_folder(workdir / kind)
    manifest.gather(clips)
  distributed.barrier('the manifest is merged')
  return manifest


def _make_folder(folder: pathlib.Path) -> None:
  """Creates a folder, or deletes partial files of a killed run."""
  try:
    folder.mkdir(exist_ok=True)
  except OSError as error:
    raise UserError(
      f'{folder} cannot be created ({error.strerror}); a folder is needed there'
    ) from None
  remove_partials(folder)


def _make(
  config: SampleConfig,
  generator: Generator,
  clips: Sequence[Clip],
  finished: set[str],
  manifest: Manifest,
  logger: logging.Logger,
) -> bool:
  """Generates missing clips, with a progress bar, until SIGTERM.

  Returns:
    Whether all clips are finished.
  """
  progress = Progress(
    len(clips),
    'video',
    done=len(finished),
    logger=logger,
    enabled=distributed.is_primary(),
  )
  with StopSignal(together=False) as stop, progress:
    return loop.run(
      generator,
      clips,
      finished,
      manifest,
      config.run,
      config.output,
      config.prompts.initial_noise,
      stop,
      progress,
      chips.peak_flops(generator.mesh.devices.flat[0].device_kind),
      logger,
    )


def _write_sheet(
  config: SampleConfig,
  workdir: pathlib.Path,
  clips: Sequence[Clip],
  logger: logging.Logger,
) -> None:
  """Writes the contact sheet."""
  if not config.output.sheet_clips:
    return
  written = {path.name: path for path in storage.children(workdir / VIDEOS)}
  shown = [
    SheetClip(path, path.name, clip.prompt.text)
    for clip in clips
    if (path := written.get(file_name(clip, VIDEOS)))
  ]
  path = workdir / 'contact_sheet.png'
  write_contact_sheet(path, shown, max_clips=config.output.sheet_clips)
  logger.info('sample: %d videos, contact sheet in %s', len(shown), path)

"""Settings of `lift sample`, except those of model, mesh and sampler."""

import dataclasses

from lift_jax import config_lib
from lift_jax.errors import UserError
from lift_jax.sampling.clips import SAME_NAME


@dataclasses.dataclass(frozen=True)
class SamplingPromptsConfig:
  """Which clips to generate.

  Attributes:
    file: prompts, see `data.prompts`.
    text_key: JSON key of the prompt; '' detects it.
    name_key: JSON key of the text that names the files; '' detects it.
    negative: negative prompt of all clips; '' is the published one.
    videos_per_prompt: clips of each prompt that has no "clips" in the file.
    seed: determines, with prompt and index, the seed of each clip, unless the
      file states a "base_seed".
    same_name: 'error', or 'first' to skip a prompt whose files would have the
      same name as those of an earlier one.
    initial_noise: folder with one NAME.npy for each clip to start from, see
      `sampling.noise`; '' samples it.
    root: folder that `file` is relative to, or the id of a data set on the hub;
      '' is the current folder.
  """

  file: str
  text_key: str
  name_key: str
  negative: str
  videos_per_prompt: int
  seed: int
  same_name: str
  initial_noise: str
  root: str = ''

  def __post_init__(self):
    if not self.file:
      raise UserError(
        'prompts.file is empty: give a .txt, .jsonl or .json file, as '
        '--config.prompts.file=FILE'
      )
    config_lib.check_choice('prompts.same_name', self.same_name, SAME_NAME)
    if self.videos_per_prompt < 1:
      raise UserError(
        f'prompts.videos_per_prompt is {self.videos_per_prompt}; it must be '
        'above 0'
      )


@dataclasses.dataclass(frozen=True)
class VideoConfig:
  """Size of the clips.

  Attributes:
    height: in pixels.
    width: in pixels.
    num_frames: r k + 1, where r frames make one latent frame; for CogVideoX r
      is 4, 8 k + 1 is best, and it was trained with 49.
    tiling: whether the autoencoder decodes in tiles, as the reference does: a
      quarter of the memory, and slightly different pixels.
  """

  height: int
  width: int
  num_frames: int
  tiling: bool


@dataclasses.dataclass(frozen=True)
class SamplingRunConfig:
  """How the work is divided; affects clips only through rounding.

  Attributes:
    batch_per_shard: clips that are denoised together on each shard of the
      batch (the mesh has data x fsdp shards).
    batches_per_round: batches that are embedded, then denoised, then decoded.
      A killed job loses at most one round.
    offload: whether each network is moved to the host while others run. Takes a
      few seconds per round, and host memory for all weights; a single round
      takes neither.
    num_writers: threads that encode mp4 files.
    verify: whether to read and hash all files of finished clips and of initial
      noise again, and not only those whose size or time of change is another
      one.
  """

  batch_per_shard: int
  batches_per_round: int
  offload: bool
  num_writers: int
  verify: bool = False

  def __post_init__(self):
    for name in ('batch_per_shard', 'batches_per_round', 'num_writers'):
      if getattr(self, name) < 1:
        raise UserError(f'run.{name} must be above 0')


@dataclasses.dataclass(frozen=True)
class OutputConfig:
  """Which files to write.

  Attributes:
    name: pattern of file names, with {id}, {prompt} and {index}.
    fps: frames per second of the mp4 files.
    crf: their constant rate factor (x264): 0 is nearly lossless, 18 visually
      lossless, 51 worst.
    keep_latents: also writes latents/NAME.npy.
    sheet_clips: clips on the contact sheet; 0 writes none.
  """

  name: str
  fps: float
  crf: int
  keep_latents: bool
  sheet_clips: int

  def __post_init__(self):
    if not 1 <= self.fps <= 1000:
      raise UserError(f'output.fps is {self.fps}; give a number from 1 to 1000')
    if not 0 <= self.crf <= 51:
      raise UserError(f'output.crf is {self.crf}; give a number from 0 to 51')
    if self.sheet_clips < 0:
      raise UserError('output.sheet_clips must not be below 0')

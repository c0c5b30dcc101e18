"""LiFT-HRA as a TensorFlow data set, which needs no TensorFlow.

What it holds are ratings of generated clips, each on one of three scales and
with the reason that a person gave, beside the frames that a critic sees of the
clip: at most 8 of them, in the size of the file. It reads your own copy of the
data, or any other files of the same form (see `lift_jax.data.hra`).

Build it from Python, where ROOT holds LiFT-HRA-data.json and the clips:

  import tensorflow_datasets as tfds
  from data.lift_hra import lift_hra_dataset_builder as lift_hra

  builder = lift_hra.Builder(data_dir='DIR')
  builder.download_and_prepare(
    download_config=tfds.download.DownloadConfig(manual_dir='ROOT')
  )

or by the command of TFDS, which itself does not start without TensorFlow
(`pip install tensorflow apache-beam mlcroissant`):

  tfds build data/lift_hra --config=png --data_dir=DIR --manual_dir=ROOT

Then read it, at random and thus also through Grain:

  source = tfds.data_source('lift_hra/png', split='train', data_dir='DIR')
  grain.MapDataset.source(source).shuffle(seed=0)

Every rating carries the frames of its clip, so a clip is stored once for each
question: in PNG, which is exact, about 2 MB a rating at 512 x 512; in JPEG
('lift_hra/jpeg') about 0.6 MB. Other files, splits or questions are
settings; give them with a name of your own:

  lift_hra.Builder(
    data_dir='DIR',
    config=lift_hra.Config(
      name='mine', hra=('ours.json',), real=('vidgen-data.json',),
      validation=0.05, test=0.1,
    ),
  )
"""

from collections.abc import Iterator
import dataclasses
import io
import pathlib
from typing import Any

import numpy as np
from PIL import Image
import tensorflow_datasets as tfds

from lift_jax.data import critic_records, video
from lift_jax.data.critic_pipeline import NUM_FRAMES
from lift_jax.data.frames import choose_critic_frames
from lift_jax.data.hra import DIMENSIONS, LABELS, HRARecord

# Of the JPEG files; above it they grow faster than they gain.
_JPEG_QUALITY = 95

_SOURCES = ('generated', 'real')


@dataclasses.dataclass(eq=False, kw_only=True)
class Config(tfds.core.BuilderConfig):
  """Which records, and how their frames are kept.

  Attributes:
    hra: files of rated clips that a model made, below the root.
    real: files of rated real clips, likewise.
    questions: prompt JSON; '' finds the questions in the files.
    validation: fraction of the records in that split.
    test: fraction of the records in that split. No two splits share a clip or
      a caption.
    seed: of the division.
    encoding: 'png' or 'jpeg'.
  """

  hra: tuple[str, ...] = ('LiFT-HRA-data.json',)
  real: tuple[str, ...] = ()
  questions: str = ''
  validation: float = 0.0
  test: float = 0.0
  seed: int = 0
  encoding: str = 'png'


class Builder(tfds.core.GeneratorBasedBuilder):
  """Ratings with the frames that they are about."""

  VERSION = tfds.core.Version('1.0.0')
  RELEASE_NOTES = {'1.0.0': 'First release.'}
  MANUAL_DOWNLOAD_INSTRUCTIONS = (
    'Put the JSON files, LiFT-HRA-data.json by default, and the clips that '
    'they name into one folder, and give that folder as manual_dir.'
  )
  BUILDER_CONFIGS = [
    Config(name='png', description='Frames without loss.'),
    Config(name='jpeg', description='Smaller frames.', encoding='jpeg'),
  ]

  def __init__(self, *, file_format: str = 'array_record', **kwargs):
    """As other builders, but what it writes can be read at random."""
    super().__init__(file_format=file_format, **kwargs)

  def _info(self) -> tfds.core.DatasetInfo:
    frame = tfds.features.Image(
      shape=(None, None, 3), encoding_format=self.builder_config.encoding
    )
    return tfds.core.DatasetInfo(
      builder=self,
      description='Human ratings of videos, with reasons (LiFT-HRA).',
      homepage='https://arxiv.org/abs/2412.04814',
      citation='arXiv:2412.04814',
      features=tfds.features.FeaturesDict(
        {
          'frames': tfds.features.Sequence(frame, length=None),
          'video': tfds.features.Text(),
          'caption': tfds.features.Text(),
          'question': tfds.features.Text(),
          'dimension': tfds.features.ClassLabel(names=DIMENSIONS),
          'label': tfds.features.ClassLabel(names=LABELS),
          'rationale': tfds.features.Text(),
          'source': tfds.features.ClassLabel(names=_SOURCES),
        }
      ),
    )

  def _split_generators(self, dl_manager: tfds.download.DownloadManager):
    config = self.builder_config
    records = critic_records.read_critic_records(
      critic_records.FeedbackConfig(
        root=str(dl_manager.manual_dir),
        hra=config.hra,
        real=config.real,
        held_out=(),
        questions=config.questions,
        on_bad_record='error',
        split=critic_records.SplitConfig(
          config.validation, config.test, config.seed, by_content=False
        ),
      )
    )
    return {
      name: self._generate_examples(records, name)
      for name, part in records.splits.items()
      if part
    }

  def _generate_examples(
    self, records: critic_records.CriticRecords, split: str
  ) -> Iterator[tuple[str, dict[str, Any]]]:
    for record in records.splits[split]:
      source = _SOURCES[records.is_real(record)]
      # TFDS orders what it writes by a hash of this key.
      yield (
        f'{record.file} {record.index}',
        {
          'frames': self._frames(record, records.path(record)),
          'video': record.video,
          'caption': record.caption,
          'question': record.question,
          'dimension': record.dimension,
          'label': record.label,
          'rationale': record.rationale,
          'source': source,
        },
      )

  def _frames(self, record: HRARecord, path: pathlib.Path) -> list[bytes]:
    """The frames as files; TFDS would need TensorFlow to make them."""
    clip = video.decode(
      path, NUM_FRAMES, where=record.where, choose=choose_critic_frames
    )
    return [
      _encode(frame, self.builder_config.encoding) for frame in clip.frames
    ]


def _encode(frame_hw3: np.ndarray, encoding: str) -> bytes:
  file = io.BytesIO()
  options = {'quality': _JPEG_QUALITY} if encoding == 'jpeg' else {}
  Image.fromarray(frame_hw3).save(file, format=encoding, **options)
  return file.getvalue()

"""LiFT-HRA as a TFDS data set; reading and building needs no TensorFlow.

Each example is a rating of a generated clip in one of three dimensions, with
its rationale and the frames that a critic sees: at most 8, at the resolution of
the file. It reads your own copy of the data, or other files of the same format
(see `lift_jax.data.hra`).

Build it from Python, where ROOT has LiFT-HRA-data.json and the clips:

  import tensorflow_datasets as tfds
  from data.lift_hra import lift_hra_dataset_builder as lift_hra

  builder = lift_hra.Builder(data_dir='DIR')
  builder.download_and_prepare(
    download_config=tfds.download.DownloadConfig(manual_dir='ROOT')
  )

or with the command of TFDS, which itself needs TensorFlow
(`pip install tensorflow apache-beam mlcroissant`):

  tfds build data/lift_hra --config=png --data_dir=DIR --manual_dir=ROOT

Then read it with random access, such as through Grain:

  source = tfds.data_source('lift_hra/png', split='train', data_dir='DIR')
  grain.MapDataset.source(source).shuffle(seed=0)

Every example has the frames of its clip, so a clip is stored once per question:
as PNG, which is lossless, about 2 MB per example at 512 x 512; as JPEG
('lift_hra/jpeg') about 0.6 MB. For other files, splits or questions define a
config with a name of your own:

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
from typing import Any

import numpy as np
from PIL import Image
import tensorflow_datasets as tfds

from lift_jax.data import critic_records, video
from lift_jax.data.hra import DIMENSIONS, LABELS, HRARecord
from lift_jax.models.frames import evenly_spaced_frames

_NUM_FRAMES = 8  # that LiFT's critics see

# Higher qualities make much larger files for little gain.
_JPEG_QUALITY = 95

_SOURCES = ('generated', 'real')


@dataclasses.dataclass(eq=False, kw_only=True)
class Config(tfds.core.BuilderConfig):
  """Which records, and how their frames are encoded.

  Attributes:
    hra: files of rated, generated clips, relative to the root.
    real: files of rated real clips, likewise.
    questions: prompt JSON; '' finds the questions in the files.
    validation: fraction of the records in that split.
    test: fraction of the records in that split. No two splits share a clip or
      a caption.
    seed: of the split.
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
  """Ratings with the frames of their clips."""

  VERSION = tfds.core.Version('1.1.0')
  RELEASE_NOTES = {
    '1.1.0': 'Another order; JSON lines, and several ratings per entry.',
    '1.0.0': 'First release.',
  }
  MANUAL_DOWNLOAD_INSTRUCTIONS = (
    'Put the JSON files, LiFT-HRA-data.json by default, and their clips into '
    'one folder, and pass that folder as manual_dir.'
  )
  BUILDER_CONFIGS = [
    Config(name='png', description='Lossless frames.'),
    Config(name='jpeg', description='Smaller frames.', encoding='jpeg'),
  ]

  def __init__(self, *, file_format: str = 'array_record', **kwargs):
    """As other builders, but with a format that allows random access."""
    super().__init__(file_format=file_format, **kwargs)

  def _info(self) -> tfds.core.DatasetInfo:
    frame = tfds.features.Image(
      shape=(None, None, 3), encoding_format=self.builder_config.encoding
    )
    return tfds.core.DatasetInfo(
      builder=self,
      description='Human ratings of videos, with rationales (LiFT-HRA).',
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
        follow_links='hub',
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
      # TFDS orders examples by a hash of this key.
      yield (
        f'{record.file} {record.place}',
        {
          'frames': self._frames(record),
          'video': record.video,
          'caption': record.caption,
          'question': record.question,
          'dimension': record.dimension,
          'label': record.label,
          'rationale': record.rationale,
          'source': source,
        },
      )

  def _frames(self, record: HRARecord) -> list[bytes]:
    """The encoded frames; TFDS would need TensorFlow to encode them."""
    clip = video.decode(
      record.path,
      _NUM_FRAMES,
      where=record.where,
      choose=evenly_spaced_frames,
    )
    return [
      _encode(frame, self.builder_config.encoding) for frame in clip.frames
    ]


def _encode(frame_hw3: np.ndarray, encoding: str) -> bytes:
  file = io.BytesIO()
  options = {'quality': _JPEG_QUALITY} if encoding == 'jpeg' else {}
  Image.fromarray(frame_hw3).save(file, format=encoding, **options)
  return file.getvalue()

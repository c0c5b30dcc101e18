"""Videos on the way: the same on any mesh, and no part of the training."""

import dataclasses

from absl.testing import parameterized
import jax
import numpy as np
import pytest

from lift_jax import partitioning
from lift_jax.data import video as video_lib
from lift_jax.diffusion.sampler import SamplerConfig
from lift_jax.diffusion.schedule import ScheduleConfig
from lift_jax.errors import UserError
from lift_jax.models import generator_folder, generators
from lift_jax.models.cogvideox.config import TransformerConfig
from lift_jax.models.cogvideox.model import CogVideoXSizes
from lift_jax.models.cogvideox.vae_config import VAEConfig
from lift_jax.models.generator_config import ModelConfig
from lift_jax.models.lora import LoRAConfig
from lift_jax.models.offloading import OffloadedNetwork
from lift_jax.models.t5.config import T5Config
from lift_jax.sampling.config import VideoConfig
from lift_jax.training import alignment
from lift_jax.training.validation import Validation, ValidationConfig

CONFIG = ValidationConfig(
  every_steps=3,
  prompts=('a red fox', 'two/kites', 'a bell'),
  negative='blurry',
  seed=4,
  fps=8.0,
  video=VideoConfig(height=16, width=32, num_frames=9, tiling=True),
  sampler=SamplerConfig('dpm', 2),
)
MODEL = ModelConfig(
  path='',
  adapter='',
  random=None,
  compute_dtype='float32',
  attention='auto',
)
NAMES = ('00-a red fox', '01-two_kites~', '02-a bell')


@pytest.fixture(scope='module')
def model(tmp_path_factory):
  path = tmp_path_factory.mktemp('models') / 'tiny'
  sizes = CogVideoXSizes(
    family='cogvideox',
    seed=0,
    transformer=TransformerConfig(
      num_layers=1,
      num_heads=2,
      head_dim=16,
      time_embed_dim=16,
      text_embed_dim=16,
      max_text_length=16,
      sample_height=12,
      sample_width=20,
    ),
    vae=VAEConfig(
      block_out_channels=(8, 8, 8, 8),
      layers_per_block=1,
      norm_num_groups=4,
      sample_height=96,
      sample_width=160,
    ),
    text_encoder=T5Config(
      vocab_size=384, d_model=16, d_kv=8, d_ff=16, num_layers=1, num_heads=2
    ),
    schedule=ScheduleConfig(),
  )
  generator_folder.make_random_model(path, sizes)
  return generators.open_model(path)


@pytest.fixture(scope='module')
def whole_set(model, tmp_path_factory):
  """(workdir, small copies) of the videos of a mesh that cuts all there is."""
  workdir = tmp_path_factory.mktemp('validation')
  left_by_a_kill = workdir / 'validation' / 'step_00000001' / '.0.partial'
  left_by_a_kill.parent.mkdir(parents=True)
  left_by_a_kill.touch()
  sizes = {'data': 2, 'tensor': 2, 'context': 2, 'fsdp': 1}
  return workdir, _make(model, workdir, sizes, CONFIG)


def _make(model, workdir, sizes, config, num_devices=8):
  mesh = partitioning.make_mesh(
    partitioning.MeshConfig(**sizes), jax.devices()[:num_devices]
  )
  setup = alignment.make_setup(model, MODEL, 'blocks', LoRAConfig(), mesh)
  offloaded = OffloadedNetwork(
    model, 'transformer', mesh, 'float32', offload=False
  )
  validation = Validation(config, model, setup.model, mesh, 'float32', workdir)
  with offloaded.params() as params:
    return validation(12, params)


class ValidationTest(parameterized.TestCase):
  @pytest.fixture(autouse=True)
  def _setting(self, tmp_path, model, whole_set):
    self.folder, self.model = tmp_path, model
    self.workdir, self.previews = whole_set

  def test_files(self):
    paths = sorted((self.workdir / 'validation/step_00000012').iterdir())
    self.assertLen(paths, 3)
    for path, name, preview in zip(paths, NAMES, self.previews, strict=True):
      self.assertStartsWith(path.name, name)
      self.assertStartsWith(preview, name)
      clip = video_lib.decode(path, where=name)
      self.assertEqual(clip.frames.shape, (9, 16, 32, 3))
      self.assertEqual(self.previews[preview].shape, (9, 16, 32, 3))
      # The file shows what the copy shows, but for its compression.
      difference = np.abs(np.int32(clip.frames) - self.previews[preview])
      self.assertLess(difference.mean(), 30)
    self.assertEmpty(list(self.workdir.rglob('*partial*')))

  @parameterized.parameters(
    ({'data': 1, 'fsdp': 1}, 1), ({'data': 1, 'fsdp': 8}, 8)
  )
  def test_mesh(self, sizes, num_devices):
    """Three clips: more than a mesh takes at a time, and fewer."""
    others = _make(self.model, self.folder, sizes, CONFIG, num_devices)
    self.assertEqual(list(others), list(self.previews))
    for name, preview in self.previews.items():
      difference = np.abs(np.int32(preview) - others[name])
      self.assertLessEqual(difference.max(), 1)
    paths = sorted(self.folder.rglob('*.mp4'))
    self.assertLen(paths, 3)

  def test_another_prompt_changes_no_other(self):
    config = dataclasses.replace(CONFIG, prompts=('new', *CONFIG.prompts))
    others = list(_make(self.model, self.folder, {'fsdp': 8}, config).values())
    for preview, other in zip(self.previews.values(), others[1:], strict=True):
      self.assertLessEqual(np.abs(np.int32(preview) - other).max(), 1)
    self.assertGreater(np.abs(np.int32(others[0]) - others[1]).mean(), 1)

  def test_texts_are_kept(self):
    """A run that resumes does not load the text encoder."""
    (kept,) = (self.workdir / 'validation').glob('text-*.npy')
    (self.folder / 'validation').mkdir()
    target = self.folder / 'validation' / kept.name
    target.write_bytes(kept.read_bytes())
    load = generators.VideoModel.load
    loaded = []

    def spy(model, component, *args):
      loaded.append(component)
      return load(model, component, *args)

    with pytest.MonkeyPatch.context() as patch:
      patch.setattr(generators.VideoModel, 'load', spy)
      _make(self.model, self.folder, {'fsdp': 8}, CONFIG)
      self.assertEqual(loaded, ['transformer', 'vae'])
      other = dataclasses.replace(CONFIG, negative='dark')
      _make(self.model, self.folder, {'fsdp': 8}, other)
      self.assertIn('text_encoder', loaded)

  @parameterized.parameters(
    ({'every_steps': -1}, 'every_steps must not be below 0'),
    ({'prompts': ()}, 'validation.prompts is empty'),
    ({'prompts': ('a', ' ')}, 'has a blank prompt'),
    (
      {'sampler': SamplerConfig(cache='teacache', cache_curve='curve.json')},
      "a curve is of one; set validation.sampler.cache = 'none'",
    ),
  )
  def test_bad_config(self, change, message):
    with self.assertRaisesRegex(UserError, message):
      dataclasses.replace(CONFIG, **change)

  @parameterized.parameters(
    ({'height': 20}, 'video.height is 20'),
    ({'num_frames': 8}, 'video.num_frames is 8'),
  )
  def test_bad_size(self, change, message):
    video = dataclasses.replace(CONFIG.video, **change)
    config = dataclasses.replace(CONFIG, video=video)
    with self.assertRaisesRegex(UserError, message):
      _make(self.model, self.folder, {'fsdp': 8}, config)
    self.assertEmpty(list(self.folder.rglob('*.mp4')))

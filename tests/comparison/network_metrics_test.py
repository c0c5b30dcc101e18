"""Metrics of networks, against VBench's definitions and its preprocessing."""

import functools

from absl.testing import parameterized
import numpy as np
from PIL import Image
import pytest

from lift_jax.comparison import measuring
from lift_jax.comparison.network_metrics import (
  AESTHETIC,
  CLIP_B32,
  CLIP_L14,
  DINO,
  consistency,
  load_head,
  network_measures,
)
from lift_jax.comparison.networks import (
  ClipNetwork,
  DinoNetwork,
  as_images,
  resize,
)
from lift_jax.data.suites import SuitePrompt
from lift_jax.errors import UserError
from lift_jax.models.clip.tokenizer import load_tokenizer
from tests.comparison import networks
from tests.models.clip import tiny_clip
from tests.models.dino import tiny_dino
from tests.optional import safetensors_torch, torch, transformers

_NAMES = (
  'own_subject_consistency',
  'own_background_consistency',
  'own_aesthetic_quality',
  'own_appearance_style',
  'clip_text_alignment',
)


@pytest.fixture(scope='module')
def folders(tmp_path_factory):
  return networks.write_networks(tmp_path_factory.mktemp('networks'))


def _frames(num_frames=5, height=64, width=97):
  """Frames that change slowly, so that cosines differ from 0 and 1."""
  rng = np.random.default_rng(0)
  steps = rng.normal(0, 30, (num_frames, height // 4, width // 4 + 1, 3))
  coarse = np.clip(128 + steps.cumsum(0), 0, 255)
  fine = coarse.repeat(4, axis=1).repeat(4, axis=2)[:, :height, :width]
  return fine.astype(np.uint8)


def _normalised(frames_t3hw, mean, std):
  mean, std = (torch.tensor(x)[:, None, None] for x in (mean, std))
  return (frames_t3hw / 255 - mean) / std


def _clip_normalised(frames_t3hw):
  processor = transformers.CLIPImageProcessorPil()
  return _normalised(frames_t3hw, processor.image_mean, processor.image_std)


def _as_tensor(frames_thw3):
  return torch.tensor(frames_thw3.transpose(0, 3, 1, 2).astype(np.float32))


def _resized(frames_thw3, mode):
  """torchvision's Resize(30) of a tensor: the longer side is rounded down."""
  return torch.nn.functional.interpolate(
    _as_tensor(frames_thw3), size=(30, 30 * 97 // 64), mode=mode
  )


def _cropped(frames_t3hw):
  """torchvision's CenterCrop(30) of 30 x 45, whose rest is 15 columns."""
  assert frames_t3hw.shape[2:] == (30, 45)
  return frames_t3hw[:, :, :, 8:38]


def _as_images(frames_thw3):
  """Resize(30) and CenterCrop(30) of images."""
  resized = [
    np.asarray(Image.fromarray(frame).resize((45, 30), Image.BICUBIC))
    for frame in frames_thw3
  ]
  return _cropped(_as_tensor(np.stack(resized)))


def _features(output):
  return getattr(output, 'pooler_output', output)


def _clip_features(folder, pixels_t3hw):
  model = transformers.CLIPModel.from_pretrained(folder)
  with torch.no_grad():
    return _features(model.get_image_features(pixels_t3hw))


def _dino_features(folder, pixels_t3hw):
  model = transformers.ViTModel.from_pretrained(folder, add_pooling_layer=False)
  old = tiny_dino.TINY.image_size // tiny_dino.TINY.patch_size

  def positions(embeddings, height, width):
    del embeddings
    table = model.embeddings.position_embeddings
    patches = torch.nn.functional.interpolate(
      table[:, 1:].reshape(1, old, old, -1).permute(0, 3, 1, 2),
      scale_factor=tuple((size // 7 + 0.1) / old for size in (height, width)),
      mode='bicubic',
    )
    return torch.cat(
      [table[:, :1], patches.permute(0, 2, 3, 1).flatten(1, 2)], dim=1
    )

  model.embeddings.interpolate_pos_encoding = positions
  with torch.no_grad():
    output = model(pixels_t3hw, interpolate_pos_encoding=True)
  return output.last_hidden_state[:, 0]


def _consistency(features_tf):
  """As subject_consistency.py and background_consistency.py compute it."""
  features_tf = torch.nn.functional.normalize(features_tf, dim=-1, p=2)
  total = 0.0
  cosine = functools.partial(torch.nn.functional.cosine_similarity, dim=0)
  for t in range(1, len(features_tf)):
    previous = max(0.0, cosine(features_tf[t - 1], features_tf[t]).item())
    first = max(0.0, cosine(features_tf[0], features_tf[t]).item())
    total += (previous + first) / 2
  return total / (len(features_tf) - 1)


def _similarity(folder, frames_thw3, text):
  """As appearance_style.py: the logit of each frame, over 100."""
  model = transformers.CLIPModel.from_pretrained(folder)
  ids = torch.tensor([load_tokenizer(folder)(text)])
  with torch.no_grad():
    logits = model(
      input_ids=ids, pixel_values=_clip_normalised(_as_images(frames_thw3))
    ).logits_per_text[0]
  return np.mean([float(logit) / 100 for logit in logits])


def _measures(folders):
  """The opened measures, by the name of their metric."""
  prompts = [SuitePrompt('name', 'text', 1, (), 'by me')]
  opened = measuring.open_measures(
    network_measures(networks.SIZES), folders, prompts
  )
  return {one.names[0]: one for one in opened}


@pytest.fixture(scope='module')
def measures(folders):
  return _measures(folders)


# Observed: below 2e-7.
_DELTA = 3e-6


def test_subject_consistency(folders, measures):
  frames = _frames()
  pixels = _normalised(
    _resized(frames, 'bilinear'), (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
  )
  expected = _consistency(_dino_features(folders[DINO], pixels))
  (actual,) = measures['own_subject_consistency'].compute(frames)
  assert actual == pytest.approx(expected, abs=_DELTA)
  assert 0.1 < actual < 0.999


def test_background_consistency(folders, measures):
  frames = _frames()
  pixels = _clip_normalised(_cropped(_resized(frames, 'bicubic')))
  expected = _consistency(_clip_features(folders[CLIP_B32], pixels))
  (actual,) = measures['own_background_consistency'].compute(frames)
  assert actual == pytest.approx(expected, abs=_DELTA)
  assert 0.1 < actual < 0.999


def test_aesthetic_quality(folders, measures):
  frames = _frames()
  pixels = _clip_normalised(_cropped(_resized(frames, 'bicubic')))
  features = torch.nn.functional.normalize(
    _clip_features(folders[CLIP_L14], pixels), dim=-1, p=2
  )
  head = torch.nn.Linear(tiny_clip.TINY.projection_dim, 1)
  head.load_state_dict(safetensors_torch.load_file(folders[AESTHETIC]))
  with torch.no_grad():
    expected = (head(features).squeeze() / 10).mean().item()
  (actual,) = measures['own_aesthetic_quality'].compute(frames)
  assert actual == pytest.approx(expected, abs=_DELTA)


@pytest.mark.parametrize(
  ('name', 'text'),
  [('own_appearance_style', 'by me'), ('clip_text_alignment', 'text')],
)
def test_text(folders, measures, name, text):
  frames = _frames()
  expected = _similarity(folders[CLIP_B32], frames, text)
  measure = measures[name]
  assert measure.inputs('name') == (text,)
  (actual,) = measure.compute(frames, *measure.inputs('name'))
  # Over the published scale of 100; here it is 1 / 0.07.
  assert actual == pytest.approx(expected, abs=_DELTA)
  assert measure.compute(frames, 'another')[0] != actual


def test_sharded(folders):
  """Three frames on two devices give the features of one."""
  frames = _frames(3)
  for name, make in (
    (DINO, functools.partial(DinoNetwork, expected=networks.SIZES.dino)),
    (
      CLIP_B32,
      functools.partial(ClipNetwork, expected=networks.SIZES.clip_b32),
    ),
  ):
    one, two = (
      make(folders[name], name='', devices=networks.devices(count))
      for count in (1, 2)
    )
    expected = one.frames(frames)
    assert expected.shape[0] == 3
    np.testing.assert_allclose(two.frames(frames), expected, atol=2e-5)


class PreprocessingTest(parameterized.TestCase):
  """Sizes beside that of the other tests: upright, square, enlarged.

  torch computes weights in fp32, so that levels differ by 1e-3 of 255.
  """

  @parameterized.parameters(
    ((97, 64), (45, 30), 8), ((64, 64), (30, 30), 0), ((20, 31), (30, 46), 8)
  )
  def test_tensors(self, old, new, cut):
    frames = _frames(2, *old)
    for kind, mode in (('linear', 'bilinear'), ('cubic', 'bicubic')):
      expected = torch.nn.functional.interpolate(
        _as_tensor(frames), size=new, mode=mode
      )
      expected = expected.numpy().transpose(0, 2, 3, 1)
      actual = resize(frames, 30, kind, crop=False)
      np.testing.assert_allclose(actual, expected, atol=3e-3)
      rows, columns = (slice(cut * (n > 30), cut * (n > 30) + 30) for n in new)
      np.testing.assert_allclose(
        resize(frames, 30, kind, crop=True),
        expected[:, rows, columns],
        atol=3e-3,
      )

  @pytest.mark.fast
  def test_images(self):
    frames = _frames(2, 97, 64)
    expected = [
      Image.fromarray(frame)
      .resize((30, 45), Image.Resampling.BICUBIC)
      .crop((0, 8, 30, 38))
      for frame in frames
    ]
    np.testing.assert_array_equal(as_images(frames, 30), np.stack(expected))


class DefinitionTest(parameterized.TestCase):
  @pytest.mark.fast
  @parameterized.parameters(
    ([[1, 0], [1, 0], [1, 0]], 1),
    # Orthogonal to the first, then equal to the previous one.
    ([[1, 0], [0, 2], [0, 3]], 0.25),
    # Opposite: clipped at 0, one by one.
    ([[1, 0], [-1, 0], [1, 0]], 0.25),
    ([[1, 0], [1, 1]], 2**-0.5),
  )
  def test_consistency(self, features, expected):
    self.assertAlmostEqual(consistency(np.array(features)), expected)


@pytest.mark.fast
class OpenTest(parameterized.TestCase):
  @pytest.fixture(autouse=True)
  def _folder(self, tmp_path):
    self.folder = tmp_path

  def assert_refused(self, message, call):
    with self.assertRaisesRegex(UserError, message) as caught:
      call()
    self.assertNotIn('\n', str(caught.exception))

  def open(self, **weights):
    return measuring.open_measures(network_measures(), weights, [])

  def test_names(self):
    self.assertEqual(
      tuple(name for one in network_measures() for name in one.names), _NAMES
    )

  def test_what_is_measured(self):
    """Consistencies of their prompts; styles where there are any."""
    prompts = [
      SuitePrompt('a', 'x', 1, ('subject_consistency',)),
      SuitePrompt('b', 'x', 1, ('appearance_style',), 'oil'),
      SuitePrompt('c', 'long text', 1),
    ]
    about = [
      [prompt.name for prompt in prompts if measure.is_about(prompt)]
      for measure in network_measures()
    ]
    self.assertEqual(about, [['a', 'c'], ['c'], ['c'], ['b'], ['a', 'b', 'c']])
    *_, style, alignment = network_measures()
    self.assertEqual(style.text(prompts[1]), 'oil')
    # VBench compares clips with the short prompt.
    self.assertEqual(
      [alignment.text(prompt) for prompt in prompts], ['a', 'b', 'long text']
    )

  def test_unknown_weights(self):
    self.assert_refused(
      'metrics.weights has clip_b23, .* needed are aesthetic, clip_b32, clip_',
      lambda: self.open(clip_b23=self.folder),
    )

  def test_no_folder(self):
    self.assert_refused(
      'config.json: no such file',
      lambda: self.open(dino_b16=self.folder / 'none'),
    )

  @parameterized.parameters(
    (DINO, 'facebook/dino-vitb16'),
    (CLIP_B32, 'openai/clip-vit-base-patch32'),
    (CLIP_L14, 'openai/clip-vit-large-patch14'),
  )
  def test_another_size(self, name, published):
    write = tiny_dino.write_dino if name == DINO else tiny_clip.write_clip
    write(self.folder)
    networks.write_head(self.folder / 'head.safetensors', 768)
    weights = {name: self.folder}
    if name == CLIP_L14:
      weights[AESTHETIC] = self.folder / 'head.safetensors'
    self.assert_refused(
      f'{self.folder}: not {published}, with which',
      lambda: self.open(**weights),
    )

  def test_another_network(self):
    tiny_clip.write_clip(self.folder)
    self.assert_refused(
      "config.json: .*model_type='clip'.*use the config of a DINO",
      lambda: self.open(dino_b16=self.folder),
    )

  def test_only_a_pickle(self):
    tiny_dino.write_dino(self.folder)
    (self.folder / 'model.safetensors').rename(
      self.folder / 'pytorch_model.bin'
    )
    self.assert_refused(
      'contains neither model.safetensors nor .* in safetensors format',
      lambda: measuring.open_measures(
        network_measures(networks.SIZES), {DINO: self.folder}, []
      ),
    )

  def test_other_tensors(self):
    tiny_dino.write_dino(self.folder)
    (self.folder / 'model.safetensors').unlink()
    networks.write_head(self.folder / 'model.safetensors', 3)
    self.assert_refused(
      f'{self.folder}: tensors 2 unknown: bias, weight; 54 missing',
      lambda: measuring.open_measures(
        network_measures(networks.SIZES), {DINO: self.folder}, []
      ),
    )

  def test_head(self):
    path = self.folder / 'head.safetensors'
    networks.write_head(path, 7)
    self.assertEqual(load_head(path, 7).kernel_f.shape, (7,))
    self.assert_refused(
      r'weight \[1, 7\] instead of \[1, 768\]', lambda: load_head(path, 768)
    )
    pickle = self.folder / 'sa_0_4_vit_l_14_linear.pth'
    self.assert_refused(
      'linear.pth: is a pickle, .*docs/compare.md',
      lambda: load_head(pickle, 768),
    )
    # As a folder.
    path.rename(self.folder / 'model.safetensors')
    self.assertEqual(load_head(self.folder, 7).kernel_f.shape, (7,))

"""`lift sample`: whole jobs, killed and resumed ones, and bad input."""

import json
import logging
import pathlib
import re
import shutil
import signal
from unittest import mock

from absl.testing import parameterized
import jax
import numpy as np
import pytest

from lift_jax.data import video as video_lib
from lift_jax.runtime import hashes
from lift_jax.runtime.files import file_sha256
from lift_jax.sampling import loop
from tests.jobs import jobs, runs, sample_jobs
from tests.jobs.sample_jobs import PROMPTS, files_of, lines_of
from tests.models.cogvideox.tiny_pipeline import make_pipeline
from tests.optional import diffusers, peft, torch
from tests.torch_weights import scaled_error


class _SampleTest(parameterized.TestCase):
  @pytest.fixture(autouse=True)
  def _folders(self, tmp_path, world, undisturbed, caplog):
    self.folder = tmp_path
    self.workdir = tmp_path / 'run'
    self.model = world.workdir / 'model'
    self.undisturbed = undisturbed
    self.caplog = caplog

  def arguments(self, **settings) -> list[str]:
    return sample_jobs.arguments(
      self.workdir, self.model, self.folder, **settings
    )

  def sample(self, **settings) -> jobs.Outcome:
    return jobs.lift(*self.arguments(**settings))

  def assert_ended(self, outcome: jobs.Outcome):
    self.assertEqual((outcome.status, outcome.stderr), (0, ''))
    self.assertEmpty(jobs.leftovers(self.workdir))

  def assert_refused(self, outcome: jobs.Outcome, *words: str):
    self.assertEqual(outcome.status, 2)
    self.assertLen(outcome.stderr.splitlines(), 1)
    self.assertStartsWith(outcome.stderr, 'lift sample: error: ')
    for word in words:
      self.assertIn(word, outcome.stderr)


@pytest.fixture(scope='module')
def undisturbed(world, tmp_path_factory) -> pathlib.Path:
  """The workdir of a job that ran to its end."""
  folder = tmp_path_factory.mktemp('undisturbed')
  model = world.workdir / 'model'
  outcome = jobs.lift(*sample_jobs.arguments(folder / 'run', model, folder))
  assert (outcome.status, outcome.stderr) == (0, '')
  return folder / 'run'


class WholeTest(_SampleTest):
  def test_files(self):
    names = [f'{prompt}-0' for prompt in PROMPTS]
    videos, latents = (
      sorted(path.name for path in (self.undisturbed / kind).iterdir())
      for kind in ('videos', 'latents')
    )
    self.assertEqual(videos, sorted(f'{name}.mp4' for name in names))
    self.assertEqual(latents, sorted(f'{name}.npy' for name in names))
    for name in names:
      clip = video_lib.decode(
        self.undisturbed / 'videos' / f'{name}.mp4', where=name
      )
      self.assertEqual(clip.frames.shape, (9, 16, 32, 3))
      self.assertEqual(clip.fps, 8)
      latents = np.load(self.undisturbed / 'latents' / f'{name}.npy')
      self.assertEqual(latents.shape, (3, 16, 2, 4))
      self.assertGreater(np.std(latents), 0.1)
    self.assertTrue((self.undisturbed / 'contact_sheet.png').exists())
    config = json.loads((self.undisturbed / 'sample_config.json').read_text())
    self.assertEqual(config['sampler']['num_steps'], 3)

  def test_manifest(self):
    lines = lines_of(self.undisturbed)
    self.assertEqual([line['prompt'] for line in lines], list(PROMPTS))
    self.assertLen({line['seed'] for line in lines}, len(PROMPTS))
    for line in lines:
      self.assertEqual(line['sampler']['name'], 'dpm')
      self.assertEqual(line['video']['num_frames'], 9)
      self.assertRegex(line['checkpoint'], '^[0-9a-f]{16}$')
      self.assertLen(line['files'], 2)
      for name, digest in line['files'].items():
        self.assertEqual(file_sha256(self.undisturbed / name), digest)

  def test_second_run_does_nothing(self):
    shutil.copytree(self.undisturbed, self.workdir)
    before = {p: p.stat().st_mtime_ns for p in self.workdir.rglob('*.mp4')}
    with mock.patch.object(loop, '_round', side_effect=AssertionError):
      outcome = self.sample()
    self.assert_ended(outcome)
    self.assertTrue(outcome.has_logged('7 of 7 videos are in'))
    self.assertEqual(
      before, {p: p.stat().st_mtime_ns for p in self.workdir.rglob('*.mp4')}
    )

  def test_vbench(self):
    """Files after one text, videos of another; several of each."""
    entries = [
      {'prompt_en': 'A dog.', 'prompt_opt': 'A dog runs, it is long told'},
      {'prompt_en': 'a/b', 'prompt_opt': 'a slash'},
      {'prompt_en': 'A dog.', 'prompt_opt': 'The same dog, told otherwise'},
    ]
    file = self.folder / 'vbench.json'
    file.write_text(json.dumps(entries))
    settings = {
      'prompts__file': file,
      'prompts__text_key': 'prompt_opt',
      'prompts__videos_per_prompt': 2,
    }
    outcome = self.sample(**settings)
    self.assert_refused(outcome, "'A dog.-0'", 'record 2', 'record 0', '{id}')
    outcome = self.sample(**settings, prompts__same_name='first')
    self.assert_ended(outcome)
    self.assertTrue(outcome.has_logged('1 prompts are skipped'))
    names = sorted(path.stem for path in (self.workdir / 'videos').iterdir())
    self.assertEqual(names[:2], ['A dog.-0', 'A dog.-1'])
    self.assertRegex(names[2], '^a_b~[0-9a-f]{8}-0$')
    lines = lines_of(self.workdir)
    self.assertEqual(lines[0]['prompt'], 'A dog runs, it is long told')
    self.assertLen({line['seed'] for line in lines}, 4)
    latents = [np.load(p) for p in (self.workdir / 'latents').iterdir()]
    self.assertGreater(scaled_error(latents[0], latents[1]), 0.1)

  def test_more_of_the_same(self):
    """Another prompt and more videos of each leave what is there alone."""
    shutil.copytree(self.undisturbed, self.workdir)
    file = self.folder / 'more.txt'
    file.write_text('\n'.join(['first of all', *PROMPTS]))
    outcome = self.sample(prompts__file=file, prompts__videos_per_prompt=2)
    self.assert_ended(outcome)
    self.assertTrue(outcome.has_logged('7 of 16 videos are in'))
    before, after = files_of(self.undisturbed), files_of(self.workdir)
    for name in before.keys() - {'manifest.jsonl', 'contact_sheet.png'}:
      self.assertEqual(before[name], after[name], name)
    self.assertLen(lines_of(self.workdir), 16)


# Killed by a signal once some clips are there.
_STOPPED = """
import os, signal, sys
from lift_jax.cli import main
from lift_jax.sampling import manifest

# Which a shell takes away from what it starts in the background.
signal.signal(signal.SIGINT, signal.default_int_handler)

add = manifest.Manifest.add
number, name = int(sys.argv[1]), sys.argv[2]
count = 0

def add_and_stop(self, clip):
  global count
  add(self, clip)
  count += 1
  if count == number:
    os.kill(os.getpid(), getattr(signal, name))

manifest.Manifest.add = add_and_stop
sys.exit(main.main(sys.argv[3:]))
"""


class ResumeTest(_SampleTest):
  def assert_undisturbed(self):
    ours, expected = files_of(self.workdir), files_of(self.undisturbed)
    self.assertEqual(ours.keys(), expected.keys())
    for name, content in expected.items():
      self.assertEqual(ours[name], content, name)

  @parameterized.parameters('SIGKILL', 'SIGTERM', 'SIGINT')
  def test_stopped(self, name):
    process = jobs.start(_STOPPED, ['3', name, *self.arguments()])
    ((status, output, errors),) = jobs.finish(process)
    expected = {'SIGKILL': -signal.SIGKILL, 'SIGTERM': 143, 'SIGINT': 130}
    self.assertEqual(status, expected[name], errors)
    self.assertEqual('SIGTERM' in output, name == 'SIGTERM')
    self.assertNotIn('Traceback', errors)
    self.assertBetween(len(lines_of(self.workdir)), 3, len(PROMPTS) - 1)
    outcome = self.sample()
    self.assert_ended(outcome)
    self.assertFalse(outcome.has_logged('sample: 0 of 7'))
    self.assert_undisturbed()

  def test_killed_at_the_end(self):
    """All clips are there, and the contact sheet is half written."""
    shutil.copytree(self.undisturbed, self.workdir)
    sheet = self.workdir / 'contact_sheet.png'
    sheet.unlink()
    ((status, _, errors),) = jobs.finish(
      jobs.start(runs.DIE_AT_THE_END, [sheet.name, *self.arguments()])
    )
    self.assertEqual(status, -signal.SIGKILL, errors)
    self.assertLen(jobs.leftovers(self.workdir), 1)
    self.assert_ended(self.sample())
    self.assert_undisturbed()

  def damage_nothing_but_time(self, videos):
    (videos / 'a potter-0.mp4').touch()

  def damage_deleted(self, videos):
    (videos / 'a potter-0.mp4').unlink()

  def damage_flipped(self, videos):
    path = videos / 'a bell-0.mp4'
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)

  def damage_cut(self, videos):
    path = videos / 'a bell-0.mp4'
    path.write_bytes(path.read_bytes()[:-10])

  def damage_half_written(self, videos):
    (videos / 'a bell-0.mp4').rename(videos / '.0123.partial')

  def damage_latents(self, videos):
    (videos.parent / 'latents' / 'a river-0.npy').write_bytes(b'')

  def damage_manifest(self, videos):
    path = videos.parent / 'manifest.jsonl'
    path.write_bytes(path.read_bytes()[:-20])

  def damage_no_manifest(self, videos):
    (videos.parent / 'manifest.jsonl').unlink()

  @parameterized.parameters(
    ('nothing_but_time', 7),
    ('deleted', 6),
    ('flipped', 6),
    ('cut', 6),
    ('half_written', 6),
    ('latents', 6),
    ('manifest', 6),
    ('no_manifest', 0),
  )
  def test_damaged(self, kind, num_whole):
    shutil.copytree(self.undisturbed, self.workdir)
    getattr(self, f'damage_{kind}')(self.workdir / 'videos')
    outcome = self.sample()
    self.assert_ended(outcome)
    self.assertTrue(outcome.has_logged(f'{num_whole} of 7 videos are in'))
    self.assert_undisturbed()

  def test_disk_full(self):
    with jobs.full_disk() as fill:
      fill(2_000)
      outcome = self.sample(output__keep_latents=False)
    self.assert_refused(outcome, 'cannot be written', 'make room', '.mp4')
    self.assertEmpty(jobs.leftovers(self.workdir))
    self.assert_ended(self.sample())
    self.assert_undisturbed()

  @parameterized.parameters(
    ({'sampler__num_steps': 4}, 'sampler.num_steps = 3, which is now 4'),
    ({'prompts__seed': 1}, 'seed = '),
    ({'prompts__negative': 'blurry'}, "negative_prompt = '', which is now"),
    ({'output__crf': 30}, 'crf = 18'),
    ({'video__num_frames': 17}, 'video.num_frames = 9'),
  )
  def test_other_settings(self, settings, words):
    shutil.copytree(self.undisturbed, self.workdir)
    before = files_of(self.workdir)
    outcome = self.sample(**settings)
    self.assert_refused(outcome, 'manifest.jsonl', words, '--workdir')
    self.assertEqual(files_of(self.workdir), before)

  def test_other_model(self):
    """Its weights count, not where they lie."""
    shutil.copytree(self.undisturbed, self.workdir)
    copy = self.folder / 'copy'
    shutil.copytree(self.model, copy)
    outcome = self.sample(model__path=copy)
    self.assertTrue(outcome.has_logged('7 of 7 videos'))
    path = copy / 'transformer' / 'diffusion_pytorch_model.safetensors'
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    self.assert_refused(self.sample(model__path=copy), 'checkpoint = ')


class AdapterTest(_SampleTest):
  def write_adapters(self, wrong_size: bool = False) -> pathlib.Path:
    """As diffusers' own training script leaves them."""
    pipeline = diffusers.CogVideoXPipeline.from_pretrained(self.model)
    torch.manual_seed(0)
    pipeline.transformer.add_adapter(
      peft.LoraConfig(
        r=2, lora_alpha=6, target_modules=['to_q', 'to_v', 'ff.net.2'],
        init_lora_weights=False,
      )
    )  # fmt: skip
    layers = peft.get_peft_model_state_dict(pipeline.transformer)
    if wrong_size:
      layers = {name: x.repeat(2, 2) for name, x in layers.items()}
    folder = self.folder / 'adapters'
    pipeline.save_lora_weights(folder, transformer_lora_layers=layers)
    return folder

  def test_other_clips(self):
    """Other videos; and the folder holds those of one model only."""
    folder = self.write_adapters()
    outcome = self.sample(model__adapter=folder)
    self.assert_ended(outcome)
    self.assertTrue(
      outcome.has_logged(f'adapter {folder}: rank 2, alpha not stated')
    )
    for ours, base in zip(
      lines_of(self.workdir), lines_of(self.undisturbed), strict=True
    ):
      self.assertNotEqual(ours['checkpoint'], base['checkpoint'])
      self.assertEqual(ours['seed'], base['seed'])
    for name in sorted(path.name for path in self.workdir.glob('latents/*')):
      latents, expected = (
        np.load(run / 'latents' / name)
        for run in (self.workdir, self.undisturbed)
      )
      self.assertGreater(scaled_error(latents, expected), 0.01)
    self.assertTrue(
      self.sample(model__adapter=folder).has_logged('7 of 7 videos')
    )
    self.assert_refused(self.sample(), 'checkpoint = ')

  def test_refused(self):
    """Before anything is made or a network is loaded."""
    nowhere = self.folder / 'nowhere'
    self.assert_refused(
      self.sample(model__adapter=nowhere), f'{nowhere}: no such file or folder'
    )
    self.assert_refused(
      self.sample(model__adapter=self.model), 'contains neither pytorch_lora'
    )
    folder = self.write_adapters(wrong_size=True)
    for settings in (
      {'model__adapter': folder},
      {'model__adapter': folder / 'pytorch_lora_weights.safetensors'},
    ):
      self.assert_refused(self.sample(**settings), str(folder), 'another shape')
    self.assert_refused(
      self.sample(model__path=folder), 'give it as model.adapter'
    )
    self.assertFalse((self.workdir / 'manifest.jsonl').exists())


class LayoutTest(_SampleTest):
  @parameterized.parameters(
    (1, {'mesh__data': 1, 'run__batch_per_shard': 1}),
    (1, {'mesh__data': 1, 'run__batch_per_shard': 4, 'run__offload': False}),
    (8, {'mesh__data': 4, 'mesh__fsdp': 2, 'run__batches_per_round': 2}),
    (8, {'mesh__data': 1, 'mesh__context': 8}),
  )
  def test_same_clips(self, num_devices, settings):
    mesh = {f'mesh__{axis}': 1 for axis in ('fsdp', 'context', 'tensor')}
    file = self.folder / 'turned.txt'
    file.write_text('\n'.join(reversed(PROMPTS)))
    with runs.local_devices(num_devices):
      outcome = self.sample(**mesh | settings)
    self.assert_ended(outcome)
    assert_same_clips(self, self.workdir, self.undisturbed)

  def test_compiled_once(self):
    """Nothing after the first batch, which the last one does not fill."""
    with (
      jax.log_compiles(),
      self.caplog.at_level(logging.WARNING),
      mock.patch.object(loop, '_summarize') as summarize,
    ):
      self.assert_ended(self.sample())
    (_, rounds, *_), _ = summarize.call_args
    self.assertEqual([clips for clips, _ in rounds], [2, 2, 2, 1])
    names = re.findall(r'Compiling jit\((\w+)\)', self.caplog.text)
    for name in ('embed', 'denoise', 'decode_latents'):
      self.assertEqual(names.count(name), 1, names)
    # Nor any small program besides: whatever it is, the first batch needs it.
    self.assertLen(set(names), len(names))


def assert_same_clips(test, ours: pathlib.Path, theirs: pathlib.Path):
  """To rounding: 1e-5 of the latents' scale, and a level or so of a pixel."""
  ours_by_name, theirs_by_name = (
    {line['name']: line for line in lines_of(path)} for path in (ours, theirs)
  )
  test.assertEqual(list(ours_by_name), list(theirs_by_name))
  for name, line in theirs_by_name.items():
    other = ours_by_name[name]
    drop = ('files',)
    test.assertEqual(
      {k: v for k, v in other.items() if k not in drop},
      {k: v for k, v in line.items() if k not in drop},
    )
    latents = [np.load(p / f'latents/{name}-0.npy') for p in (ours, theirs)]
    test.assertLess(scaled_error(*latents), 1e-5)
    frames = [
      video_lib.decode(p / f'videos/{name}-0.mp4', where=name).frames
      for p in (ours, theirs)
    ]
    difference = np.abs(np.int32(frames[0]) - frames[1])
    test.assertLess(difference.mean(), 1)


class PipelineTest(_SampleTest):
  def test_against_diffusers(self):
    """Texts and noise in, latents out: the same as the published pipeline's."""
    pipe = make_pipeline()
    pipe.scheduler = diffusers.CogVideoXDDIMScheduler.from_config(
      pipe.scheduler.config, timestep_spacing='trailing', clip_sample=False
    )
    pipe.set_progress_bar_config(disable=True)
    pipe.text_encoder.eval()  # without dropout
    model = self.folder / 'model'
    pipe.save_pretrained(model)
    noise = self.folder / 'noise'
    noise.mkdir()
    start = np.random.default_rng(0).normal(size=(2, 1, 3, 16, 4, 8))
    start = start.astype(np.float32)
    prompts = PROMPTS[:2]
    for prompt, array in zip(prompts, start, strict=True):
      np.save(noise / f'{prompt}.npy', array)
    file = self.folder / 'two.jsonl'
    file.write_text(''.join(json.dumps(prompt) + '\n' for prompt in prompts))
    outcome = self.sample(
      model__path=model,
      prompts__file=file,
      prompts__initial_noise=noise,
      prompts__negative='blurry',
      output__name='{prompt}',
      video__height=8,
      video__width=16,
      video__num_frames=5,
      sampler__name='ddim',
      sampler__dynamic_guidance='none',
      sampler__num_steps=10,
      mesh__tensor=1,
      mesh__context=4,
    )
    self.assert_ended(outcome)
    for prompt, array in zip(prompts, start, strict=True):
      expected = pipe(
        prompt,
        negative_prompt='blurry',
        num_inference_steps=10,
        guidance_scale=6.0,
        latents=torch.tensor(array),
        height=8,
        width=16,
        num_frames=5,
        max_sequence_length=7,
        output_type='latent',
      ).frames[0]
      ours = np.load(self.workdir / 'latents' / f'{prompt}.npy')
      self.assertLess(scaled_error(ours, expected.numpy()), 1e-5)
    digest = file_sha256(noise / f'{prompts[0]}.npy')
    self.assertEqual(lines_of(self.workdir)[0]['initial_noise'], digest)
    listed = hashes.FileHashes(self.workdir)
    with listed, mock.patch.object(hashes, 'file_sha256') as read:
      found = listed.sha256(noise / f'{prompts[0]}.npy')
    self.assertEqual((found, read.called), (digest, False))


class RefuseTest(_SampleTest):
  @parameterized.parameters(
    ({'video__height': 24}, 'video.height is 24', 'multiples of 16'),
    ({'video__width': 0}, 'video.width is 0', 'multiples of 16'),
    ({'video__num_frames': 10}, 'video.num_frames is 10', 'such as 9 or 13'),
    ({'video__num_frames': 0}, 'video.num_frames is 0', 'such as 1 or 5'),
    ({'model__path': '/no/model'}, '/no/model', 'model_index.json'),
    ({'prompts__file': ''}, 'prompts.file is empty', '--config.prompts.file'),
    ({'prompts__file': '/no/file.txt'}, '/no/file.txt'),
    ({'prompts__videos_per_prompt': 0}, 'prompts.videos_per_prompt is 0'),
    ({'prompts__videos_per_prompt': 2, 'output__name': '{id}'}, '{index}'),
    ({'output__name': 'clip'}, "output.name is 'clip'", 'add {id}'),
    ({'output__name': '{id}/{index}'}, 'output.name', 'its literal text'),
    ({'output__crf': 60}, 'output.crf is 60'),
    ({'output__fps': 0.0}, 'output.fps is 0'),
    ({'run__num_writers': 0}, 'run.num_writers must be above 0'),
    ({'sampler__name': 'euler'}, 'name is', 'euler', 'ddim'),
    ({'sampler__num_steps': 2000}, 'num_steps is 2000', '1000 timesteps'),
    ({'mesh__data': 3}, 'mesh of data 3', '8 devices'),
    ({'mesh__data': 1, 'mesh__context': 1, 'mesh__tensor': 8}, 'mesh.tensor'),
    ({'prompts__initial_noise': '/no/noise'}, 'a red fox-0.npy', 'no such'),
  )  # fmt: skip
  def test_settings(self, settings, *words):
    self.assert_refused(self.sample(**settings), *words)
    self.assertEmpty(list(self.workdir.rglob('*.mp4')))

  @parameterized.parameters('', ' \n\n')
  def test_no_prompt(self, text):
    file = self.folder / 'empty.txt'
    file.write_text(text)
    outcome = self.sample(prompts__file=file)
    self.assert_refused(outcome, str(file), 'no prompt')

  def test_not_writable(self):
    self.workdir.write_text('a file')
    self.assert_refused(self.sample(), f'--workdir={self.workdir}')
    self.workdir.unlink()
    self.workdir.mkdir()
    (self.workdir / 'videos').write_text('a file')
    self.assert_refused(self.sample(), 'videos', 'a folder is needed')

  def test_long_prompt(self):
    """Cut, and named."""
    file = self.folder / 'long.txt'
    file.write_text('short\n' + 20 * 'long ')
    outcome = self.sample(prompts__file=file)
    self.assert_ended(outcome)
    (line,) = (line for line in outcome.log if 'longer than' in line)
    self.assertStartsWith(line, '1 prompts are longer than the 16 tokens')
    self.assertIn('long.txt line 2', line)

  def test_incomplete_chunk(self):
    """13 frames are four latents, which decode to 16 frames."""
    file = self.folder / 'one.txt'
    file.write_text('one')
    outcome = self.sample(prompts__file=file, video__num_frames=13)
    self.assert_ended(outcome)
    self.assertTrue(outcome.has_logged('video.num_frames is 13'))
    self.assertTrue(outcome.has_logged('to 16 frames'))
    clip = video_lib.decode(self.workdir / 'videos' / 'one-0.mp4', where='')
    self.assertEqual(clip.num_source_frames, 16)


# Two hosts: a whole job; one of which the second host cannot write; the first
# again. The second is at work long after the first has ended.
_HOST = """
import json, os, sys, time
from lift_jax.cli import main
from lift_jax.data import video
from lift_jax.sampling import loop

whole, broken = map(json.loads, sys.argv[1:])
is_second = os.environ['JAX_PROCESS_ID'] == '1'
write = loop.write_mp4

def write_late(*args):
  time.sleep(2 * is_second)
  write(*args)

def write_never(path, *args):
  if is_second:
    raise OSError(28, 'No space left on device')
  write(path, *args)

loop.write_mp4 = write_late
status = [main.main([*whole, '--multihost'])]
loop.write_mp4 = write_never
status += [main.main(broken)]
loop.write_mp4 = write
status += [main.main(broken)]
print(json.dumps(status))
"""


class MultihostTest(_SampleTest):
  def test_two_hosts(self):
    broken = self.folder / 'broken'
    mesh = {'mesh__context': 1}
    calls = [
      self.arguments(**mesh),
      sample_jobs.arguments(broken, self.model, self.folder, **mesh),
    ]
    hosts = jobs.two_hosts(_HOST, [json.dumps(call) for call in calls], 4)
    for status, output, errors in hosts:
      self.assertEqual(status, 0, errors)
      self.assertEqual(json.loads(output.splitlines()[-1]), [0, 2, 0], errors)
      self.assertIn('make room', errors)
    for workdir in (self.workdir, broken):
      assert_same_clips(self, workdir, self.undisturbed)
      self.assertEmpty(jobs.leftovers(workdir))
      self.assertEmpty(list(workdir.glob('.manifest-*')))
      self.assertTrue((workdir / 'contact_sheet.png').exists())


class ExampleTest(_SampleTest):
  def test_example(self):
    """That of the help text, but smaller."""
    from lift_jax.jobs import sample

    *_, last = sample.__doc__.strip().splitlines()
    words = last.split()
    self.assertEqual(words[:3], ['example:', 'lift', 'sample'])
    config, workdir = words[3:]
    self.assertEqual(config, '--config=configs/sample.py:smoke')
    self.assertStartsWith(workdir, '--workdir=')
    # The configs' own prompts are there, and none of them is cut.
    outcome = jobs.lift(
      'sample',
      *sample_jobs.flags(self.workdir, model__path=self.model, mesh__data=8),
    )
    self.assert_ended(outcome)
    self.assertTrue(outcome.has_logged('8 prompts, 8 videos'))

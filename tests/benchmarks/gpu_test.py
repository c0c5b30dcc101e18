"""The benchmark of a GPU at toy sizes, and what it does when a row fails."""

import contextlib
import importlib.util
import io
import json
import math
import pathlib
import subprocess
import sys

from absl.testing import parameterized
import jax
import jax.numpy as jnp
import pytest

pytest.importorskip('torch')  # the benchmark imports both sides

BENCHMARKS = pathlib.Path(__file__).resolve().parents[2] / 'benchmarks'

import gpu  # noqa: E402
from gpu_parts import (  # noqa: E402
  bounds,
  configs,
  kernels,
  rows,
  table,
  with_jax,
  with_torch,
)

from lift_jax import chips  # noqa: E402
from lift_jax.models import critic_config  # noqa: E402
from lift_jax.planning.report import Program  # noqa: E402

# Writes what stands in its first argument to the file of the second.
_WRITE = 'import sys; open(sys.argv[2], "w").write(sys.argv[1])'


class _Test(parameterized.TestCase):
  @pytest.fixture(autouse=True)
  def _world(self, tmp_path, monkeypatch):
    self.workdir = tmp_path
    self.monkeypatch = monkeypatch

  def run_main(self, *flags: str) -> tuple[int, str, dict]:
    """Status, what is printed, and the rows of results.json."""
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
      status = gpu.main([f'--workdir={self.workdir}', '--tiny', *flags])
    results = json.loads((self.workdir / 'results.json').read_text())
    return status, out.getvalue(), results['rows']

  def assert_measured(self, found: dict) -> None:
    """Every number is finite, and every time above zero."""
    json.dumps(found, allow_nan=False)
    seconds = [value for name, value in found.items() if 'second' in name]
    self.assertNotEmpty(seconds)
    for value in seconds:
      for one in value if isinstance(value, list) else [value]:
        self.assertGreater(one, 0.0)
        self.assertTrue(math.isfinite(one))


class CommandTest(_Test):
  def test_a_row(self):
    """In a process of its own, as a person calls it."""
    ended = subprocess.run(
      [sys.executable, str(BENCHMARKS / 'gpu.py'), '--tiny', '--only=kernels',
       f'--workdir={self.workdir}'],
      capture_output=True,
      text=True,
    )  # fmt: skip
    self.assertEqual(ended.returncode, 0, ended.stdout + ended.stderr)
    results = json.loads((self.workdir / 'results.json').read_text())
    found = results['rows']['kernels']
    self.assertEqual(found['status'], 'ok')
    self.assertLen(found['kernels'], 3)
    for one in found['kernels']:
      self.assert_measured(one)
      self.assertLess(max(one['errors'].values()), 0.02)
      self.assertIn(f'| {one["shape"]} | xla |', ended.stdout)
    self.assertIn(f'jax {jax.__version__}', ended.stdout)
    self.assertIn(results['date'], ended.stdout)

  def test_no_time(self):
    """Nothing is begun, and each row says so."""
    status, out, found = self.run_main('--minutes=0', '--only=kernels,train')
    self.assertEqual(status, 0)
    names = {'kernels', 'train-b1-full', 'train-dpo'}
    self.assertEqual(set(found), names)
    for name, one in found.items():
      self.assertEqual(one['status'], 'skipped')
      self.assertIn(f'{name}: skipped: 0 s were left', out)
    self.assertIn('what is left: --only=kernels,train-b1-full,train-dpo', out)

  def test_out_of_time(self):
    self.monkeypatch.setattr(
      gpu,
      '_command',
      lambda row, flags: [sys.executable, '-c', 'import time; time.sleep(60)'],
    )
    status, out, found = self.run_main('--minutes=0.02', '--only=sample')
    self.assertEqual(status, 0)
    self.assertEqual(found['sample']['status'], 'out of time')
    self.assertLess(found['sample']['wall_seconds'], 30)
    self.assertIn('what is left: --only=sample', out)

  @parameterized.parameters(
    ('out of memory', 0, '| out of memory |'),
    ('failed', 1, '| failed: it is too small |'),
  )
  def test_others_go_on(self, status, exit_status, cell):
    """What does not fit is a result; what fails is told by the status."""

    def command(row, flags):
      found = {
        'status': 'ok',
        'videos_per_second': 2.0,
        'seconds_per_video': 0.5,
      }
      if row.name == 'train-b1-full':
        found = {'status': status, 'reason': 'it is too small'}
      path = gpu._result_file(flags.workdir, row)
      return [sys.executable, '-c', _WRITE, json.dumps(found), str(path)]

    self.monkeypatch.setattr(gpu, '_command', command)
    ended, out, found = self.run_main('--only=train,score')
    self.assertEqual(ended, exit_status)
    self.assertEqual(found['train-b1-full']['status'], status)
    self.assertIn(cell, out)
    self.assertIn('| 2 videos/s |', out)

  def test_a_process_that_dies(self):
    """An earlier result is not taken for its own."""
    path = self.workdir / 'rows' / 'sample.json'
    path.parent.mkdir()
    path.write_text('{"status": "ok"}')
    self.monkeypatch.setattr(
      gpu, '_command', lambda row, flags: [sys.executable, '-c', 'exit(3)']
    )
    status, out, found = self.run_main('--only=sample')
    self.assertEqual(status, 1)
    self.assertIn('sample: failed: ended with status 3; see ', out)

  def test_not_installed(self):
    find = importlib.util.find_spec
    self.monkeypatch.setattr(
      importlib.util,
      'find_spec',
      lambda name: None if name == 'diffusers' else find(name),
    )
    status, out, _ = self.run_main('--only=torch-train-b1')
    self.assertEqual(status, 0)
    self.assertIn('not installed: there is no diffusers', out)

  @parameterized.parameters(
    ('--only=train,speed', "'speed' is neither a part (kernels, train, "),
    ('--workdir=/dev/null/x', '--workdir=/dev/null/x: Not a directory'),
  )
  def test_bad_flags(self, flag, text):
    error = io.StringIO()
    with (
      contextlib.redirect_stderr(error),
      self.assertRaises(SystemExit) as raised,
    ):
      self.run_main(flag)
    self.assertEqual(raised.exception.code, 2)
    self.assertIn(text, error.getvalue())


class MeasureTest(_Test):
  @parameterized.parameters(
    (RuntimeError('RESOURCE_EXHAUSTED: 9 GiB\n of 8'), 'out of memory'),
    (type('OutOfMemoryError', (RuntimeError,), {})('CUDA'), 'out of memory'),
    (ValueError('no such\nkernel'), 'failed'),
    (None, 'failed'),  # a result that is not finite
  )
  def test_status(self, error, status):
    def train(tiny, batch, remat):
      if error is not None:
        raise error
      return {'loss': float('nan')}

    self.monkeypatch.setattr(with_jax, 'train', train)
    (self.workdir / 'rows').mkdir()
    with contextlib.redirect_stderr(io.StringIO()):
      gpu.measure(rows.by_name('train-b1-full'), True, self.workdir)
    path = self.workdir / 'rows' / 'train-b1-full.json'
    found = json.loads(path.read_text())
    self.assertEqual(found['status'], status)
    self.assertNotIn('\n', found['reason'])


class RowsTest(_Test):
  @parameterized.parameters(
    (with_jax.train, {'batch': 2, 'remat': 'save_attention'}),
    (with_jax.train, rows.by_name('train-dpo').settings),
    (with_jax.sample, {}),
    (with_jax.sample, rows.by_name('sample-magcache').settings),
    (with_jax.score, {'batch': 2}, 8 * 4),
    # Four pairs of frames, of 12 tokens each and 10 for its time.
    (with_jax.score, {'batch': 2, 'critic': 'Qwen3-VL-4B'}, 4 * 22 + 2),
    (with_torch.train, {'batch': 2}),
    (with_torch.sample, {}),
    (with_torch.score, {'batch': 2}, 8 * 4),
  )
  def test_tiny(self, job, settings, frame_tokens=0):
    found = job(tiny=True, **settings)
    self.assert_measured(found)
    self.assertEqual(found['device'], 'cpu')
    if job.__name__ == 'train':
      self.assertGreater(found['loss'], 0.0)
    if 'cache' in settings:
      # The first fifth of 4 steps is one; three in a row are skipped after it.
      self.assertEqual(found['steps_computed'], 1)
    if job.__name__ == 'score':
      places = configs.score(True, 2).prompts.text_buckets[0]
      self.assertEqual(
        found['tokens_per_video'], frame_tokens + places + 3 * 64
      )

  def test_cached_steps(self):
    """As many are skipped at full size as the row says."""
    sampler = configs.sample(False, 'magcache').sampler
    is_computed = with_jax._computed_steps(sampler, sampler.num_steps)
    self.assertEqual(
      is_computed[:14].tolist(), [True] * 10 + [False] * 3 + [True]
    )
    self.assertIn(
      f'{sampler.num_steps} guided steps, of which magcache skips '
      f'{sum(~is_computed)};',
      rows.by_name('sample-magcache').title,
    )

  def test_full_size(self):
    """Arguments are what the programs take; nothing is allocated."""
    (program,) = configs.programs(
      'align', configs.train(False, 2, 'full')
    ).values()
    info = program.lower().args_info[0]
    made = jax.eval_shape(
      lambda: with_jax._training_arguments(with_jax._Maker(program), info)
    )
    self._assert_same(made, info)
    self.assertEqual(made[2].mean.shape, (2, 13, 60, 90, 16))

    config = configs.score(False, 4)
    critic = critic_config.declare_chosen(config.model)
    (program,) = configs.programs('score', config).values()
    params, _, prompts = program.lower().args_info[0]
    put = with_jax._Maker(program)
    made = jax.eval_shape(
      lambda: (
        put.network(params),
        with_jax._filled_prompts(put, critic, prompts, 192),
      )
    )
    self._assert_same(made, (params, prompts))
    self.assertEqual(made[1].prefix_bn.shape, (4, 8 * 196 + 192))

  def _assert_same(self, made, wanted):
    jax.tree.map(
      lambda one, other: self.assertEqual(
        (one.shape, one.dtype), (other.shape, other.dtype)
      ),
      made,
      wanted,
    )

  def test_full_size_needs_a_gpu(self):
    for job in (with_jax.sample, with_torch.sample, kernels.kernels):
      with self.assertRaisesRegex(Exception, 'the CPU alone, which is for'):
        job(tiny=False)


class BoundsTest(_Test):
  def setUp(self):
    super().setUp()
    mesh = jax.make_mesh((1,), ('data',), devices=jax.devices()[:1])
    x = jnp.ones((64, 64), jnp.bfloat16)
    self.flops = 2 * 64**3
    self.program = Program(
      'product', mesh, lambda: jax.jit(jnp.matmul).lower(x, x), 4, None, 0.0
    )
    self.compiled = self.program.lower().compile()

  def test_known_device(self):
    self.monkeypatch.setattr(chips, 'of_kind', lambda kind: chips.CHIPS['h100'])
    found = bounds.of(self.program, self.compiled)
    fast, slow = found['seconds_per_video']
    # Three arrays of 64 x 64, at least; computing takes less.
    self.assertGreaterEqual(fast, 3 * 64 * 64 * 2 / 3352e9 / 4)
    self.assertAlmostEqual(slow - fast, self.flops / 989e12 / 4, delta=1e-15)
    for seconds, mfu in zip((fast, slow), found['mfu'], strict=True):
      self.assertAlmostEqual(mfu, self.flops / 989e12 / 4 / seconds)
    self.assertEqual(found['limited_by'], 'hbm')

    both = bounds.in_sequence(found, found)
    self.assertEqual(both['seconds_per_video'], [2 * fast, 2 * slow])
    line = table.progress(
      rows.by_name('sample'),
      {'status': 'ok', 'seconds_per_video': 3.0, 'bounds': both},
    )
    self.assertRegex(
      line, r'^3 s/video; lift plan: [\d.e-]+ to [\d.e-]+ s/video'
    )

  def test_unknown(self):
    """Neither a device nor a program that is unknown stops a measurement."""
    found = bounds.of(self.program, self.compiled)
    self.assertEqual(found, {'reason': 'peak rates of cpu are unknown'})
    self.monkeypatch.setattr(chips, 'of_kind', lambda kind: chips.CHIPS['h100'])
    with contextlib.redirect_stderr(io.StringIO()):
      broken = bounds.of(self.program, None)
    self.assertIn('AttributeError', broken['reason'])
    self.assertEqual(bounds.in_sequence(found, broken), found)


class KernelsTest(_Test):
  def test_a_wrong_kernel(self):
    """One that forgets a key in 200 is caught, in values and gradients."""
    exact = kernels.attention

    def forgetful(q, k, v, **options):
      if q.dtype == jnp.bfloat16:
        k, v = k[:, :-1], v[:, :-1]
      return exact(q, k, v, **options)

    self.monkeypatch.setattr(kernels, 'attention', forgetful)
    shape = kernels._Shape('odd', 1, 201, 2, 2, 16, False)
    (found,) = kernels._compare(shape, ('xla',), tiny=True)
    self.assertRegex(found['reason'], 'is not below 0.05')
    for error in found['errors'].values():
      self.assertGreater(error, 4 * kernels.BOUND)

  def test_one_that_cannot(self):
    """It has a reason, and the other shapes are measured."""
    self.monkeypatch.setattr(
      kernels,
      '_tiny_shapes',
      lambda: (
        kernels._Shape('bad', 1, 9, 2, 2, 4, False),
        kernels._Shape('good', 1, 8, 2, 2, 4, False),
      ),
    )
    exact = kernels._gradients
    self.monkeypatch.setattr(
      kernels,
      '_gradients',
      lambda q, *rest, **options: (
        exact(q, *rest, **options)
        if q.shape[1] == 8 or q.dtype == jnp.float32
        else 1 / 0
      ),
    )
    found = kernels.kernels(tiny=True)
    self.assertEqual(found['status'], 'failed')
    self.assertEqual(found['reason'], 'bad, xla: division by zero')
    lines = table.markdown(
      {'date': '', 'tiny': True, 'rows': {'kernels': found}}
    )
    self.assertLen([line for line in lines if line.startswith('| good')], 1)


def test_names():
  """Rows have names of their own, and every part some."""
  names = [row.name for row in rows.ROWS]
  assert len(set(names)) == len(names)
  assert {row.part for row in rows.ROWS} == set(rows.PARTS)
  # The rows that the targets are about fit into ten minutes, by the guesses.
  wanted = [row for row in rows.ROWS if row.is_tiny]
  assert sum(row.seconds for row in wanted) <= 600

"""What is measured, the most wanted first.

Peak memory of a process only grows, and a process that ran out of memory may
not be trusted after it, so each row has a process of its own.
"""

from collections.abc import Mapping
import dataclasses
from typing import Any

PARTS = ('kernels', 'train', 'sample', 'score', 'torch')


@dataclasses.dataclass(frozen=True)
class Row:
  """One measurement.

  Attributes:
    name: what `--only` and files call it.
    title: what the table calls it.
    job: function that does it, the same for both libraries.
    seconds: that it took on an H200 with imports and compilation, rounded up;
      with less time left it is not begun.
    library: 'lift_jax' or 'torch'.
    settings: arguments of the function.
    target: on one H100.
    needs: packages that the project itself does without.
    is_tiny: whether it is done at toy sizes too.
  """

  name: str
  title: str
  job: str
  seconds: float
  library: str = 'lift_jax'
  settings: Mapping[str, Any] = dataclasses.field(default_factory=dict)
  target: str = ''
  needs: tuple[str, ...] = ()
  is_tiny: bool = False

  @property
  def part(self) -> str:
    return 'torch' if self.library == 'torch' else self.job


# DPO trains adapters: the reference is the same network without them.
_DPO = {'file': 'align_cogvideox_2b_lora', 'objective': 'dpo'}


def _train(batch: int, remat: str, **options) -> Row:
  return Row(
    f'train-b{batch}-{remat}',
    f'training step, batch {batch}, remat {remat}',
    'train',
    seconds=50,
    settings={'batch': batch, 'remat': remat},
    target='MFU ≥ 45%',
    **options,
  )


def _score(batch: int, **options) -> Row:
  return Row(
    f'score-b{batch}',
    f'critic VILA 13B, three questions, batch {batch}',
    'score',
    seconds=40,
    settings={'batch': batch},
    target='≥ 5 videos/s',
    **options,
  )


def _score_qwen(size: str, batch: int, **options) -> Row:
  return Row(
    f'score-qwen3vl-{size.lower()}',
    f'critic Qwen3-VL {size}, three questions, batch {batch}',
    'score',
    seconds=45,
    settings={'batch': batch, 'critic': f'Qwen3-VL-{size}'},
    **options,
  )


def _torch_train(batch: int, **options) -> Row:
  return Row(
    f'torch-train-b{batch}',
    f"the reference's training step, batch {batch}, checkpointed",
    'train',
    seconds=40,
    library='torch',
    settings={'batch': batch},
    needs=('torch', 'diffusers'),
    **options,
  )


def _torch_score(batch: int, **options) -> Row:
  return Row(
    f'torch-score-b{batch}',
    f'prefill of as many tokens, no frames, batch {batch}',
    'score',
    seconds=30,
    library='torch',
    settings={'batch': batch},
    needs=('torch', 'transformers'),
    **options,
  )


ROWS = (
  Row(
    'kernels', 'attention against fp32', 'kernels', seconds=100, is_tiny=True
  ),
  _train(1, 'full', is_tiny=True),
  _score(4, is_tiny=True),
  Row(
    'sample',
    '50-step guided sampling with decoding',
    'sample',
    seconds=140,
    target='≤ 28 s/video',
    is_tiny=True,
  ),
  _torch_train(1, is_tiny=True),
  _torch_score(4, is_tiny=True),
  _train(2, 'save_attention'),
  _train(1, 'save_attention'),
  Row(
    'torch-sample',
    '50 times one guided pass, and decoding',
    'sample',
    seconds=50,
    library='torch',
    needs=('torch', 'diffusers'),
    is_tiny=True,
  ),
  Row(
    'train-dpo',
    'training step of DPO, one pair, adapters, remat save_attention',
    'train',
    seconds=50,
    settings={'batch': 2, 'remat': 'save_attention'} | _DPO,
    is_tiny=True,
  ),
  Row(
    'sample-magcache',
    '50 guided steps, of which magcache skips 30; bounds of all',
    'sample',
    seconds=55,
    settings={'cache': 'magcache'},
    is_tiny=True,
  ),
  _score_qwen('4B', 8, is_tiny=True),
  _score_qwen('8B', 8),
  _train(1, 'none'),
  _train(1, 'offload'),
  _train(2, 'full'),
  _train(2, 'offload'),
  _train(2, 'none'),
  _torch_train(2),
  _score(8),
)


def choose(only: str, tiny: bool) -> list[Row]:
  """Rows of parts, and those named themselves.

  Args:
    only: names with commas between them.
    tiny: leave out what differs in size alone, unless it is named.

  Raises:
    ValueError: an unknown name.
  """
  wanted = [name.strip() for name in only.split(',')]
  names = [row.name for row in ROWS]
  for name in wanted:
    if name not in (*PARTS, *names):
      rows = [name for name in names if name not in PARTS]
      raise ValueError(
        f'{name!r} is neither a part ({", ".join(PARTS)}) nor a row '
        f'({", ".join(rows)})'
      )
  return [
    row
    for row in ROWS
    if row.name in wanted or (row.part in wanted and (row.is_tiny or not tiny))
  ]


def by_name(name: str) -> Row:
  return next(row for row in ROWS if row.name == name)

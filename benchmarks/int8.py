"""How much int8 kernels change a critic: the toy world's, and a wide layer.

  python benchmarks/int8.py [--clips=32]

The first part rates clips of the toy world with the critic of the demo, with
`run.quantize` none and int8, and prints how far the probabilities and soft
rewards are apart. The second computes a random layer of the size of Qwen3-VL-8B
in bfloat16, and prints its error with and without int8, relative to fp32.
"""

import argparse
import json
import pathlib
import subprocess
import sys
import tempfile

import jax
import jax.numpy as jnp
import numpy as np

from lift_jax.models import quantization
from lift_jax.toyworld import feedback, weights

ROOT = pathlib.Path(__file__).resolve().parents[1]
# Width and feed-forward width of Qwen3-VL-8B, and tokens.
WIDTH, MLP_WIDTH, TOKENS = 4096, 12288, 64


def main() -> None:
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument('--clips', type=int, default=32)
  flags = parser.parse_args()
  toy_critic(flags.clips)
  wide_layer()


def toy_critic(num_clips: int) -> None:
  with tempfile.TemporaryDirectory() as folder:
    plain, int8 = (
      _scores(pathlib.Path(folder) / kind, kind, num_clips)
      for kind in quantization.KINDS
    )
  change = np.abs(_probabilities(plain) - _probabilities(int8))
  labels = sum(one['labels'] != other['labels'] for one, other in zip(
    plain, int8, strict=True
  ))  # fmt: skip
  rewards = [
    abs(one['soft_reward'] - other['soft_reward'])
    for one, other in zip(plain, int8, strict=True)
  ]
  print(
    f'toy critic, {len(plain)} clips: probabilities change by '
    f'{change.mean():.4f} on average, {change.max():.4f} at most; soft rewards '
    f'by {np.mean(rewards):.4f}, {max(rewards):.4f} at most; {labels} clips '
    'have other labels'
  )


def _scores(workdir: pathlib.Path, kind: str, num_clips: int) -> list[dict]:
  settings = {
    'model.path': weights.CRITIC,
    'toy_clips': num_clips,
    'run.quantize': kind,
    'prompts.text_buckets': (192,),
    'prompts.questions': feedback.questions_path(),
  }
  subprocess.run(
    [
      sys.executable,
      '-m',
      'lift_jax',
      'score',
      f'--config={ROOT / "configs" / "score.py"}:smoke',
      f'--workdir={workdir}',
      *(f'--config.{key}={value}' for key, value in settings.items()),
    ],
    check=True,
    capture_output=True,
  )
  records = json.loads((workdir / 'scores.json').read_text())
  return [record for record in records if 'labels' in record]


def _probabilities(records: list[dict]) -> np.ndarray:
  return np.array(
    [
      list(distribution.values())
      for record in records
      for distribution in record['probabilities'].values()
    ]
  )


def wide_layer() -> None:
  x_key, kernel_key = jax.random.split(jax.random.key(0))
  x_nd = jax.random.normal(x_key, (TOKENS, WIDTH))
  kernel_df = jax.random.normal(kernel_key, (WIDTH, MLP_WIDTH)) / WIDTH**0.5
  exact_nf = x_nd @ kernel_df
  x_nd = x_nd.astype(jnp.bfloat16)
  rounded_nf = x_nd @ kernel_df.astype(jnp.bfloat16)
  made = quantization.quantizer(['layer'])('layer/kernel', kernel_df)
  int8_nf = quantization.dot_general(
    x_nd, made.astype(jnp.bfloat16), (((1,), (0,)), ((), ()))
  )
  for name, found_nf in (('bfloat16', rounded_nf), ('int8', int8_nf)):
    error = found_nf.astype(jnp.float32) - exact_nf
    relative = jnp.linalg.norm(error) / jnp.linalg.norm(exact_nf)
    print(f'layer {WIDTH} to {MLP_WIDTH}, {name}: error {relative:.4f}')


if __name__ == '__main__':
  main()

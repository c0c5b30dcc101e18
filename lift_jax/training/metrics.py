"""Metrics of a run: means over an interval, in TensorBoard and JSON lines."""

from collections.abc import Mapping
import contextlib
import io
import json
import logging
import math
import pathlib
import socket
import time
from typing import Any, Self

import jax
import numpy as np
from tensorboardX.proto.event_pb2 import Event, SessionLog
from tensorboardX.proto.summary_pb2 import Summary
from tensorboardX.record_writer import RecordWriter

from lift_jax.data import gif
from lift_jax.runtime import storage
from lift_jax.runtime.files import naming, parse_json, write_text


def summarize(steps: list[Mapping[str, Any]]) -> dict[str, float]:
  """Means over the metrics of several steps.

  'sum/X' and 'count/X' become X, the mean over all members of a group in the
  interval; X is omitted if there was none. 'max/X' becomes X, the maximum; it
  is omitted if that is -inf, the maximum of nothing.
  """
  steps = jax.device_get(steps)
  totals = {name: np.sum([s[name] for s in steps]) for name in steps[0]}
  summary = {}
  for name, total in totals.items():
    kind, _, rest = name.partition('/')
    if kind == 'sum':
      count = totals[f'count/{rest}']
      if count:
        summary[rest] = float(total / count)
    elif kind == 'max':
      maximum = float(np.max([s[name] for s in steps]))
      if maximum > -math.inf:
        summary[rest] = maximum
    elif kind != 'count':
      summary[name] = float(total / len(steps))
  return summary


class _EventFile:
  """A new file for TensorBoard, on disk after each `add`.

  `tensorboardX.SummaryWriter` writes in a thread: on a full disk that thread
  ends, and the caller waits for it forever.

  Args:
    folder: gets the file; created if it is missing.
    first_step: TensorBoard ignores this and later steps in older files.
  """

  def __init__(self, folder: pathlib.Path, first_step: int):
    folder.mkdir(parents=True, exist_ok=True)
    self._folder = folder
    name = f'events.out.tfevents.{time.time():.0f}.{socket.gethostname()}'
    self._writer = RecordWriter(str(folder / name))
    self._write(0, file_version='brain.Event:2')
    self._write(first_step, session_log=SessionLog(status=SessionLog.START))

  def add(self, step: int, values: list[Summary.Value]) -> None:
    self._write(step, summary=Summary(value=values))

  def _write(self, step: int, **content) -> None:
    with naming(self._folder):
      event = Event(wall_time=time.time(), step=step, **content)
      self._writer.write(event.SerializeToString())
      self._writer.flush()

  def close(self) -> None:
    self._writer.close()


class MetricWriter:
  """Writes scalars and clips on the primary host; does nothing on others.

  Args:
    workdir: gets `tensorboard/` and `metrics.jsonl`.
    enabled: whether this host writes.
    wandb_project: also logs to Weights & Biases under this name; '' does not.
    resume_step: lines of later steps, left by a killed run, are dropped.
  """

  def __init__(
    self,
    workdir: pathlib.Path,
    *,
    enabled: bool,
    wandb_project: str,
    resume_step: int,
  ):
    self._enabled = enabled
    self._wandb = None
    if not enabled:
      return
    kept = ''.join(_lines_up_to(workdir / 'metrics.jsonl', resume_step))
    self._mirror = storage.Mirror(workdir)
    path = self._mirror.local / 'metrics.jsonl'
    write_text(path, kept)
    self._lines = open(path, 'a', encoding='utf-8')  # noqa: SIM115
    self._path = path
    self._tensorboard = _EventFile(
      self._mirror.local / 'tensorboard', resume_step + 1
    )
    if wandb_project:
      import wandb  # optional: the user installs it

      self._wandb = wandb.init(
        project=wandb_project, name=workdir.name, resume='allow'
      )

  def write(self, step: int, scalars: Mapping[str, float]) -> None:
    if not self._enabled:
      return
    self._tensorboard.add(
      step,
      [Summary.Value(tag=n, simple_value=v) for n, v in scalars.items()],
    )
    with naming(self._path):
      self._lines.write(json.dumps({'step': step, **scalars}) + '\n')
      self._lines.flush()
    if self._wandb is not None:
      self._wandb.log(dict(scalars), step=step)

  def write_videos(
    self, step: int, videos: Mapping[str, np.ndarray], fps: float
  ) -> None:
    """Writes clips as animated GIFs, at their own size.

    TensorBoard shows them among its images. The built-in video support of
    tensorboardX, and of W&B for arrays, would need moviepy.

    Args:
      step: the training step.
      videos: uint8 [T, H, W, 3] by name.
      fps: frames per second.
    """
    if not self._enabled:
      return
    encoded = {
      name: gif.encode_gif(frames_thw3, fps)
      for name, frames_thw3 in videos.items()
    }
    values = []
    for name, data in encoded.items():
      height, width = videos[name].shape[1:3]
      image = Summary.Image(
        height=height, width=width, colorspace=3, encoded_image_string=data
      )
      values.append(Summary.Value(tag=name, image=image))
    self._tensorboard.add(step, values)
    if self._wandb is not None:
      import wandb

      clips = {
        name: wandb.Video(io.BytesIO(data), format='gif')
        for name, data in encoded.items()
      }
      self._wandb.log(clips, step=step)

  def sync(self) -> None:
    """Uploads what was written, if the workdir is in a bucket.

    To be called before a checkpoint is saved: the lines of a run up to its
    latest checkpoint must outlive it.
    """
    if self._enabled:
      self._mirror.sync()

  def __enter__(self) -> Self:
    return self

  def __exit__(self, *exception) -> None:
    if not self._enabled:
      return
    # All is on disk, or has raised an error as it was written.
    for file in (self._tensorboard, self._lines):
      with contextlib.suppress(OSError):
        file.close()
    self._mirror.close()
    if self._wandb is not None:
      self._wandb.finish()


def _lines_up_to(path: pathlib.Path, step: int) -> list[str]:
  """Complete lines of an earlier run, up to `step`."""
  if not path.exists():
    return []
  kept = []
  for line in storage.read_text(path).splitlines(keepends=True):
    try:
      is_kept = line.endswith('\n') and parse_json(line)['step'] <= step
    except (ValueError, KeyError):
      logging.getLogger('lift').warning('%s: dropped an incomplete line', path)
      continue
    if is_kept:
      kept.append(line)
  return kept

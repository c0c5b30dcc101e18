"""Conversion tables between published checkpoints and our parameters.

A table is a tuple of `TensorRule`s. In their names `{i}` and `{j}` match
numbers. A placeholder on both sides is the same number on both; one in the
published name only is a stacked axis: our parameter holds the layers along its
first axis.

  TensorRule('blocks.{i}.to_q.weight', 'blocks/to_q/kernel', LINEAR)
  TensorRule('down.{i}.conv.weight', 'down/{i}/conv/kernel', CONV3D)

A table must be complete: `resolve` accounts for every parameter, and
`published_tensors.load` for every published tensor, or they raise with the
names that are unknown or missing.
"""

import collections
from collections.abc import Callable, Mapping
import dataclasses
import re

import numpy as np

from lift_jax import errors
from lift_jax.weights import param_paths


@dataclasses.dataclass(frozen=True)
class Transform:
  """A transposition: ours = transpose(published, axes)."""

  name: str
  axes: tuple[int, ...] | None = None  # None: the same order

  def ours(self, published_shape: tuple[int, ...]) -> tuple[int, ...]:
    """The shape after the transposition."""
    if self.axes is None:
      return tuple(published_shape)
    return tuple(published_shape[axis] for axis in self.axes)

  def published(self, our_shape: tuple[int, ...]) -> tuple[int, ...]:
    """The shape before it."""
    if self.axes is None:
      return tuple(our_shape)
    return tuple(our_shape[self.axes.index(a)] for a in range(len(self.axes)))

  @property
  def inverse_axes(self) -> tuple[int, ...] | None:
    if self.axes is None:
      return None
    return tuple(self.axes.index(axis) for axis in range(len(self.axes)))


SAME = Transform('same')
LINEAR = Transform('linear: out,in -> in,out', (1, 0))
CONV2D = Transform('conv: out,in,h,w -> h,w,in,out', (2, 3, 1, 0))
CONV3D = Transform('conv: out,in,t,h,w -> t,h,w,in,out', (2, 3, 4, 1, 0))


@dataclasses.dataclass(frozen=True)
class TensorRule:
  """One entry of a table: published name, our name, transposition."""

  published: str
  ours: str
  transform: Transform = SAME


Table = tuple[TensorRule, ...]

# Published tensors that follow from the config: by name, a function for the
# values. They are not loaded, but must be equal.
Computed = Mapping[str, Callable[[], np.ndarray]]


@dataclasses.dataclass(frozen=True)
class Source:
  """The published tensors of one of our parameters.

  Attributes:
    names: published names; more than one for stacked layers.
    stacked: whether the parameter has a leading layer axis.
    shape: published shape of each tensor.
    transform: from each published tensor to ours.
  """

  names: tuple[str, ...]
  stacked: bool
  shape: tuple[int, ...]
  transform: Transform


def linear(published: str, ours: str, bias: bool = True) -> Table:
  """Rules of a linear layer."""
  rules = (TensorRule(f'{published}.weight', f'{ours}/kernel', LINEAR),)
  if bias:
    rules += (TensorRule(f'{published}.bias', f'{ours}/bias'),)
  return rules


def norm(published: str, ours: str, bias: bool = True) -> Table:
  """Rules of a normalisation layer with a scale."""
  rules = (TensorRule(f'{published}.weight', f'{ours}/scale'),)
  if bias:
    rules += (TensorRule(f'{published}.bias', f'{ours}/bias'),)
  return rules


def conv(published: str, ours: str, transform: Transform) -> Table:
  """Rules of a convolution with a bias.

  Args:
    published: name of the layer.
    ours: likewise.
    transform: CONV2D or CONV3D.
  """
  return (
    TensorRule(f'{published}.weight', f'{ours}/kernel', transform),
    TensorRule(f'{published}.bias', f'{ours}/bias'),
  )


def within(part: str, table: Table) -> Table:
  """The table of a part, with our names in the complete network."""
  return tuple(
    dataclasses.replace(rule, ours=f'{part}/{rule.ours}') for rule in table
  )


def _placeholders(pattern: str) -> list[str]:
  return re.findall(r'\{(\w+)\}', pattern)


def _matcher(pattern: str) -> re.Pattern[str]:
  parts = re.split(r'\{(\w+)\}', pattern)
  regex = ''
  for index, part in enumerate(parts):
    regex += f'(?P<{part}>\\d+)' if index % 2 else re.escape(part)
  return re.compile(regex)


def resolve(table: Table, abstract_params) -> dict[str, Source]:
  """The source of every parameter, by our name.

  Args:
    table: the rules of this network.
    abstract_params: nested dict of anything with a `shape`.

  Raises:
    ValueError: a parameter matches no rule, or several; or two parameters
      have the same published tensor.
  """
  rules = [(rule, _matcher(rule.ours)) for rule in table]
  sources: dict[str, Source] = {}
  for name, leaf in param_paths.flatten(abstract_params).items():
    matches = [
      (rule, match) for rule, regex in rules if (match := regex.fullmatch(name))
    ]
    if len(matches) != 1:
      found = [rule.published for rule, _ in matches] or 'no rule'
      raise ValueError(f'conversion table: {name} matches {found}')
    rule, match = matches[0]
    free = set(_placeholders(rule.published)) - set(_placeholders(rule.ours))
    if len(free) > 1:
      raise ValueError(
        f'conversion table: {rule.published} has more than one stacked axis'
      )
    fixed = {key: int(value) for key, value in match.groupdict().items()}
    if free:
      (layer,) = free
      names = tuple(
        rule.published.format(**fixed, **{layer: index})
        for index in range(leaf.shape[0])
      )
      shape = rule.transform.published(tuple(leaf.shape[1:]))
    else:
      names = (rule.published.format(**fixed),)
      shape = rule.transform.published(tuple(leaf.shape))
    sources[name] = Source(names, bool(free), shape, rule.transform)
  uses = collections.Counter(
    name for source in sources.values() for name in source.names
  )
  if shared := [name for name, count in uses.items() if count > 1]:
    raise ValueError(
      'conversion table: several parameters have the same tensor '
      f'{errors.listing(shared)}'
    )
  return sources

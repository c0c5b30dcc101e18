"""Names of parameters in a nested dict, such as 'blocks/attn/to_q/kernel'."""

from collections.abc import Callable, Mapping
from typing import Any

import jax


def path_name(path: tuple[Any, ...]) -> str:
  """The name of a jax key path: its keys joined by '/'."""
  return '/'.join(
    str(getattr(key, 'key', getattr(key, 'name', getattr(key, 'idx', key))))
    for key in path
  )


def flatten(params: Any) -> dict[str, Any]:
  """{'a/b': leaf} of any pytree, in tree order."""
  leaves = jax.tree_util.tree_leaves_with_path(params)
  return {path_name(path): leaf for path, leaf in leaves}


def map_named(function: Callable[..., Any], params: Any, *rest: Any) -> Any:
  """Maps `function(name, leaf, *others)` over every leaf of a pytree."""
  return jax.tree_util.tree_map_with_path(
    lambda path, *leaves: function(path_name(path), *leaves), params, *rest
  )


def partition(
  params: Mapping[Any, Any], is_first: Callable[[str], bool]
) -> tuple[dict[Any, Any], dict[Any, Any]]:
  """Splits a nested dict in two by name; empty branches are dropped."""

  def split(node, prefix):
    first, second = {}, {}
    for key, value in node.items():
      name = f'{prefix}{key}'
      if isinstance(value, Mapping):
        inner_first, inner_second = split(value, f'{name}/')
        if inner_first:
          first[key] = inner_first
        if inner_second:
          second[key] = inner_second
      elif is_first(name):
        first[key] = value
      else:
        second[key] = value
    return first, second

  return split(params, '')


def merge(
  first: Mapping[Any, Any], second: Mapping[Any, Any]
) -> dict[Any, Any]:
  """The inverse of `partition`; raises ValueError for a leaf in both."""
  merged = dict(first)
  for key, value in second.items():
    if key not in merged:
      merged[key] = value
    elif isinstance(value, Mapping) and isinstance(merged[key], Mapping):
      merged[key] = merge(merged[key], value)
    else:
      raise ValueError(f'parameter {key!r} is in both trees')
  return merged

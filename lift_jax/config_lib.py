"""Conversion of ConfigDicts to frozen dataclasses.

A config file builds a ConfigDict, flags override its fields, and `resolve`
converts it to the dataclass of a job. Missing fields and unknown keys are
errors.
"""

from collections.abc import Mapping
import dataclasses
import difflib
import types
import typing
from typing import Any, TypeVar

import ml_collections

from lift_jax.errors import UserError

T = TypeVar('T')


def resolve(
  section: Mapping[str, Any], cls: type[T], where: str = 'config'
) -> T:
  """Builds `cls` from a section, and its dataclass fields from subsections.

  Args:
    section: ConfigDict or dict.
    cls: a dataclass. Fields that are dataclasses are resolved from subsections,
      `X | None` fields may be None. If it has a class method
      `choose_class(section, where)`, the class returned by that is built
      instead.
    where: name of the section in messages.

  Raises:
    UserError: an unknown key, a missing key, or a value of the wrong type.
  """
  if isinstance(section, ml_collections.ConfigDict):
    section = section.to_dict()
  if not isinstance(section, Mapping):
    raise UserError(f'{where} is {section!r}, not a section')
  if hasattr(cls, 'choose_class'):
    cls = cls.choose_class(section, where)
  types_of = typing.get_type_hints(cls)
  fields = {field.name: field for field in dataclasses.fields(cls)}
  for key in section:
    if key not in fields:
      near = difflib.get_close_matches(key, fields, 1)
      hint = f'did you mean {near[0]}?' if near else f'known: {list(fields)}'
      raise UserError(f'{where}.{key} is not a setting; {hint}')
  missing = [
    name
    for name, field in fields.items()
    if name not in section
    and field.default is dataclasses.MISSING
    and field.default_factory is dataclasses.MISSING
  ]
  if missing:
    raise UserError(f'{where}: missing {", ".join(missing)}')
  values = {
    key: _convert(value, types_of[key], f'{where}.{key}')
    for key, value in section.items()
  }
  return cls(**values)


def _convert(value: Any, kind: Any, where: str) -> Any:
  """Converts `value` to type `kind`, or raises UserError."""
  origin = typing.get_origin(kind)
  if origin in (typing.Union, types.UnionType):
    choices = typing.get_args(kind)
    if value is None and type(None) in choices:
      return None
    (kind,) = (choice for choice in choices if choice is not type(None))
    return _convert(value, kind, where)
  if dataclasses.is_dataclass(kind):
    return resolve(value, kind, where)
  if origin is tuple:
    if not isinstance(value, list | tuple):
      raise UserError(f'{where} is {value!r}; it must be a list')
    inner = typing.get_args(kind)
    kinds = [inner[0]] * len(value) if inner[-1] is Ellipsis else inner
    if len(kinds) != len(value):
      raise UserError(f'{where} is {value!r}; it must have {len(kinds)} items')
    return tuple(
      _convert(item, kind, f'{where}[{index}]')
      for index, (item, kind) in enumerate(zip(value, kinds, strict=True))
    )
  if origin in (dict, Mapping) or kind is dict:
    return dict(value)
  if kind is float and isinstance(value, int) and not isinstance(value, bool):
    return float(value)
  if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
    raise UserError(f'{where} is {value!r}; it must be of type {kind.__name__}')
  return value


def parse_arg(
  arg: str | None, allowed: tuple[str, ...] = ('smoke',)
) -> set[str]:
  """The variants after the colon of `--config=file.py:arg`.

  Raises:
    UserError: an unknown variant.
  """
  variants = set(filter(None, (arg or '').split(',')))
  unknown = variants - set(allowed)
  if unknown:
    raise UserError(
      f'config variant {sorted(unknown)} is unknown; this file has '
      f'{list(allowed)}'
    )
  return variants


def check_choice(where: str, value: str, choices) -> None:
  """Raises a UserError unless `value` is one of `choices`."""
  if value not in choices:
    raise UserError(f'{where} is {value!r}; choose one of {list(choices)}')

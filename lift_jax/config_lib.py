"""Conversion of ConfigDicts to frozen dataclasses.

A config file builds a ConfigDict, flags override its fields, and `resolve`
converts it to the dataclass of a job. Missing fields and unknown keys are
errors.
"""

from collections.abc import Mapping
import dataclasses
import difflib
import importlib.util
import pathlib
import types
import typing
from typing import Any, ClassVar, Protocol, TypeVar

import ml_collections

from lift_jax.errors import UserError


class Dataclass(Protocol):
  """What every dataclass is, for type checkers."""

  __dataclass_fields__: ClassVar[dict[str, dataclasses.Field[Any]]]


T = TypeVar('T', bound=Dataclass)


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
    raise UserError(
      f'{where} is {section!r}, not a section; write its fields as a dict'
    )
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
    raise UserError(
      f'{where}: missing {", ".join(missing)}; add what is missing'
    )
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
  if isinstance(value, str) and '\0' in value:
    raise UserError(f'{where} is {value!r}; it must not contain NUL')
  return value


def parse_arg(arg: str | None, **kinds: type) -> types.SimpleNamespace:
  """The variant that follows the colon of `--config=FILE.py:ARG`.

  `parse_arg('smoke,steps=3', smoke=bool, steps=int)` gives smoke = True and
  steps = 3.

  Args:
    arg: parts with commas between them: NAME of a bool, NAME=VALUE of others.
    **kinds: the names that this config file knows, and the types of the values.

  Returns:
    A field for each name; False or None where it is not in `arg`.

  Raises:
    UserError: an unknown name, or a value of another type.
  """
  values = {
    name: False if kind is bool else None for name, kind in kinds.items()
  }
  for part in filter(None, (arg or '').split(',')):
    name, equals, text = part.partition('=')
    if name not in kinds:
      raise UserError(
        f'config variant {name!r} is unknown; this file has {list(kinds)}'
      )
    kind = kinds[name]
    if (kind is bool) == bool(equals):
      wanted = name if kind is bool else f'{name}=VALUE'
      raise UserError(f'config variant {part!r}: write {wanted}')
    try:
      values[name] = True if kind is bool else kind(text)
    except ValueError:
      raise UserError(
        f'config variant {part!r}: {text!r} is not of type {kind.__name__}'
      ) from None
  return types.SimpleNamespace(**values)


def load_module(path: pathlib.Path) -> types.ModuleType:
  """The module in a file, which need not be part of a package."""
  spec = importlib.util.spec_from_file_location(path.stem, path)
  assert spec is not None and spec.loader is not None  # it ends in .py
  module = importlib.util.module_from_spec(spec)
  spec.loader.exec_module(module)
  return module


def load_beside(file: str, name: str) -> types.ModuleType:
  """The config file `name` in the folder of `file`, for one that builds on it.

  base = config_lib.load_beside(__file__, 'align_cogvideox_2b.py')
  """
  return load_module(pathlib.Path(file).with_name(name))


def check_choice(where: str, value: str, choices) -> None:
  """Raises a UserError unless `value` is one of `choices`."""
  if value not in choices:
    raise UserError(f'{where} is {value!r}; choose one of {list(choices)}')

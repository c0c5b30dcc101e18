"""Which fields of config sections the package reads, by declared types."""

import ast
from collections import defaultdict
from collections.abc import Iterable
import dataclasses
import re
import typing


def sections_of(config_class: type) -> set[type]:
  """A config class and those of its sections, at any depth.

  A section that stands for several adds those that are registered.
  """
  found = {config_class}
  if hasattr(config_class, 'choose_class'):
    for choice in config_class.__subclasses__():
      if choice.__module__.startswith('lift_jax.'):
        found |= sections_of(choice)
  for name in typing.get_type_hints(config_class):
    for section in _dataclasses_of(config_class, name):
      found |= sections_of(section)
  return found


def _dataclasses_of(cls: type, field: str) -> set[type]:
  kind = typing.get_type_hints(cls)[field]
  return {
    choice
    for choice in (kind, *typing.get_args(kind))
    if dataclasses.is_dataclass(choice)
  }


class FieldReads(ast.NodeVisitor):
  """Collects `reads`: (name of a class, attribute) of what modules read.

  An object is of the class that its annotation names (of a parameter, a
  variable or an attribute), of what the call that made it returns, or of the
  class of the section it was taken from. Where none of them says, `x.train` may
  be whatever some config holds under that name, and `x.config` a whole config;
  a parameter may be of any section whose class its module names.

  Reads in `__post_init__` check a value, and do not count.
  """

  def __init__(self, configs: Iterable[type]):
    self.reads = set()
    # {class: {attribute: classes}}, and the same without the class.
    self._attributes = defaultdict(dict)
    self._anywhere = defaultdict(set)
    self._variables = {}
    self._named = set()
    self._returned = {}
    for config in configs:
      self._anywhere['config'].add(config.__name__)
      for section in sections_of(config):
        for name in typing.get_type_hints(section):
          kinds = {cls.__name__ for cls in _dataclasses_of(section, name)}
          self._attributes[section.__name__][name] = kinds
          self._anywhere[name] |= kinds

  def unread(self, section: type) -> list[str]:
    """Fields of a section, some of which may come from a base class."""
    classes = {cls.__name__ for cls in section.__mro__}
    return [
      f'{section.__name__}.{field.name}'
      for field in dataclasses.fields(section)
      if not any((name, field.name) in self.reads for name in classes)
    ]

  def visit_Module(self, node):
    self._variables = {}
    self._named = _names(node) & self._attributes.keys()
    self._returned = {
      function.name: _names(function.returns)
      for function in ast.walk(node)
      if isinstance(function, ast.FunctionDef) and function.returns
    }
    self.generic_visit(node)

  def visit_ClassDef(self, node):
    outer, self._variables = self._variables, {'self': {node.name}}
    for item in node.body:
      if isinstance(item, ast.AnnAssign):
        kinds = _names(item.annotation)
        self._attributes[node.name].setdefault(item.target.id, kinds)
    self.generic_visit(node)
    self._variables = outer

  def visit_FunctionDef(self, node):
    if node.name == '__post_init__':
      return
    outer, self._variables = self._variables, dict(self._variables)
    for argument in node.args.args + node.args.kwonlyargs:
      if argument.annotation is not None:
        kinds = _names(argument.annotation)
        if kinds == {'Any'}:
          kinds = self._anywhere[argument.arg]
        self._variables[argument.arg] = kinds
      elif argument.arg != 'self':
        self._variables[argument.arg] = self._named
    self.generic_visit(node)
    self._variables = outer

  def visit_Assign(self, node):
    self.generic_visit(node)
    for target in node.targets:
      self._assign(target, node.value)

  def _assign(self, target, value):
    if isinstance(target, ast.Tuple) and isinstance(value, ast.Tuple):
      for one, its_value in zip(target.elts, value.elts, strict=True):
        self._assign(one, its_value)
    elif isinstance(target, ast.Name):
      self._variables[target.id] = self._classes_of(value)
    elif isinstance(target, ast.Attribute):
      for owner in self._classes_of(target.value):
        self._attributes[owner].setdefault(target.attr, self._classes_of(value))

  def visit_Attribute(self, node):
    self.generic_visit(node)
    if isinstance(node.ctx, ast.Load):
      self.reads |= {(name, node.attr) for name in self._classes_of(node.value)}

  def _classes_of(self, node: ast.expr) -> set[str]:
    """Names of the classes that an expression may be of."""
    match node:
      case ast.Name():
        return self._variables.get(node.id, set())
      case ast.Attribute():
        known = set()
        for owner in self._classes_of(node.value) & self._attributes.keys():
          known |= self._attributes[owner].get(node.attr, set())
        # A class that is not ours, such as Any, says nothing.
        known &= self._attributes.keys()
        return known or self._anywhere[node.attr]
      case ast.Call(args=[first, *_]) if _called(node) == 'replace':
        return self._classes_of(first)
      case ast.Call():
        return self._returned.get(_called(node), {_called(node)})
      case ast.BoolOp():
        return set().union(*map(self._classes_of, node.values))
      case ast.IfExp():
        return self._classes_of(node.body) | self._classes_of(node.orelse)
      case _:
        return set()


def _called(call: ast.Call) -> str:
  return ast.unparse(call.func).rpartition('.')[2]


def _names(node: ast.AST) -> set[str]:
  """Every word of an annotation or a module: of `A | None` A and None."""
  return set(re.findall(r'\w+', ast.unparse(node)))

"""Reference implementations that networks are compared with, where installed.

`from tests.optional import torch` imports nothing yet: the package is imported
when a test first uses it, and that test is skipped where it is absent. So a
file's other tests run without torch, and collecting tests stays quick.
"""

import functools

import pytest


class Package:
  def __init__(self, name: str):
    self._name = name

  @functools.cached_property
  def _package(self):
    pytest.importorskip('torch')  # which all of them build on
    return pytest.importorskip(self._name)

  def __getattr__(self, attribute: str):
    return getattr(self._package, attribute)


diffusers = Package('diffusers')
peft = Package('peft')
safetensors_torch = Package('safetensors.torch')
torch = Package('torch')
transformers = Package('transformers')

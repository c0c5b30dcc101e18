"""Weights of torch modules, carried across by the shipped tables."""

import numpy as np

from lift_jax.weights import conversion, param_paths


def params_from_torch(table, abstract_params, module, skip=()):
  """Our parameters from a torch module, through a conversion table.

  Goes through `conversion.resolve` alone, so that a test of a network does not
  depend on files; every published tensor must be used.
  """
  state = {
    name: tensor.detach().numpy()
    for name, tensor in module.state_dict().items()
    if name not in skip
  }
  sources = conversion.resolve(table, abstract_params)

  def take(name, _):
    source = sources[name]
    arrays = []
    for published in source.names:
      array = state.pop(published)
      assert array.shape == source.shape, published
      axes = source.transform.axes
      arrays.append(array if axes is None else array.transpose(axes))
    return np.stack(arrays) if source.stacked else arrays[0]

  params = param_paths.map_named(take, abstract_params)
  assert not state, f'unused tensors: {sorted(state)}'
  return params


def to_torch_names(table, params):
  """{published name: numpy array} of our parameters."""
  tensors = {}
  flat = param_paths.flatten(params)
  for name, source in conversion.resolve(table, params).items():
    arrays = np.asarray(flat[name])
    for index, published in enumerate(source.names):
      array = arrays[index] if source.stacked else arrays
      axes = source.transform.inverse_axes
      tensors[published] = array if axes is None else array.transpose(axes)
  return tensors


def scaled_error(ours, theirs) -> float:
  """Largest difference, as a share of the reference's largest value."""
  ours, theirs = np.asarray(ours), np.asarray(theirs)
  assert ours.shape == theirs.shape, (ours.shape, theirs.shape)
  return float(np.abs(ours - theirs).max() / np.abs(theirs).max())

"""Pretraining of the toy world's text encoder.

The T5 of CogVideoX was pretrained on text. The text encoder of the toy world is
pretrained on captions: a linear head predicts each attribute of the scene from
each position of its output, and is then discarded. Without this, the
transformer needs several times as many videos before shapes move.

B captions  S token positions  D width  A attributes
"""

import jax
import jax.numpy as jnp
import numpy as np

from lift_jax.models.functional import FunctionalModel, Params
from lift_jax.toyworld import scenes
from lift_jax.toyworld.pretraining.loop import (
  Pretraining,
  StageConfig,
  classification,
  train,
)


def attribute_classes(training: tuple[scenes.Scene, ...]) -> np.ndarray:
  """int32 [B, A]: index of each attribute's value."""
  return np.array(
    [
      [
        scenes.values_of(name).index(getattr(scene, name))
        for name in scenes.ATTRIBUTES
      ]
      for scene in training
    ],
    np.int32,
  )


def train_text_encoder(
  network: FunctionalModel,
  params: Params,
  training: tuple[scenes.Scene, ...],
  tokens_bs: np.ndarray,
  config: StageConfig,
  run: Pretraining,
) -> Params:
  """Trains the text encoder; returns its parameters.

  Args:
    network: the text encoder.
    params: initial parameters, donated.
    training: scenes to train on.
    tokens_bs: int32, their captions.
    config: of the stage.
    run: the pretraining that it is a stage of.
  """
  classes_ba = attribute_classes(training)
  sizes = [len(scenes.values_of(name)) for name in scenes.ATTRIBUTES]
  width = jax.eval_shape(network, params, tokens_bs[:1]).shape[-1]
  head = jnp.zeros((width, sum(sizes)))

  def loss_fn(trained, tokens_bs, classes_ba, key):
    del key
    text_bsd = network(trained['network'], tokens_bs)
    logits = jnp.split(text_bsd @ trained['head'], np.cumsum(sizes)[:-1], -1)
    loss, accuracies = classification(logits, classes_ba)
    return loss, dict(zip(scenes.ATTRIBUTES, accuracies, strict=True))

  trained = train(
    'text encoder',
    {'network': params, 'head': head},
    loss_fn,
    lambda indices, _: (tokens_bs[indices], classes_ba[indices]),
    len(training),
    config,
    run,
  )
  return trained['network']

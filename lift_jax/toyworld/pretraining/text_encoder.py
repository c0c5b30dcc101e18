"""Teaches the text encoder to read captions, before anything is generated.

The T5 of CogVideoX has read much text before any video. That of the toy world
reads captions: one linear map finds each attribute of the scene in each place
of its output, and is thrown away afterwards. A transformer that had to learn to
read from videos alone took several times as many of them before a shape moved.

B captions  S places of a caption  D width  A attributes
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


def words_of(known: tuple[scenes.Scene, ...]) -> np.ndarray:
  """int32 [B, A]: the number of each word among those of its attribute."""
  return np.array(
    [
      [
        scenes.values_of(name).index(getattr(scene, name))
        for name in scenes.ATTRIBUTES
      ]
      for scene in known
    ],
    np.int32,
  )


def train_text_encoder(
  network: FunctionalModel,
  params: Params,
  known: tuple[scenes.Scene, ...],
  tokens_bs: np.ndarray,
  config: StageConfig,
  run: Pretraining,
) -> Params:
  """Parameters of the text encoder.

  Args:
    network: the text encoder.
    params: before it, donated.
    known: scenes to learn from.
    tokens_bs: int32, their captions.
    config: how long and how fast.
    run: that it is a stage of.
  """
  words_ba = words_of(known)
  sizes = [len(scenes.values_of(name)) for name in scenes.ATTRIBUTES]
  width = jax.eval_shape(network, params, tokens_bs[:1]).shape[-1]
  head = jnp.zeros((width, sum(sizes)))

  def loss_fn(trained, tokens_bs, words_ba, key):
    del key
    text_bsd = network(trained['network'], tokens_bs)
    scores = jnp.split(text_bsd @ trained['head'], np.cumsum(sizes)[:-1], -1)
    loss, rights = classification(scores, words_ba)
    return loss, dict(zip(scenes.ATTRIBUTES, rights, strict=True))

  trained = train(
    'text encoder',
    {'network': params, 'head': head},
    loss_fn,
    lambda rows, _: (tokens_bs[rows], words_ba[rows]),
    len(known),
    config,
    run,
  )
  return trained['network']

"""What determines a clip besides its prompt and seed."""

import dataclasses
import hashlib
import json
from typing import Any

from lift_jax.diffusion.sampler import SamplerConfig
from lift_jax.models.generator_config import ModelConfig
from lift_jax.models.generators import NETWORKS, TOKENIZER, VideoModel
from lift_jax.runtime import storage
from lift_jax.runtime.files import file_sha256
from lift_jax.sampling.config import VideoConfig


def sampler_settings(sampler: SamplerConfig) -> dict[str, Any]:
  """The settings of a sampler; a curve is its content, not its path.

  What is off is omitted, as it was before it existed: so clips that were made
  then have the same settings.
  """
  settings = {
    name: value
    for name, value in dataclasses.asdict(sampler).items()
    if (sampler.guidance_range or name != 'guidance_range')
    and (sampler.cache != 'none' or not name.startswith('cache'))
  }
  if sampler.cache != 'none':
    curve = storage.to_path(sampler.cache_curve)
    settings['cache_curve'] = file_sha256(curve)
  return settings


def model_fingerprint(model: VideoModel) -> str:
  """Hash (16 hex digits) of the weights and configs of a model."""
  parts = [model.fingerprint(part) for part in (*NETWORKS, TOKENIZER)]
  parts.append(json.dumps(model.schedule.to_json(), sort_keys=True))
  return hashlib.sha256('\n'.join(parts).encode()).hexdigest()[:16]


def clip_fingerprint(
  model: VideoModel,
  config: ModelConfig,
  video: VideoConfig,
  sampler: SamplerConfig,
  **others: Any,
) -> dict[str, Any]:
  """Everything that determines a clip besides its prompt and seed."""
  return {
    'checkpoint': model_fingerprint(model),
    'compute_dtype': config.compute_dtype,
    'video': dataclasses.asdict(video),
    'sampler': sampler_settings(sampler),
    **others,
  }

"""The same of diffusers and transformers, for comparison: same sizes, bfloat16.

B videos  F latent frames  C channels  h w height and width in latents  S text
tokens  D width of their embeddings
"""

import contextlib
import sys
from typing import Any

from gpu_parts import clock, configs
import torch

from lift_jax import chips
from lift_jax.diffusion.schedule import alpha_bars
from lift_jax.errors import UserError
from lift_jax.models import critic_config, generator_config
from lift_jax.models.cogvideox.flops import forward_flops
from lift_jax.sampling.config import VideoConfig
from lift_jax.sampling.sizes import latent_shape
from lift_jax.training import alignment


def train(tiny: bool, batch: int) -> dict[str, Any]:
  """A step of LiFT's training script (CogVideo/finetune/train.py).

  As that ends up when it is launched: weights and AdamW in bfloat16, blocks
  alone trained, gradient checkpointing. Latents and text are encoded already.
  """
  from diffusers import CogVideoXTransformer3DModel

  device = _device(tiny)
  config = configs.train(tiny, batch, 'full')
  folder = generator_config.declare_chosen(config.model)
  with _making(device):
    model = CogVideoXTransformer3DModel.from_config(
      folder.transformer.to_json()
    )
  model.train().enable_gradient_checkpointing()
  model.requires_grad_(False).transformer_blocks.requires_grad_(True)
  trained = [p for p in model.parameters() if p.requires_grad]
  settings = config.optimizer
  optimizer = torch.optim.AdamW(
    trained,
    lr=settings.learning_rate,
    betas=(settings.beta1, settings.beta2),
    eps=settings.eps,
    weight_decay=settings.weight_decay,
  )
  height, width = config.data.sizes[0]
  video = VideoConfig(height, width, config.data.max_frames, tiling=False)
  frames, rows, columns, channels = latent_shape(folder, video)
  a_t = torch.tensor(alpha_bars(folder.schedule), device=device).float()
  with _making(device):
    shape_bfchw = (batch, frames, channels, rows, columns)
    mean, deviation = torch.randn(2, *shape_bfchw)
    text_bsd = torch.randn(
      batch,
      folder.transformer.max_text_length,
      folder.transformer.text_embed_dim,
    )
  reward_b = torch.full((batch,), 0.9, device=device)
  loss = None

  def run():
    nonlocal loss
    x0 = mean + deviation * torch.randn_like(mean)
    x0 = (x0 * folder.vae.scaling_factor).float()
    noise = torch.randn_like(x0)
    t_b = torch.randint(0, len(a_t), (batch,), device=device)
    a = a_t[t_b].reshape(-1, 1, 1, 1, 1)
    noisy = a.sqrt() * x0 + (1 - a).sqrt() * noise
    v = model(noisy.to(mean.dtype), text_bsd, t_b, return_dict=False)[0]
    # The reference's form, which is the error of v.
    found = a.sqrt() * noisy - (1 - a).sqrt() * v.float()
    error = (found - x0).square() / (1 - a)
    loss = (error.mean(dim=(1, 2, 3, 4)) * reward_b).mean()
    loss.backward()
    torch.nn.utils.clip_grad_norm_(trained, settings.clip_norm)
    optimizer.step()
    optimizer.zero_grad()
    _wait(device)

  runs = clock.repeat(run, tiny)
  flops = alignment.step_flops(
    folder,
    'blocks',
    config.objective.chosen,
    (batch, frames, rows, columns, channels),
  )
  return _speed(device, runs, batch, flops) | {'loss': float(loss.detach())}


@torch.inference_mode()
def sample(tiny: bool) -> dict[str, Any]:
  """As many guided passes as there are steps, of which a few are timed.

  What a sampler computes between them is left out.
  """
  device = _device(tiny)
  config = configs.sample(tiny)
  folder = generator_config.declare_chosen(config.model)
  frames, rows, columns, channels = latent_shape(folder, config.video)
  with _making(device):
    latents_bfchw = torch.randn(2, frames, channels, rows, columns)
  passes = _guided_passes(folder, device, latents_bfchw, tiny)
  decodings = _decodings(
    folder, device, latents_bfchw[:1].transpose(1, 2), config.video.tiling, tiny
  )
  tokens = folder.transformer.num_tokens(frames, rows, columns)
  flops = 2 * forward_flops(folder.transformer, tokens).forward
  denoise_seconds = config.sampler.num_steps * clock.median(passes)
  decode_seconds = clock.median(decodings)
  return _speed(device, passes, 1, flops) | {
    'seconds_per_video': denoise_seconds + decode_seconds,
    'denoise_seconds_per_video': denoise_seconds,
    'decode_seconds_per_video': decode_seconds,
    'decode_run_seconds': decodings,
  }


def _guided_passes(folder, device, latents_bfchw, tiny) -> list[float]:
  """Seconds of a pass with and without the text, together."""
  from diffusers import CogVideoXTransformer3DModel

  config = folder.transformer
  with _making(device):
    model = CogVideoXTransformer3DModel.from_config(config.to_json()).eval()
    text_bsd = torch.randn(2, config.max_text_length, config.text_embed_dim)
  t_b = torch.tensor([500, 500], device=device)

  def run():
    model(latents_bfchw, text_bsd, t_b, return_dict=False)
    _wait(device)

  return clock.repeat(run, tiny)


def _decodings(
  folder, device, latents_bcfhw, tiling: bool, tiny: bool
) -> list[float]:
  """Seconds of decoding one video."""
  from diffusers import AutoencoderKLCogVideoX

  with _making(device):
    vae = AutoencoderKLCogVideoX.from_config(folder.vae.to_json()).eval()
  if tiling:
    vae.enable_tiling()

  def run():
    vae.decode(latents_bcfhw / folder.vae.scaling_factor, return_dict=False)
    _wait(device)

  return clock.repeat(run, tiny)


@torch.inference_mode()
def score(tiny: bool, batch: int) -> dict[str, Any]:
  """Prefill of as many tokens as our critic reads; no frames are looked at."""
  import transformers

  device = _device(tiny)
  config = configs.score(tiny, batch)
  (program,) = configs.programs('score', config).values()
  _, _, prompts = program.lower().args_info[0]
  tokens = prompts.prefix_bn.shape[1]
  tokens += prompts.question_bqm.shape[1] * prompts.question_bqm.shape[2]
  critic = critic_config.declare_chosen(config.model)
  with _making(device):
    model = transformers.LlamaForCausalLM(
      transformers.LlamaConfig(**critic.config.llm.to_json())
    ).eval()
  ids_bn = torch.ones(batch, tokens, dtype=torch.long, device=device)

  def run():
    model(ids_bn, use_cache=True, logits_to_keep=1)
    _wait(device)

  flops = batch * critic.decoder_flops(tokens, num_logits=1)
  found = _speed(device, clock.repeat(run, tiny), batch, flops)
  return found | {
    'videos_per_second': 1 / found['seconds_per_video'],
    'tokens_per_video': tokens,
  }


def _device(tiny: bool) -> torch.device:
  """The GPU; a CPU at toy sizes only.

  Raises:
    UserError: there is none.
  """
  if torch.cuda.is_available():
    return torch.device('cuda')
  if not tiny:
    raise UserError('torch sees the CPU alone, which is for --tiny')
  return torch.device('cpu')


@contextlib.contextmanager
def _making(device: torch.device):
  """What is made meanwhile is of bfloat16 and on the device."""
  before = torch.get_default_dtype()
  torch.set_default_dtype(torch.bfloat16)
  try:
    with device:
      yield
  finally:
    torch.set_default_dtype(before)


def _wait(device: torch.device) -> None:
  if device.type == 'cuda':
    torch.cuda.synchronize()


def _speed(
  device: torch.device, runs: list[float], num_videos: int, flops: float
) -> dict[str, Any]:
  """What is known after the runs, under the names of `with_jax`."""
  is_gpu = device.type == 'cuda'
  kind = torch.cuda.get_device_name() if is_gpu else 'cpu'
  seconds = clock.median(runs)
  peak = chips.peak_flops(kind)
  versions = {'python': sys.version.split()[0], 'torch': torch.__version__}
  for name in ('diffusers', 'transformers'):
    if name in sys.modules:
      versions[name] = sys.modules[name].__version__
  return {
    'seconds_per_video': seconds / num_videos,
    'run_seconds': runs,
    'mfu': flops / (seconds * peak) if peak else None,
    'peak_bytes': torch.cuda.max_memory_allocated() if is_gpu else None,
    'device': kind,
    'versions': versions,
  }

"""Prompts of Qwen3-VL critics.

The message is the clip, then the caption with the question appended. Each
patch of two frames is its time and its tokens,

  <0.4 seconds><|vision_start|><|video_pad|>...<|video_pad|><|vision_end|>

There are two forms of a clip. Transformers up to 4.57, and vLLM, replace
<|vision_start|><|video_pad|><|vision_end|> of the chat template by the patches.
Transformers from 5.10 replaces <|video_pad|> alone, so that the patches are
within another pair of <|vision_start|> and <|vision_end|>.
"""

import dataclasses

START, END = '<|im_start|>', '<|im_end|>'
VISION_START, VISION_END = '<|vision_start|>', '<|vision_end|>'
VIDEO = '<|video_pad|>'
END_OF_TEXT = '<|endoftext|>'

SPECIAL_TOKENS = (END_OF_TEXT, START, END, VISION_START, VISION_END, VIDEO)


@dataclasses.dataclass(frozen=True)
class QwenTemplate:
  """Form of a prompt.

  Attributes:
    name: in configs.
    before_clip: text before the patches of a clip.
    after_clip: text after them.
  """

  name: str
  before_clip: str
  after_clip: str


TEMPLATES = {
  template.name: template
  for template in (
    QwenTemplate('qwen3-vl', '', ''),
    QwenTemplate('qwen3-vl-nested', VISION_START, VISION_END),
  )
}


def render_prompt(
  template: QwenTemplate,
  timestamps: tuple[float, ...],
  tokens_per_patch: int,
  text: str,
) -> str:
  """A prompt, up to the start of the answer.

  Args:
    template: form of the prompt.
    timestamps: of each patch of frames, in seconds.
    tokens_per_patch: tokens of each.
    text: caption and question.
  """
  tokens = f'{VISION_START}{VIDEO * tokens_per_patch}{VISION_END}'
  patches = ''.join(f'<{time:.1f} seconds>{tokens}' for time in timestamps)
  clip = template.before_clip + patches + template.after_clip
  return f'{START}user\n{clip}{text}{END}\n{START}assistant\n'

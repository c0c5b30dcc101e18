"""Prompt templates of VILA critics.

The user message is one line per frame, then the caption with the question
appended; a template wraps it in the format that the language model was trained
on. The templates are those of VILA-1.5 (llava/conversation.py).
"""

import dataclasses

from lift_jax.errors import UserError, listing

# Placeholder for the tokens of one frame.
IMAGE = '<image>'


@dataclasses.dataclass(frozen=True)
class Template:
  """Format of a dialogue with one question and one answer.

  Attributes:
    name: in configs and published models.
    system: system prompt.
    user: prefix of the user's message.
    assistant: prefix of the answer; a prompt ends with it.
    separator: after the system prompt and after the user's message.
    before_answer: text between `assistant` and the answer in training; at
      inference the model generates it.
    stop: token that ends an answer.
    special_tokens: parts of the texts above that are one token each.
    legacy: LlamaTokenizer's treatment of spaces: False as since transformers
      4.31, None as in the model's tokenizer_config.json. VILA uses False unless
      the language model is Yi-34B (llava/model/language_model/builder.py).
  """

  name: str
  system: str
  user: str
  assistant: str
  separator: str
  before_answer: str
  stop: str
  special_tokens: tuple[str, ...]
  legacy: bool | None


VICUNA_V1 = Template(
  name='vicuna_v1',
  system=(
    'A chat between a curious user and an artificial intelligence assistant. '
    'The assistant gives helpful, detailed, and polite answers to the '
    "user's questions."
  ),
  user='USER: ',
  assistant='ASSISTANT:',
  separator=' ',
  before_answer=' ',
  stop='</s>',
  special_tokens=('</s>',),
  legacy=False,
)

HERMES_2 = Template(
  name='hermes-2',
  system='<|im_start|>system\nAnswer the questions.',
  user='<|im_start|>user\n',
  assistant='<|im_start|>assistant\n',
  separator='<|im_end|>',
  before_answer='',
  stop='<|im_end|>',
  special_tokens=('<|im_start|>', '<|im_end|>'),
  legacy=None,
)

TEMPLATES = {template.name: template for template in (VICUNA_V1, HERMES_2)}


def get_template(name: str) -> Template:
  """The template called `name`; raises UserError if there is none."""
  if name not in TEMPLATES:
    raise UserError(
      f'no prompt template is called {name!r}; choose from {listing(TEMPLATES)}'
    )
  return TEMPLATES[name]


def user_message(
  caption: str, question: str, num_frames: int, *, space_before_caption: bool
) -> str:
  """The user's message: frames, caption and question.

  Args:
    caption: prompt of the video.
    question: appended unchanged; questions begin with a space.
    num_frames: of the video; one line each.
    space_before_caption: whether the caption's line begins with a space, which
      changes the first token of the caption. Released critics were trained on
      published feedback with it, but their inference code omits it.
  """
  space = ' ' if space_before_caption else ''
  return f'{IMAGE}\n' * num_frames + space + caption + question


def render(template: Template, message: str, answer: str | None = None) -> str:
  """The full text of a dialogue.

  Args:
    template: prompt template.
    message: from `user_message`.
    answer: the assistant's answer, for training; None ends the text where the
      answer starts.
  """
  prompt = (
    template.system
    + template.separator
    + template.user
    + message
    + template.separator
    + template.assistant
  )
  if answer is None:
    return prompt
  return prompt + template.before_answer + answer + template.stop

"""Prompts of VILA critics, as text.

What a user says is one line per frame, then the caption with the question
appended as it stands; a template puts that into the form that a language model
was trained on. The templates are those of VILA-1.5 (llava/conversation.py).
"""

import dataclasses

from lift_jax.errors import UserError, listing

# Stands for the tokens of one frame.
IMAGE = '<image>'


@dataclasses.dataclass(frozen=True)
class Template:
  """The form of a dialogue of one question and one answer.

  Attributes:
    name: as configs and published models call it.
    system: what is said before the dialogue.
    user: role of the one who asks, with what follows it.
    assistant: role of the one who answers; a prompt ends with it.
    separator: after the system text and after the user's message.
    before_answer: what training has between `assistant` and the answer; the
      model itself writes it otherwise.
    stop: token that ends an answer.
    special_tokens: parts of the texts above that are one token each.
    legacy: how LlamaTokenizer treats the spaces of a text: False as since
      transformers 4.31, None as the model's tokenizer_config.json says. VILA
      asks for False except where the language model is Yi-34B
      (llava/model/language_model/builder.py).
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
  """The template of a name; a UserError if there is none."""
  if name not in TEMPLATES:
    raise UserError(
      f'no prompt template is called {name!r}; choose from {listing(TEMPLATES)}'
    )
  return TEMPLATES[name]


def user_message(
  caption: str, question: str, num_frames: int, *, space_before_caption: bool
) -> str:
  """What the user says: frames, caption and question.

  Args:
    caption: what the video should show.
    question: appended as it stands; questions begin with a space.
    num_frames: of the video; one line each.
    space_before_caption: whether the caption's line begins with a space. In
      published feedback it does, and released critics were trained so; their
      own inference leaves the space out. The first token of the caption
      depends on it.
  """
  space = ' ' if space_before_caption else ''
  return f'{IMAGE}\n' * num_frames + space + caption + question


def render(template: Template, message: str, answer: str | None = None) -> str:
  """The whole text of a dialogue.

  Args:
    template: the form.
    message: as from `user_message`.
    answer: what the assistant says, for training; None ends the text where the
      assistant begins to speak.
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

"""Human and scored records for tests."""

from lift_jax.data.hra import DIMENSIONS, conversation
from lift_jax.scoring.output import PUBLISHED_KEYS

QUESTIONS = {
  'semantic': ' Does this clip show what the text says? Judge the semantic '
  'match.',
  'motion': ' Does everything move as it would? Judge the motion.',
  'fidelity': ' Does every frame look clean? Judge the fidelity.',
}


def rated(
  video: str,
  caption: str,
  dimension: str,
  label: str,
  rationale: str = 'So it seems.',
) -> dict:
  """An entry of human feedback."""
  return conversation(
    f'videos/{video}.mp4', caption, QUESTIONS[dimension], label, rationale
  )


def rated_in_all(
  video: str, caption: str, labels: tuple[str, str, str]
) -> list[dict]:
  return [
    rated(video, caption, dimension, label)
    for dimension, label in zip(DIMENSIONS, labels, strict=True)
  ]


def scored(
  video: str,
  caption: str,
  labels: tuple[str, str, str] = ('Good', 'Normal', 'Bad'),
  sure: float = 0.8,
  **more,
) -> dict:
  """What `lift score` writes; a key that is None is left out."""
  by_dimension = dict(zip(DIMENSIONS, labels, strict=True))
  item = {
    'video': f'videos/{video}.mp4',
    'caption': caption,
    'labels': by_dimension,
    'probabilities': {
      dimension: {
        name: sure if name == label else (1 - sure) / 2
        for name in ('Good', 'Normal', 'Bad')
      }
      for dimension, label in by_dimension.items()
    },
    'critic': '0123456789abcdef',
    'flags': [],
  }
  item |= {
    PUBLISHED_KEYS[dimension]: f'{label}. The {dimension} is {label.lower()}.'
    for dimension, label in by_dimension.items()
  }
  item |= more
  return {key: value for key, value in item.items() if value is not None}


def failed(video: str, caption: str, error: str = 'no label') -> dict:
  return {'video': f'videos/{video}.mp4', 'caption': caption, 'error': error}

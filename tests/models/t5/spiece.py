"""A T5 tokenizer folder in small, as published."""

import json

import sentencepiece


def train(folder, more_texts=(), **settings):
  """Writes spiece.model, trained on captions, and tokenizer_config.json.

  Args:
    folder: an empty folder.
    more_texts: to train on, too.
    **settings: of the trainer.
  """
  corpus = [
    f'A {size} {colour} {shape} {verb} to the {side}, slowly.'
    for size in ('small', 'large', 'tiny')
    for colour in ('red', 'green', 'blue', 'yellow')
    for shape in ('ball', 'square', 'triangle')
    for verb in ('rolls', 'jumps', 'moves', 'circles')
    for side in ('left', 'right')
  ]
  sentencepiece.SentencePieceTrainer.train(
    sentence_iterator=iter([*corpus, *more_texts]),
    model_prefix=str(folder / 'spiece'),
    model_type='unigram',
    pad_id=0,
    eos_id=1,
    unk_id=2,
    bos_id=-1,
    num_threads=1,
    minloglevel=2,
    **{'vocab_size': 40, **settings},
  )
  (folder / 'spiece.vocab').unlink()
  config = {
    'tokenizer_class': 'T5Tokenizer',
    'extra_ids': 100,
    'legacy': True,
    'model_max_length': 226,
    'pad_token': '<pad>',
    'eos_token': '</s>',
    'unk_token': '<unk>',
  }
  (folder / 'tokenizer_config.json').write_text(json.dumps(config))

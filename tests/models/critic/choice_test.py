"""Which critic a job opens: one that is named, or a random one of its own."""

import dataclasses
from unittest import mock

import pytest

from lift_jax.errors import UserError
from lift_jax.models.critic import choice, folder
from lift_jax.models.critic.tokens import label_ids
from tests.models.critic import tiny_vila
from tests.models.critic.critics import CONFIG, TOKENS_PER_FRAME

RANDOM = choice.RandomCriticConfig(
  vision_tower=CONFIG.vision_tower, llm=CONFIG.llm, seed=7
)
CHOICE = choice.CriticModelConfig(
  path='',
  adapter='',
  random=RANDOM,
  template='vicuna_v1',
  compute_dtype='float32',
  attention='auto',
)


@pytest.fixture(scope='module')
def workdir(tmp_path_factory):
  path = tmp_path_factory.mktemp('workdir')
  choice.open_chosen(CHOICE, path)
  return path


def test_a_random_one_is_made_in_the_workdir(workdir):
  with mock.patch.object(folder, '_save', side_effect=AssertionError):
    opened = choice.open_chosen(CHOICE, workdir)
  assert opened.path == workdir / 'model'
  assert opened.config == CONFIG


@pytest.mark.parametrize(
  'changes',
  [
    {'seed': 8},
    {'llm': dataclasses.replace(CONFIG.llm, num_layers=3)},
    {'vision_tower': dataclasses.replace(CONFIG.vision_tower, image_size=30)},
  ],
)
def test_another_random_one_is_refused(workdir, changes):
  wanted = dataclasses.replace(RANDOM, **changes)
  with pytest.raises(UserError, match='other settings of model.random'):
    choice.open_chosen(dataclasses.replace(CHOICE, random=wanted), workdir)


def test_the_one_that_is_named(tmp_path):
  path = tiny_vila.write(tmp_path / 'vila', tiny_vila.shared())
  named = dataclasses.replace(CHOICE, path=str(path), random=None)
  opened = choice.open_chosen(named, tmp_path / 'workdir')
  assert (opened.path, opened.config) == (path, CONFIG)
  assert not (tmp_path / 'workdir').exists()


def test_none_is_named(tmp_path):
  with pytest.raises(UserError, match='model.path is empty'):
    choice.open_chosen(dataclasses.replace(CHOICE, random=None), tmp_path)


@pytest.mark.parametrize('path', ['', 'model'])
def test_adapters_that_are_none(workdir, path):
  wanted = dataclasses.replace(
    CHOICE, path=str(workdir / path) if path else '', adapter=str(workdir)
  )
  with pytest.raises(UserError, match=r'adapter_config\.json: no such file'):
    choice.open_chosen(wanted, workdir)


@pytest.mark.parametrize(
  'change',
  [{'compute_dtype': 'float16'}, {'attention': 'flash'}, {'template': 'llama'}],
)
def test_unknown_choices(change):
  (name,) = change
  with pytest.raises(UserError, match=f'model.{name} is'):
    dataclasses.replace(CHOICE, **change)


class TestTokenizer:
  def test_belongs_to_the_critic(self, workdir):
    critic = choice.open_chosen(CHOICE, workdir)
    tokenizer = choice.open_tokenizer(CHOICE, critic)
    assert tokenizer.tokens_per_frame == TOKENS_PER_FRAME
    assert tokenizer.max_length == CONFIG.llm.max_length
    assert tokenizer.template.name == 'vicuna_v1'
    assert len(label_ids(tokenizer)) == 3

  def test_more_tokens_than_the_model(self, workdir):
    critic = choice.open_chosen(CHOICE, workdir)
    llm = dataclasses.replace(CONFIG.llm, vocab_size=500)
    smaller = dataclasses.replace(
      critic, config=dataclasses.replace(CONFIG, llm=llm)
    )
    with pytest.raises(UserError, match='has 512 tokens, .* model 500'):
      choice.open_tokenizer(CHOICE, smaller)

  def test_template_of_another_model(self, workdir):
    critic = choice.open_chosen(CHOICE, workdir)
    config = dataclasses.replace(CHOICE, template='hermes-2')
    with pytest.raises(UserError, match='prompt template'):
      choice.open_tokenizer(config, critic)

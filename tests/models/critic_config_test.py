"""Critics that jobs open: from a path, or a random one."""

import dataclasses
from unittest import mock

import pytest

from lift_jax.errors import UserError
from lift_jax.models import critic_config, critics
from lift_jax.models.critic_tokens import label_ids
from lift_jax.models.vila.config import RandomVilaConfig
from tests.models.vila import tiny_vila
from tests.models.vila.critics import CONFIG, TOKENS_PER_FRAME

RANDOM = RandomVilaConfig(
  backbone='vila', vision_tower=CONFIG.vision_tower, llm=CONFIG.llm, seed=7
)
CHOICE = critic_config.CriticModelConfig(
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
  critic_config.open_chosen(CHOICE, path)
  return path


def test_a_random_one_is_made_in_the_workdir(workdir):
  with mock.patch.object(critics.Critic, 'build', side_effect=AssertionError):
    opened = critic_config.open_chosen(CHOICE, workdir)
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
    critic_config.open_chosen(
      dataclasses.replace(CHOICE, random=wanted), workdir
    )


def test_path(tmp_path):
  path = tiny_vila.write(tmp_path / 'vila', tiny_vila.shared())
  named = dataclasses.replace(CHOICE, path=str(path), random=None)
  opened = critic_config.open_chosen(named, tmp_path / 'workdir')
  assert (opened.path, opened.config) == (path, CONFIG)
  assert not (tmp_path / 'workdir').exists()


def test_no_path(tmp_path):
  with pytest.raises(UserError, match='model.path is empty'):
    critic_config.open_chosen(
      dataclasses.replace(CHOICE, random=None), tmp_path
    )


@pytest.mark.parametrize('path', ['', 'model'])
def test_folder_without_adapters(workdir, path):
  wanted = dataclasses.replace(
    CHOICE, path=str(workdir / path) if path else '', adapter=str(workdir)
  )
  with pytest.raises(UserError, match='nor adapter_config.json; give a'):
    critic_config.open_chosen(wanted, workdir)


@pytest.mark.parametrize(
  'change',
  [{'compute_dtype': 'float16'}, {'attention': 'flash'}],
)
def test_unknown_choices(change):
  (name,) = change
  with pytest.raises(UserError, match=f'model.{name} is'):
    dataclasses.replace(CHOICE, **change)


def test_unknown_template(tmp_path):
  """Refused before anything is written."""
  wanted = dataclasses.replace(CHOICE, template='llama')
  with pytest.raises(UserError, match='model.template is'):
    critic_config.open_chosen(wanted, tmp_path)
  assert list(tmp_path.iterdir()) == []


class TestDeclared:
  """Critics without weights, for plans."""

  @pytest.mark.parametrize(
    ('name', 'width', 'num_layers'),
    [('VILA1.5-13b', 5120, 40), ('VILA1.5-40b', 7168, 60)],
  )
  def test_published(self, name, width, num_layers):
    config = dataclasses.replace(CHOICE, random=None, published=name)
    critic = critic_config.declare_chosen(config)
    assert critic.config.llm.width == width
    assert critic.config.llm.num_layers == num_layers

  def test_random_takes_precedence(self):
    config = dataclasses.replace(CHOICE, published='VILA1.5-13b')
    assert critic_config.declare_chosen(config).config == CONFIG

  @pytest.mark.parametrize('name', ['', 'VILA1.5-9b'])
  def test_unknown(self, name):
    config = dataclasses.replace(CHOICE, random=None, published=name)
    with pytest.raises(UserError, match=f'model.published is {name!r}'):
      critic_config.declare_chosen(config)


class TestTokenizer:
  def test_of_the_critic(self, workdir):
    critic = critic_config.open_chosen(CHOICE, workdir)
    tokenizer = critic.open_tokenizer('vicuna_v1')
    assert tokenizer.tokens_per_frame == TOKENS_PER_FRAME
    assert tokenizer.max_length == CONFIG.llm.max_length
    assert tokenizer.template.name == 'vicuna_v1'
    assert len(label_ids(tokenizer)) == 3

  def test_more_tokens_than_the_model(self, workdir):
    critic = critic_config.open_chosen(CHOICE, workdir)
    llm = dataclasses.replace(CONFIG.llm, vocab_size=500)
    smaller = dataclasses.replace(
      critic, config=dataclasses.replace(CONFIG, llm=llm)
    )
    with pytest.raises(UserError, match='has 512 tokens, .* model 500'):
      smaller.open_tokenizer('vicuna_v1')

  def test_template_of_another_model(self, workdir):
    critic = critic_config.open_chosen(CHOICE, workdir)
    with pytest.raises(UserError, match='prompt template'):
      critic.open_tokenizer('hermes-2')

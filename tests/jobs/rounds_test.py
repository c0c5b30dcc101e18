"""`lift rounds`: with simulated jobs, and once with real ones."""

import json
import logging
import os
import pathlib
import shutil

import pytest

from lift_jax.data import critic_prompts, hra, video
from lift_jax.data.records import read_alignment
from lift_jax.data.rubric import read_rubric
from lift_jax.errors import UserError
from lift_jax.jobs import rounds
from lift_jax.models.adapter_config import AdapterConfig
from lift_jax.models.generators import open_model
from lift_jax.runtime.files import write_json
from lift_jax.sampling import manifest
from lift_jax.toyworld import feedback, weights
from tests import threaded_hosts
from tests.jobs import jobs, simulated_rounds
from tests.jobs.simulated_rounds import Interrupted, World, contents


def guard(outcome, name: str) -> dict:
  return next(g for g in outcome['guards'] if g['name'] == name)


def test_honest_critic(tmp_path):
  """Each round begins with the model of the last one, and moves more."""
  world = World()
  results = world.run(tmp_path)
  assert results['state'] == 'finished'
  assert results['model']['of'] == 'round_2'
  first, second = results['rounds']
  assert (first['began_with'], second['began_with']) == ('base', 'round_1')
  assert not first['rolled_back'] and not second['rolled_back']
  assert guard(first, 'frame_difference')['value']['value'] > 0.1
  assert guard(first, 'held_out_reward')['value']['low'] > 0
  assert guard(second, 'implicit_accuracy')['value']['value'] == 0.7
  assert guard(second, 'anchor_distance')['value']['value'] == 1e-3
  exported = [
    float((tmp_path / f'round_{n}' / 'align' / 'export' / 'still').read_text())
    for n in (1, 2)
  ]
  assert simulated_rounds.BASE_STILL > exported[0] > exported[1]


def test_budget(tmp_path):
  """Equal parts; no prompt is trained on twice, or measured on too."""
  World().run(tmp_path)
  used = [
    [json.loads(line)['id'] for line in file.read_text().splitlines()]
    for file in (tmp_path / 'prompts').glob('*sample.jsonl')
    if not file.name.startswith('round_1_guard')
    and not file.name.startswith('round_2_guard')
  ]
  assert list(map(len, used)) == [8, 8, 8]
  assert len(set(sum(used, []))) == 24


def test_hacked_critic(tmp_path):
  """A critic that rewards clips that stand still: rolled back and stopped."""
  results = World(hacked=True).run(tmp_path)
  assert results['state'] == 'stopped by a guard'
  assert results['model']['of'] == 'base'
  assert results['model']['adapters'] == []
  (outcome,) = results['rounds']
  assert outcome['rolled_back']
  broken = {g['name'] for g in outcome['guards'] if g['broken']}
  assert broken >= {'held_out_reward', 'frame_difference', 'static_share'}
  assert guard(outcome, 'reward')['value']['low'] > 0
  (reason,) = [r for r in outcome['broken'] if r.startswith('frame_difference')]
  assert 'since base, below -10.0%' in reason
  page = (tmp_path / 'rounds.html').read_text()
  assert 'Round 1 was rolled back: the reward of the held-out critic' in page


def test_continues(tmp_path):
  """The next round begins with the last good model, on other clips."""
  results = World(hacked=True).run(tmp_path, guards__on_break='continue')
  assert [r['began_with'] for r in results['rounds']] == ['base', 'base']
  assert results['state'] == 'finished'
  assert results['model']['of'] == 'base'


def test_rules_off(tmp_path):
  """A rule that is None breaks nothing, in a run that one has stopped, too."""
  names = (
    'max_motion_loss', 'max_motion_rise', 'max_static_rise',
    'max_diversity_loss', 'max_anchor_distance', 'max_implicit_accuracy',
    'max_winner_change',
  )  # fmt: skip
  rules = {f'guards__rules__{name}': None for name in names}
  World(hacked=True).run(tmp_path)
  world = World(hacked=True)
  results = world.run(tmp_path, guards__rules__held_out_falls=False, **rules)
  assert results['model']['of'] == 'round_2'
  assert {name.split('/')[0] for name in world.done} == {'round_2'}


def test_interrupted(tmp_path):
  """Killed at the end of each job, before it is noted, and started again."""
  settings = {
    'critic_training__enabled': True,
    'budget__clips': 16,
    'guards__prompts': 2,
  }
  World().run(tmp_path / 'whole', **settings)
  world, interruptions = World(), 0
  while True:
    world.interrupts = True
    try:
      world.run(tmp_path / 'killed', **settings)
      break
    except Interrupted:
      interruptions += 1
  assert interruptions == len(world.done) == len(set(world.done)) == 17
  assert contents(tmp_path / 'killed') == contents(tmp_path / 'whole')


def test_again(tmp_path):
  """Nothing is done twice; other settings are refused."""
  World().run(tmp_path)
  again = World()
  assert again.run(tmp_path)['model']['of'] == 'round_2'
  assert again.done == []
  with pytest.raises(UserError, match='round_1/align.* 3; give another'):
    World().run(tmp_path, budget__steps=6)


def test_hosts(tmp_path):
  """Two hosts leave the same as one."""
  World().run(tmp_path / 'one')
  world = World()
  call = simulated_rounds.make_call(tmp_path / 'two')

  def host(number):
    return rounds.run(call, logging.getLogger('lift'))

  with world.patched():
    first, second = threaded_hosts.run(2, host)
  assert first == second
  assert contents(tmp_path / 'two') == contents(tmp_path / 'one')


_ONE_ROUND = {'budget__rounds': 1, 'budget__clips': 32}


def test_vote(tmp_path):
  """Two honest critics outvote a hacked one on the clips that are chosen."""
  results = World(hacked=True).run(
    tmp_path, num_voters=2, correction__share=1.0, **_ONE_ROUND
  )
  assert results['model']['of'] == 'round_1'
  records = json.loads(
    (tmp_path / 'round_1' / 'correct' / 'scores.json').read_text()
  )
  assert len(records) == 32
  assert {record['corrected_by'] for record in records} == {'vote'}
  honest = json.loads(
    (tmp_path / 'round_1' / 'vote_2' / 'scores.json').read_text()
  )
  assert [r['labels'] for r in records] == [r['labels'] for r in honest]


def test_tie(tmp_path):
  """Of two critics that disagree about a clip, the worse label counts."""
  World(hacked=True).run(
    tmp_path, num_voters=1, correction__share=0.5, **_ONE_ROUND
  )
  records = json.loads(
    (tmp_path / 'round_1' / 'correct' / 'scores.json').read_text()
  )
  corrected = [record for record in records if record['corrected_by']]
  assert len(corrected) == 16
  assert all(set(r['labels'].values()) == {'Bad'} for r in corrected)


class TestCriticsAgree:
  """The critic learns labels that another one gives, too."""

  SETTINGS = {
    'critic_training__enabled': True,
    'agreement': 'critics',
    **_ONE_ROUND,
  }

  def test_all(self, tmp_path):
    World().run(tmp_path, num_voters=1, **self.SETTINGS)
    path = tmp_path / 'round_1' / 'train_critic' / 'export' / 'learnt'
    assert len(json.loads(path.read_text())) == 32 * 3

  def test_none(self, tmp_path):
    with pytest.raises(UserError, match='agrees in fidelity, motion, semantic'):
      World(hacked=True).run(tmp_path, num_voters=1, **self.SETTINGS)


class TestOwnRubric:
  """A critic that rates other dimensions than LiFT's, with other labels."""

  @pytest.fixture
  def rubric(self, tmp_path) -> pathlib.Path:
    path = tmp_path / 'rubric.json'
    write_json(
      path,
      {
        'questions': {'style': ' Nice?', 'physics': ' Plausible?'},
        'labels': ['Yes', 'No'],
        'rewards': {'Yes': 1.0, 'No': 0.25},
      },
    )
    return path

  def test_vote(self, rubric, tmp_path):
    """Votes correct labels, ranks and scores; pairs are made of them."""
    World(hacked=True).run(
      tmp_path / 'run', num_voters=2, correction__share=1.0,
      score__prompts__questions=rubric, **_ONE_ROUND,
    )  # fmt: skip
    folder = tmp_path / 'run' / 'round_1'
    records = json.loads((folder / 'correct' / 'scores.json').read_text())
    assert {record['corrected_by'] for record in records} == {'vote'}
    found = read_alignment(
      tmp_path / 'run', (str(folder / 'correct' / 'scores.json'),)
    )
    truth = json.loads((folder / 'sample' / 'truth.json').read_text())
    for record in found.records:
      is_still = truth['videos/' + record.path.name]
      rank, reward = (0, 0.25) if is_still else (1, 1.0)
      assert record.dimensions == {'style': rank, 'physics': rank}
      assert record.reward == reward

  def test_people(self, rubric, tmp_path):
    """Their questions are those of the critic, which learns their labels."""
    settings = {
      'correction__people': 'people/{round}.json',
      'score__prompts__questions': rubric,
      'critic_training__enabled': True,
      **_ONE_ROUND,
    }
    World().run(tmp_path / 'first', **settings)
    scores = tmp_path / 'first' / 'round_1' / 'score' / 'scores.json'
    clip = json.loads(scores.read_text())[0]
    other = {'Yes': 'No', 'No': 'Yes'}[clip['labels']['style']]
    write_json(
      tmp_path / 'run' / 'people' / '1.json',
      [hra.conversation(clip['video'], clip['caption'], ' Nice?', other, '')],
    )
    World().run(tmp_path / 'run', **settings)
    folder = tmp_path / 'run' / 'round_1'
    record, *_ = json.loads((folder / 'correct' / 'scores.json').read_text())
    assert record['corrected_by'] == 'people'
    assert record['labels'] == clip['labels'] | {'style': other}
    rated = hra.read_hra(
      folder / 'sample',
      [str(folder / 'train_critic' / 'export' / 'learnt')],
      hra.read_questions(rubric),
      labels=('Yes', 'No'),
    ).records
    learnt = {
      record.dimension: record.label
      for record in rated
      if record.video == clip['video']
    }
    assert learnt['style'] == other
    prompts = read_rubric(folder / 'train_critic' / 'prompts.json')
    assert prompts.rewards == {'Yes': 1.0, 'No': 0.25}

  def test_voters_of_another(self, rubric, tmp_path):
    """All critics must rate the same."""
    folders = []
    for name, questions in (('a', feedback.questions_path()), ('b', rubric)):
      folders.append(tmp_path / name)
      shutil.copytree(weights.CRITIC, folders[-1], copy_function=os.symlink)
      shutil.copy(questions, folders[-1] / critic_prompts.NAME)
    with pytest.raises(UserError, match='rates style, physics as Yes, No, and'):
      World().run(
        tmp_path / 'run', num_voters=1, voter=folders[1],
        score__model__path=folders[0], score__prompts__questions='',
      )  # fmt: skip


def test_real_clips(tmp_path):
  """They may be anywhere on the disk; paths are relative to what is common."""
  (tmp_path / 'filmed' / 'videos').mkdir(parents=True)
  video = tmp_path / 'filmed' / 'videos' / 'cat.mp4'
  video.write_bytes(b'')
  (tmp_path / 'filmed' / 'real.json').write_text(
    json.dumps([{'video': 'videos/cat.mp4', 'caption': 'A cat.'}])
  )
  world = World()
  world.run(
    tmp_path / 'run',
    real__root=tmp_path / 'filmed',
    real__files=('real.json',),
    **_ONE_ROUND,
  )
  assert world.real == ['filmed/videos/cat.mp4']


class TestPeople:
  SETTINGS = {
    'correction__people': 'people/{round}.json',
    'correction__share': 0.25,
    **_ONE_ROUND,
  }

  def test_wait(self, tmp_path, caplog):
    """The job stops until their file is there, and takes its labels."""
    caplog.set_level(logging.INFO, logger='lift')
    settings = self.SETTINGS | {'correction__wait': True}
    world = World(hacked=True)
    results = world.run(tmp_path, **settings)
    assert (results['state'], results['rounds']) == ('waiting', [])
    file = tmp_path / 'people' / '1.json'
    chosen = tmp_path / 'round_1' / 'choose' / 'to_rate.json'
    assert str(file) in caplog.messages[-1]
    assert str(chosen) in caplog.messages[-1]
    listed = json.loads(chosen.read_text())
    assert len(listed) == 8
    self.rate(file, listed)
    results = world.run(tmp_path, **settings)
    assert results['state'] == 'stopped by a guard'
    records = json.loads(
      (tmp_path / 'round_1' / 'correct' / 'scores.json').read_text()
    )
    corrected = [r for r in records if r['corrected_by'] == 'people']
    names = {f'round_1/sample/{record["video"]}' for record in listed}
    assert {record['video'] for record in corrected} == names
    for record in corrected:
      assert record['labels']['motion'] == 'Normal'
      own = {r['labels']['semantic'] for r in [record]}
      assert own <= {'Good', 'Bad'}  # people have not rated it
    # Without the file, they are those of the critic.
    World(hacked=True).run(tmp_path / 'none', **self.SETTINGS)
    text = tmp_path / 'none' / 'round_1' / 'correct' / 'scores.json'
    assert not any(r['corrected_by'] for r in json.loads(text.read_text()))

  def test_critic_learns_from_them(self, tmp_path):
    settings = self.SETTINGS | {'critic_training__enabled': True}
    world = World()
    world.run(tmp_path / 'first', **settings)
    listed = json.loads(
      (tmp_path / 'first' / 'round_1' / 'choose' / 'to_rate.json').read_text()
    )
    self.rate(tmp_path / 'second' / 'people' / '1.json', listed)
    results = World().run(tmp_path / 'second', **settings)
    assert results['critic']['adapters'] == [
      str(tmp_path / 'second' / 'round_1' / 'train_critic' / 'export')
    ]
    answers = [
      json.loads(
        (tmp_path / run / 'round_1/train_critic/export/learnt').read_text()
      )
      for run in ('first', 'second')
    ]
    normal = [
      [e for e in found if e['conversations'][1]['value'] == 'Normal.']
      for found in answers
    ]
    assert len(normal[1]) >= len(listed) > len(normal[0])

  def test_changed(self, tmp_path):
    """Labels that change after they were used."""
    World().run(tmp_path, **self.SETTINGS)
    listed = json.loads(
      (tmp_path / 'round_1' / 'choose' / 'to_rate.json').read_text()
    )
    self.rate(tmp_path / 'people' / '1.json', listed)
    with pytest.raises(UserError, match='made with people = None'):
      World().run(tmp_path, **self.SETTINGS)

  def rate(self, file: pathlib.Path, listed) -> None:
    file.parent.mkdir(parents=True)
    question = ' Rate the motion of this clip.'
    file.write_text(
      json.dumps(
        [
          hra.conversation(r['video'], r['caption'], question, 'Normal', 'So.')
          for r in listed
        ]
      )
    )


@pytest.mark.parametrize(
  ('settings', 'message'),
  [
    ({'sample__model__path': ''}, 'sample.model.path is empty'),
    ({'budget__clips': 4}, 'less than 4 clips of a prompt for each of 2'),
    ({'budget__clips': 400}, 'has 30 prompts, but the guards take 8 and each'),
    ({'budget__steps': 1}, 'less than one for each of 2 rounds'),
    ({'correction__people': 'a.json'}, 'needs {round}'),
    ({'correction__wait': True}, 'waits for people: name their file'),
    ({'guards__clips_per_prompt': 1}, 'it must be 2 or more'),
    ({'guards__rules__max_motion_loss': 0.0}, 'above 0, or None'),
    ({'agreement': 'votes'}, 'choose one of'),
    ({'real__root': 'clips'}, 'go together'),
    ({'align__train__export': False}, 'export must be True'),
    (
      {
        'sample__sampler__cache': 'magcache',
        'sample__sampler__cache_curve': 'curve.json',
      },
      'from several models, and a curve is of one; set sample.sampler.cache = ',
    ),
  ],
)
def test_refused(tmp_path, settings, message):
  with pytest.raises(UserError, match=message):
    World().run(tmp_path, **settings)


def _score_brightness(call, logger):
  """A critic that likes bright clips; `lift score` has tests of its own."""
  records = []
  for clip in manifest.read(pathlib.Path(call.config.videos.root)):
    reward = (
      float(video.decode(clip.path, where=clip.video).frames.mean()) / 255
    )
    label = 'Good' if reward > 0.5 else 'Bad'
    labels = dict.fromkeys(('semantic', 'motion', 'fidelity'), label)
    records.append(
      {
        'video': clip.video, 'caption': clip.caption, 'labels': labels,
        'score': reward, 'soft_reward': reward,
      }
    )  # fmt: skip
  write_json(call.workdir / 'scores.json', records)


def test_real_jobs(world, tmp_path, monkeypatch):
  """Two rounds of `lift sample` and `lift align`; the last stages again."""
  monkeypatch.setattr('lift_jax.jobs.score.run', _score_brightness)
  flags = [
    f'--config={simulated_rounds.CONFIG}:smoke',
    f'--workdir={tmp_path}',
    f'--config.sample.model.path={world.workdir / "model"}',
    '--config.sample.video.height=16',
    '--config.sample.video.num_frames=5',
    '--config.sample.sampler.num_steps=1',
    '--config.sample.run.batch_per_shard=1',
    '--config.align.data.sizes=((16, 32),)',
    '--config.align.data.max_frames=5',
    '--config.align.optimizer.learning_rate=1e-2',
    '--config.budget.steps=4',
  ]
  outcome = jobs.lift('rounds', *flags)
  assert (outcome.status, outcome.stderr) == (0, ''), outcome
  results = json.loads((tmp_path / 'rounds.json').read_text())
  assert results['state'] == 'finished'
  names = [g['name'] for g in results['rounds'][1]['guards']]
  assert names == [
    'reward', 'held_out_reward', 'frame_difference', 'static_share',
    'diversity', 'anchor_distance', 'winner_change',
  ]  # fmt: skip
  first, second = (
    guard(r, 'anchor_distance')['value']['value'] for r in results['rounds']
  )
  assert 0 < first != second > 0
  # The adapters of the last round contain those of the first.
  exports = [tmp_path / f'round_{n}' / 'align' / 'export' for n in (1, 2)]
  ranks = [
    open_model(world.workdir / 'model', [AdapterConfig(str(path))])
    .adapters[0]
    .rank
    for path in exports
  ]
  assert ranks == [4, 8]

  before = contents(tmp_path)
  for name in ('align', 'guard_sample', 'measure'):
    (tmp_path / 'stages' / 'round_2' / f'{name}.json').unlink()
  shutil.rmtree(tmp_path / 'round_2' / 'align')
  again = jobs.lift('rounds', *flags)
  assert sum(line.endswith('already done') for line in again.log) == 19
  assert contents(tmp_path) == before

